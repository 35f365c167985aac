//! A *pace* says when a host may be asked again: all requests of a run wait for it together.
//!
//! Invariant: a wait that a host asks for is kept or given up at once when it is too long; the number of waits that
//! end in nothing is bounded, and progress sets it back.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::error::HttpError;
use super::wire::lock;

/// How soon a cancellation is seen.
const GLANCE: Duration = Duration::from_millis(100);

/// How often and how long is waited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Persistence {
    /// The first pause; it doubles with each failure that follows.
    pub(crate) pause: Duration,
    /// The longest pause that is made without being asked for.
    pub(crate) pause_max: Duration,
    /// The longest wait that a server may ask for.
    pub(crate) wait_max: Duration,
    /// Failures in a row after which is given up.
    pub(crate) attempts: u32,
    /// The same where a host has not answered once.
    pub(crate) attempts_at_first: u32,
}

/// The pace of every host.
#[derive(Default)]
pub(crate) struct Pace {
    hosts: Mutex<BTreeMap<String, HostPace>>,
}

#[derive(Default, Clone, Copy)]
struct HostPace {
    answered: bool,
    /// Failures in a row, those of requests that were under way together counted once.
    failures: u32,
    last_failure: Option<Instant>,
    not_before: Option<Instant>,
}

impl Pace {
    /// Waits until the host may be asked; gives how long that took.
    pub(crate) fn wait(&self, host: &str) -> Result<Duration, HttpError> {
        let started = Instant::now();
        loop {
            let until = lock(&self.hosts).get(host).and_then(|pace| pace.not_before);
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                _ if super::is_cancelled() => return Err(HttpError::Cancelled),
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(GLANCE)),
                _ => return Ok(started.elapsed()),
            }
        }
    }

    /// The host answered, with whatever.
    pub(crate) fn answered(&self, host: &str) {
        lock(&self.hosts).entry(host.to_owned()).or_default().answered = true;
    }

    /// The host did what was asked, or bytes moved.
    pub(crate) fn worked(&self, host: &str) {
        let mut hosts = lock(&self.hosts);
        let pace = hosts.entry(host.to_owned()).or_default();
        pace.answered = true;
        pace.failures = 0;
    }

    /// Whether the host has answered at all.
    pub(crate) fn has_answered(&self, host: &str) -> bool {
        lock(&self.hosts).get(host).is_some_and(|pace| pace.answered)
    }

    /// A request that began at `began` failed: nobody asks the host before the pause that is given back is over. What the
    /// host asked for is kept as far as is waited at all.
    pub(crate) fn failed(
        &self,
        host: &str,
        began: Instant,
        asked: Option<Duration>,
        persistence: &Persistence,
    ) -> Duration {
        let mut hosts = lock(&self.hosts);
        let pace = hosts.entry(host.to_owned()).or_default();
        let now = Instant::now();
        if pace.last_failure.is_none_or(|last| began >= last) {
            pace.failures = pace.failures.saturating_add(1);
            pace.last_failure = Some(now);
        }
        let doubled = persistence
            .pause
            .saturating_mul(1 << (pace.failures.saturating_sub(1)).min(16));
        let pause =
            jittered(doubled.min(persistence.pause_max)).max(asked.unwrap_or_default().min(persistence.wait_max));
        let until = now + pause;
        pace.not_before = Some(pace.not_before.map_or(until, |before| before.max(until)));
        pause
    }
}

/// Whether a request that was answered with this status may succeed in a while: what servers and what is before them
/// answer when they are busy.
pub(crate) fn status_may_pass(status: StatusCode) -> bool {
    const PASSING: [u16; 12] = [408, 425, 429, 499, 500, 502, 503, 504, 520, 522, 524, 529];
    PASSING.contains(&status.as_u16())
}

/// Between half of a pause and the whole of it, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without randomness the pause is whole.
    let part = match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 1.0,
    };
    pause.mul_f64(0.5 + part / 2.0)
}

/// How long an answer asks to wait (RFC 9110, 10.2.3): seconds, or a date, which is compared with the server's own
/// clock where the answer tells it.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(clock);
    Some(at.duration_since(now).unwrap_or_default())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server names a time of day; nothing but a pause depends on it"
)]
fn clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_32_both_forms_of_retry_after_are_read() {
        let headers = |retry: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let noon = Some("Sun, 06 Nov 1994 12:00:00 GMT");
        assert_eq!(headers("7", None), seconds(7));
        assert_eq!(headers(" 0 ", noon), seconds(0));
        assert_eq!(headers("Sun, 06 Nov 1994 12:00:09 GMT", noon), seconds(9));
        assert_eq!(headers("Sun, 06 Nov 1994 11:00:00 GMT", noon), seconds(0));
        assert_eq!(headers("Sun, 06 Nov 1994 12:00:09 GMT", None), seconds(0));
        assert!(headers("Wed, 01 Jan 2200 00:00:00 GMT", None).unwrap() > Duration::from_secs(1 << 30));
        for text in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(headers(text, None), None, "{text}");
        }
    }

    #[test]
    fn row_31_pauses_grow_with_failures_of_one_host_and_shrink_with_progress() {
        let persistence = Persistence {
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(1),
            wait_max: Duration::from_secs(9),
            attempts: 8,
            attempts_at_first: 3,
        };
        let pace = Pace::default();
        let within = |pause: Duration, whole: u64| {
            let whole = Duration::from_millis(whole);
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        };
        let began = Instant::now();
        within(pace.failed("a", Instant::now(), None, &persistence), 100);
        // What was under way at the same time is one failure.
        within(pace.failed("a", began, None, &persistence), 100);
        within(pace.failed("a", Instant::now(), None, &persistence), 200);
        for _ in 0..9 {
            pace.failed("a", Instant::now(), None, &persistence);
        }
        within(pace.failed("a", Instant::now(), None, &persistence), 1000);
        within(pace.failed("b", Instant::now(), None, &persistence), 100);
        pace.worked("a");
        within(pace.failed("a", Instant::now(), None, &persistence), 100);
        let asked = Some(Duration::from_secs(5));
        assert_eq!(
            pace.failed("b", Instant::now(), asked, &persistence),
            Duration::from_secs(5)
        );
        assert!(pace.wait("c").unwrap() < Duration::from_millis(50));
    }
}

#[cfg(test)]
mod fuzz {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn fuzz_retry_after() {
        crate::testing::fuzz("retry-after", |bytes| {
            let mut headers = HeaderMap::new();
            let mut lines = bytes.split(|&byte| byte == b'\n');
            for name in [RETRY_AFTER, DATE] {
                if let Some(value) = lines.next().and_then(|line| HeaderValue::from_bytes(line).ok()) {
                    headers.insert(name, value);
                }
            }
            let persistence = Persistence {
                pause: Duration::from_millis(1),
                pause_max: Duration::from_millis(2),
                wait_max: Duration::from_secs(60),
                attempts: 3,
                attempts_at_first: 3,
            };
            let asked = retry_after(&headers);
            let pause = Pace::default().failed("host", Instant::now(), asked, &persistence);
            assert!(asked.is_none_or(|asked| pause >= asked.min(persistence.wait_max)));
        });
    }
}
