//! *Certificates* of authorities (X.509, RFC 5280), as users have them: one or more in a text in PEM form (RFC 7468).
//!
//! Invariant: pure. What was parsed is a certificate, and is printed in one form, whatever its text was like. A private key
//! is an error, not left out: who has one there had better know.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::digest::Digest;
use crate::escape::shown_message;

/// Characters in a line of PEM.
const LINE: usize = 64;

/// What stands before the label of a text that begins or ends, and after it.
const BEGIN: &str = "-----BEGIN";
const END: &str = "-----END";
const DASHES: &str = "-----";

/// Labels of certificates; the other one is from before the RFC.
const LABELS: [&str; 2] = ["CERTIFICATE", "X509 CERTIFICATE"];

/// DER's tags of what is looked at.
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// 2.5.29.19, which says whether a certificate is an authority's.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// What of a name is shown, the first that there is: 2.5.4.3 (common name), 2.5.4.11 (unit), 2.5.4.10 (organisation).
const NAMES: [&[u8]; 3] = [&[0x55, 0x04, 0x03], &[0x55, 0x04, 0x0b], &[0x55, 0x04, 0x0a]];

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// Whose it is, in a word; safe to show.
    pub subject: String,
    /// Until when it is valid: `2034-12-31T23:59:59Z`.
    pub not_after: String,
    /// Whether programs accept what it signed: it says that it is an authority's, or is signed by itself.
    pub is_anchor: bool,
}

impl Certificate {
    /// Its text: LF after each line, nothing before it.
    pub fn pem(&self) -> String {
        let body = STANDARD.encode(&self.der);
        let lines = body.as_bytes().chunks(LINE).map(String::from_utf8_lossy);
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        format!("{BEGIN} CERTIFICATE{DASHES}\n{lines}{END} CERTIFICATE{DASHES}\n")
    }

    /// Of its bytes, which is its fingerprint.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.der)
    }

    fn parse(der: Vec<u8>) -> Option<Self> {
        let fields = Fields::read(&der)?;
        let (subject, not_after, is_anchor) = (fields.subject(), time(fields.not_after)?, fields.is_anchor());
        Some(Self {
            der,
            subject,
            not_after,
            is_anchor,
        })
    }
}

impl Serialize for Certificate {
    /// As its digest.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.digest().serialize(serializer)
    }
}

/// What is wrong with a text of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateError {
    /// Where, as bytes of the text; empty where all of it is meant.
    pub range: Range<usize>,
    /// What stands there, in a few words.
    pub what: String,
    /// What to do about it.
    pub help: String,
}

/// The certificates of a text in their order, at least one; all that is wrong at once.
pub fn parse(text: &str) -> Result<Vec<Certificate>, Vec<CertificateError>> {
    let (mut certificates, mut errors) = (Vec::new(), Vec::new());
    for section in sections(text) {
        match section.certificate() {
            Ok(certificate) => certificates.push(certificate),
            Err((what, help)) => errors.push(CertificateError {
                range: section.range,
                what,
                help,
            }),
        }
    }
    if certificates.is_empty() && errors.is_empty() {
        errors.push(CertificateError {
            range: 0..0,
            what: match text.trim().is_empty() {
                true => "it is empty".to_owned(),
                false => format!("it holds no certificate: no line is `{BEGIN} CERTIFICATE{DASHES}`"),
            },
            help: DER_HELP.to_owned(),
        });
    }
    match errors.is_empty() {
        true => Ok(certificates),
        false => Err(errors),
    }
}

/// What to do with certificates in another form.
pub const DER_HELP: &str =
    "certificates are texts in PEM form; `openssl x509 -in FILE -out FILE.pem` makes one of other forms";

/// A text between a line that begins it and one that ends it.
#[derive(Debug)]
struct Section<'a> {
    /// Where its first line is.
    range: Range<usize>,
    label: &'a str,
    body: String,
    /// How it ends, if not as it must.
    fault: Option<String>,
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let (mut sections, mut open): (Vec<Section<'_>>, Option<Section<'_>>) = (Vec::new(), None);
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let line = line.trim_start_matches('\u{feff}').trim();
        if let Some(rest) = line.strip_prefix(BEGIN) {
            if let Some(section) = open.take() {
                sections.push(section.cut_off());
            }
            let label = rest.strip_suffix(DASHES).map(str::trim);
            let section = Section {
                range: start..start + text[start..at].trim_end().len(),
                label: label.unwrap_or_default(),
                body: String::new(),
                fault: None,
            };
            open = Some(section);
        } else if let Some(rest) = line.strip_prefix(END) {
            let label = rest.strip_suffix(DASHES).map(str::trim).unwrap_or_default();
            sections.push(match open.take() {
                Some(section) if section.label == label => section,
                Some(section) => section.cut_off(),
                None => Section {
                    range: start..start + text[start..at].trim_end().len(),
                    label,
                    body: String::new(),
                    fault: Some("ends what did not begin".to_owned()),
                },
            });
        } else if let Some(section) = &mut open {
            section.body.push_str(line);
        }
    }
    sections.extend(open.map(Section::cut_off));
    sections
}

