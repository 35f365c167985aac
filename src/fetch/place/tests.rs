//! Tests of places: their order, what they may say, and what is told when nobody has a file.

use std::fs;
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::derive::{Download, Origin};
use crate::digest::Digest;
use crate::event::{Event, Reporter, Silent};
use crate::fetch::{Answer, FetchConfig, fetch};

/// What a place of the test does when it is asked.
#[derive(Debug)]
enum Does {
    Gives(&'static str),
    HasNothing,
    Withholds,
    IsSilent,
    IsBroken,
}

#[derive(Debug)]
struct Fake {
    name: &'static str,
    local: bool,
    does: Does,
    asked: AtomicUsize,
}

impl Place for Fake {
    fn name(&self) -> &str {
        self.name
    }

    fn is_local(&self) -> bool {
        self.local
    }

    fn open(&self, _: &Request<'_>) -> Result<LocalCopy, FetchError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let url = self.name.to_owned();
        match self.does {
            Does::Gives(text) => Ok(LocalCopy::File(Box::new(Cursor::new(text)))),
            Does::HasNothing => Ok(LocalCopy::Nothing),
            Does::Withholds => Ok(LocalCopy::Withheld),
            Does::IsSilent => Err(FetchError::Unreachable {
                url,
                source: "nobody there".into(),
            }),
            Does::IsBroken => Err(FetchError::Status {
                url,
                status: reqwest::StatusCode::INTERNAL_SERVER_ERROR,
                retry_after: None,
            }),
        }
    }

    fn has(&self, request: &Request<'_>) -> Result<bool, FetchError> {
        self.open(request).map(|held| matches!(held, LocalCopy::File(_)))
    }
}

fn fake(name: &'static str, does: Does) -> Arc<Fake> {
    Arc::new(Fake {
        name,
        local: false,
        does,
        asked: AtomicUsize::new(0),
    })
}

fn download(content: &str, url: &str) -> Download {
    Download {
        name: format!("{content}.txt"),
        hash: Digest::of(content.as_bytes()).into(),
        size: Some(content.len() as u64),
        origin: Origin::Url(url.to_owned()),
    }
}

fn config(dir: &std::path::Path, places: &[Arc<Fake>]) -> FetchConfig {
    FetchConfig {
        cache: dir.join("cache"),
        apt_state: dir.join("apt"),
        places: places.iter().map(|place| place.clone() as Arc<dyn Place>).collect(),
        ..FetchConfig::default()
    }
}

/// Keeps warnings and what places said.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Reporter for Told {
    fn report(&self, event: Event) {
        let text = match event {
            Event::Warning { text } => text,
            Event::FetchAsked { name, place, answer } => format!("{name} in {place}: {answer}"),
            Event::FetchFinished { name, from, .. } => format!("{name} from {from}"),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

#[test]
fn places_come_before_addresses_and_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x");
    fs::write(&file, "abc").unwrap();
    let wanted = download("abc", &format!("file:{}", file.display()));
    let (nothing, wrong) = (fake("p1", Does::HasNothing), fake("p2", Does::Gives("abd")));
    let (withheld, right) = (fake("p3", Does::Withholds), fake("p4", Does::Gives("abc")));
    let never = fake("p5", Does::Gives("abc"));
    let config = config(dir.path(), &[nothing, wrong, withheld, right, never.clone()]);
    let told = Told::default();
    let found = fetch(&[&wanted], &config, &told).unwrap();
    assert_eq!(fs::read(&found[0]).unwrap(), b"abc");
    assert_eq!(never.asked.load(Ordering::Relaxed), 0);
    let digest = |text: &str| Digest::of(text.as_bytes());
    assert_eq!(
        *told.0.lock().unwrap(),
        [
            "abc.txt in p1: not there".to_owned(),
            format!(
                "`p2` served different content for `abc.txt`: expected {}, got {}",
                digest("abc"),
                digest("abd")
            ),
            "abc.txt in p2: other content".to_owned(),
            "abc.txt in p3: withheld, as it may not be copied".to_owned(),
            "abc.txt from p4".to_owned(),
        ]
    );
    // The next time the cache has it; without any place the address does.
    let told = Told::default();
    fetch(&[&wanted], &config, &told).unwrap();
    assert_eq!(*told.0.lock().unwrap(), ["abc.txt in the download cache: there"]);
}

#[test]
fn a_place_that_does_not_answer_is_asked_once() {
    let dir = tempfile::tempdir().unwrap();
    let (silent, broken) = (fake("silent", Does::IsSilent), fake("broken", Does::IsBroken));
    let names: Vec<String> = (0..20).map(|number| format!("file{number}")).collect();
    let wanted: Vec<Download> = names
        .iter()
        .map(|name| {
            fs::write(dir.path().join(name), name).unwrap();
            download(name, &format!("file:{}", dir.path().join(name).display()))
        })
        .collect();
    let all: Vec<&Download> = wanted.iter().collect();
    let told = Told::default();
    let config = config(dir.path(), &[silent.clone(), broken.clone()]);
    // One after the other, so that none asks while another waits.
    fetch(&all[..1], &config, &told).unwrap();
    assert_eq!(fetch(&all, &config, &told).unwrap().len(), 20);
    assert_eq!(broken.asked.load(Ordering::Relaxed), 20);
    // As many at once as there are threads.
    assert!(silent.asked.load(Ordering::Relaxed) <= 1 + 6, "{silent:?}");
    let told = told.0.lock().unwrap();
    assert!(
        told.contains(&"cannot reach `silent`: nobody there".to_owned()),
        "{told:?}"
    );
}

#[test]
fn what_is_nowhere_is_named_with_every_place_and_all_of_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let places = [fake("p1", Does::HasNothing), fake("p2", Does::Withholds)];
    let missing = dir.path().join("missing");
    let address = format!("file:{}", missing.display());
    let (first, second) = (download("one", &address), download("two", &address));
    let error = fetch(&[&first], &config(dir.path(), &places), &Silent).unwrap_err();
    let shown = format!("file://{}", missing.display());
    assert_eq!(
        error.to_string(),
        format!(
            "cannot get `one.txt` (3 bytes, {}); asked: p1: not there, p2: withheld, as it may not be copied, {shown}: not there",
            Digest::of(b"one")
        )
    );
    assert!(
        error.help().unwrap().contains("--inputs-from oci:DIR"),
        "{:?}",
        error.help()
    );
    let error = fetch(&[&first, &second], &config(dir.path(), &places), &Silent).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("2 files are unavailable:\n  cannot get `one.txt`"),
        "{text}"
    );
    assert!(text.contains("\n  cannot get `two.txt`"), "{text}");
    assert!(text.ends_with(&format!("nothing was found at `{shown}`")), "{text}");
}

#[test]
fn offline_only_places_on_this_machine_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let far = fake("far", Does::Gives("abc"));
    let near = Arc::new(Fake {
        local: true,
        ..Arc::into_inner(fake("near", Does::Gives("abc"))).unwrap()
    });
    let wanted = download("abc", "https://nobody.invalid/abc");
    let offline = |places: &[Arc<Fake>]| FetchConfig {
        offline: true,
        ..config(dir.path(), places)
    };
    let error = fetch(&[&wanted], &offline(std::slice::from_ref(&far)), &Silent).unwrap_err();
    assert!(
        matches!(&error, FetchError::OfflineFile { asked, .. } if asked.is_empty()),
        "{error}"
    );
    fetch(&[&wanted], &offline(&[far.clone(), near]), &Silent).unwrap();
    assert_eq!(far.asked.load(Ordering::Relaxed), 0);
    assert!(Answer::Withheld.is_clear());
}
