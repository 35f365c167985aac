//! A *DSSE envelope* signs bytes together with the name of their type (secure-systems-lab, DSSE protocol v1).
//!
//! Invariant: what is signed is the pre-authentication encoding, never the JSON around it.

/// Payload type of in-toto statements, and their media type.
pub(super) const IN_TOTO_TYPE: &str = "application/vnd.in-toto+json";

/// The pre-authentication encoding: `DSSEv1`, then length and bytes of type and payload, separated by spaces.
pub(super) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_protocol() {
        // The example of the protocol's page.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        // Lengths are of bytes.
        assert_eq!(pae("ä", "ö".as_bytes()), "DSSEv1 2 ä 2 ö".as_bytes());
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }
}