impl Section<'_> {
    fn cut_off(mut self) -> Self {
        let end = format!("{END} {}{DASHES}", self.label);
        self.fault = Some(format!("it is cut off: `{end}` does not come"));
        self
    }

    /// The certificate; or what it is instead, and what to do.
    fn certificate(&self) -> Result<Certificate, (String, String)> {
        let again =
            || "get the file again: a certificate is copied as a whole, with both of its lines of dashes".to_owned();
        if self.label.ends_with("PRIVATE KEY") {
            return Err((
                "a private key, which would be published with the image".to_owned(),
                "take it out of the file: an image is given certificates of authorities alone".to_owned(),
            ));
        }
        if self.label.is_empty() {
            let help = format!("write `{BEGIN} CERTIFICATE{DASHES}`");
            return Err(("not a line that begins or ends a certificate".to_owned(), help));
        }
        if !LABELS.contains(&self.label) {
            let help = match self.label {
                "TRUSTED CERTIFICATE" => "`openssl x509 -in FILE -out FILE.pem` makes a plain certificate of it",
                "PKCS7" => "`openssl pkcs7 -print_certs -in FILE -out FILE.pem` takes the certificates out of it",
                _ => "take it out of the file, or name the file that has the authority's certificate",
            };
            let what = format!("not a certificate, but: {}", self.label.to_lowercase());
            return Err((shown_message(&what).into_owned(), help.to_owned()));
        }
        if let Some(fault) = &self.fault {
            return Err((fault.clone(), again()));
        }
        let body: String = self.body.split_whitespace().collect();
        let der = STANDARD.decode(body);
        let der = der.map_err(|error| (format!("it is damaged: {error}"), again()))?;
        Certificate::parse(der).ok_or_else(|| ("it is damaged: what is in it is no certificate".to_owned(), again()))
    }
}

/// What of a certificate is looked at.
struct Fields<'a> {
    has_version: bool,
    issuer: &'a [u8],
    subject: &'a [u8],
    not_after: (u8, &'a [u8]),
    extensions: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let mut whole = Der(der);
        let mut certificate = Der(whole.take(SEQUENCE)?);
        let mut signed = Der(certificate.take(SEQUENCE)?);
        certificate.take(SEQUENCE)?;
        certificate.take(BIT_STRING)?;
        if !(whole.0.is_empty() && certificate.0.is_empty()) {
            return None;
        }
        let has_version = signed.optional(VERSION)?.is_some();
        signed.take(INTEGER)?;
        signed.take(SEQUENCE)?;
        let issuer = signed.take(SEQUENCE)?;
        let mut validity = Der(signed.take(SEQUENCE)?);
        validity.next()?;
        let not_after = validity.next()?;
        let subject = signed.take(SEQUENCE)?;
        signed.take(SEQUENCE)?;
        let mut extensions = None;
        while !signed.0.is_empty() {
            let (tag, content) = signed.next()?;
            if tag == EXTENSIONS {
                extensions = Some(Der(content).take(SEQUENCE)?);
            }
        }
        Some(Self {
            has_version,
            issuer,
            subject,
            not_after,
            extensions,
        })
    }

    /// Of the first version none says whether it is an authority's.
    fn is_anchor(&self) -> bool {
        !self.has_version || self.issuer == self.subject || self.says_authority().unwrap_or(false)
    }

    fn says_authority(&self) -> Option<bool> {
        let mut extensions = Der(self.extensions?);
        loop {
            let mut extension = Der(extensions.take(SEQUENCE)?);
            if extension.take(OBJECT)? != BASIC_CONSTRAINTS {
                continue;
            }
            extension.optional(BOOLEAN)?;
            let mut constraints = Der(Der(extension.take(OCTET_STRING)?).take(SEQUENCE)?);
            return Some(constraints.optional(BOOLEAN)?.is_some_and(|value| value != [0]));
        }
    }

    fn subject(&self) -> String {
        let parts: Vec<(&[u8], &[u8])> = names(self.subject).unwrap_or_default();
        let named = |name: &&[u8]| parts.iter().rev().find(|(object, _)| object == name);
        match NAMES.iter().find_map(named) {
            Some((_, value)) => shown_message(&String::from_utf8_lossy(value)).to_string(),
            None => "without a name".to_owned(),
        }
    }
}

/// The parts of a name, each with what it is.
fn names(name: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (mut name, mut parts) = (Der(name), Vec::new());
    while !name.0.is_empty() {
        let mut set = Der(name.take(SET)?);
        while !set.0.is_empty() {
            let mut part = Der(set.take(SEQUENCE)?);
            parts.push((part.take(OBJECT)?, part.next()?.1));
        }
    }
    Some(parts)
}

/// `341231235959Z` or `20341231235959Z` → `2034-12-31T23:59:59Z`.
fn time((tag, bytes): (u8, &[u8])) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // RFC 5280, 4.1.2.5.1.
        UTC_TIME if text < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |range: Range<usize>| &text[range];
    Some(format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4),
        part(4..6),
        part(6..8),
        part(8..10),
        part(10..12),
        part(12..14)
    ))
}

/// Values in DER (X.690), one after the other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Tag and content of the next value; `None` where it is not one, or there is none.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (size, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (size, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let size = size.iter().fold(0, |size, &byte| size << 8 | u64::from(byte));
                (usize::try_from(size).ok()?, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(size)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next value, which must be of this kind.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, content)| content)
    }

    /// The next value if it is of this kind; else it stays. `None` where the bytes are no value.
    fn optional(&mut self, tag: u8) -> Option<Option<&'a [u8]>> {
        match self.0.first() == Some(&tag) {
            true => self.take(tag).map(Some),
            false => Some(None),
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_certificate() {
        crate::testing::fuzz("certificate", |bytes| {
            let _ = super::Certificate::parse(bytes.to_vec());
            if let Ok(certificates) = super::parse(&String::from_utf8_lossy(bytes)) {
                let text: String = certificates.iter().map(super::Certificate::pem).collect();
                assert_eq!(super::parse(&text), Ok(certificates));
            }
        });
    }
}
