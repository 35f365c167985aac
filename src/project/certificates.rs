//! What is to be said of the *certificates* that an image trusts: those that programs will not accept.
//!
//! Invariant: nothing of an image depends on today's date; it decides what is said.

use crate::event::{Event, Reporter};
use crate::image;
use crate::spec::{self, OwnCertificate};

/// Warns of certificates that help nobody: expired ones, and a server's in place of its authority's.
pub(super) fn warn(spec: &spec::Image, reporter: &dyn Reporter) {
    let own = spec
        .certificates
        .iter()
        .flat_map(|certificates| certificates.own.values());
    for text in own.filter_map(|own| complaint(own, &today())) {
        let text = format!("image `{}`: {text}", spec.name.value);
        reporter.report(Event::Warning { text });
    }
}

#[expect(clippy::disallowed_methods, reason = "of today's date nothing is made but a warning")]
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    i64::try_from(seconds)
        .ok()
        .and_then(image::format_time)
        .unwrap_or_default()
}

/// What is wrong with a certificate, at a time that is written as certificates write it.
fn complaint(own: &OwnCertificate, now: &str) -> Option<String> {
    let OwnCertificate { file, certificate } = own;
    let (subject, until) = (&certificate.subject, &certificate.not_after);
    if until.as_str() < now {
        return Some(format!(
            "the certificate `{subject}` in `{file}` is valid until {until} alone: programs refuse what it signed; replace it"
        ));
    }
    (!certificate.is_anchor).then(|| {
        format!(
            "the certificate `{subject}` in `{file}` is not an authority's: programs accept nothing that it signed; name the \
             authority's that signed it"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn own(not_after: &str, is_anchor: bool) -> OwnCertificate {
        let text = include_str!("../../fixtures/workloads/tls/ca.pem");
        let mut certificate = crate::certificate::parse(text).unwrap().remove(0);
        (certificate.not_after, certificate.is_anchor) = (not_after.to_owned(), is_anchor);
        let file = "corp.pem".to_owned();
        OwnCertificate { file, certificate }
    }

    #[test]
    fn what_helps_nobody_is_told() {
        let now = "2026-06-01T00:00:00Z";
        for (not_after, is_anchor, expected) in [
            ("2030-01-01T00:00:00Z", true, None),
            (
                "2026-05-31T23:59:59Z",
                true,
                Some("valid until 2026-05-31T23:59:59Z alone"),
            ),
            ("2030-01-01T00:00:00Z", false, Some("is not an authority's")),
        ] {
            let told = complaint(&own(not_after, is_anchor), now);
            assert_eq!(told.is_some(), expected.is_some(), "{told:?}");
            assert!(
                told.unwrap_or_default().contains(expected.unwrap_or_default()),
                "{not_after}"
            );
        }
        assert!(today().as_str() > "2020");
    }

    #[test]
    fn each_of_an_image_is_looked_at() {
        let mut spec = spec::Image::new("app");
        let own = BTreeMap::from([
            ("a".to_owned(), own("2000-01-01T00:00:00Z", true)),
            ("b".to_owned(), own("2999-01-01T00:00:00Z", true)),
        ]);
        spec.certificates = Some(spec::Certificates { files: Vec::new(), own });
        let told = std::sync::Mutex::new(Vec::new());
        struct Told<'a>(&'a std::sync::Mutex<Vec<String>>);
        impl Reporter for Told<'_> {
            fn report(&self, event: Event) {
                if let Event::Warning { text } = event {
                    self.0.lock().unwrap().push(text);
                }
            }
        }
        warn(&spec, &Told(&told));
        let told = told.into_inner().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("image `app`: the certificate "), "{told:?}");
    }
}
