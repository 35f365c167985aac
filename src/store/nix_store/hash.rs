//! The *spellings* of a SHA-256 that Nix has used: `sha256:` with hexadecimal digits or base 32, and SRI's base 64.
//!
//! Invariant: one hash has one value whatever its spelling; what is not a SHA-256 is none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;
use crate::store_path::base32_decode;

/// Characters of a SHA-256 in base 32.
const BASE32_CHARS: usize = 52;

/// Parses `sha256:HEX`, `sha256:BASE32`, `sha256:BASE64`, `sha256-BASE64` (SRI), or any of them without `sha256`.
pub fn parse_hash(text: &str) -> Option<Digest> {
    let value = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-"));
    let value = value.unwrap_or(text);
    let bytes: Vec<u8> = match value.len() {
        64 => return Digest::from_hex(&value.to_ascii_lowercase()).ok(),
        BASE32_CHARS => base32_decode(value.as_bytes())?,
        _ => STANDARD.decode(value).ok()?,
    };
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_one_hash() {
        // `nix-hash --type sha256 --flat --base32|--sri` of an empty file, Nix 2.8.
        let empty = Digest::of(b"");
        for text in [
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ] {
            assert_eq!(parse_hash(text), Some(empty), "{text}");
        }
        for text in [
            "",
            "sha256:",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "sha512-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c7e",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF=",
        ] {
            assert_eq!(parse_hash(text), None, "{text}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_nix_hash() {
        crate::testing::fuzz("nix-hash", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::parse_hash(&text);
        });
    }
}
