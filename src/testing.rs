//! What tests of all modules share: real programs as *oracles*, and errors as text.
//!
//! Invariant: a test that lacks its oracle says so loudly, and fails where `CI` is `true`.

use std::process::{Command, Output, Stdio};

/// Says that a test was skipped; where `CI` is `true`, fails it.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
#[expect(clippy::disallowed_methods, reason = "tests must tell CI from a desk")]
pub(crate) fn skip(why: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "CI=true, but a test cannot run: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Whether a program that a test compares with is here and works.
pub(crate) fn oracle(program: &str) -> bool {
    let probe = match program {
        "docker" => "info",
        "openssl" => "version",
        _ => "--version",
    };
    let mut command = Command::new(program);
    command.arg(probe).stdin(Stdio::null());
    let found = command.output().is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("`{program}` is missing, nothing was compared with it"));
    }
    found
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard output of a program that must succeed with these arguments.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(run(Command::new(program).args(arguments)).stdout).unwrap()
}

/// Standard output of a program that must succeed, trimmed.
pub(crate) fn stdout(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap().trim().to_owned()
}

/// How often a parser is given something in the suite; `scripts/fuzz` sets a time instead.
const FUZZ_ROUNDS: usize = 1500;

/// The longest that a parser may take for one input, in an unoptimised build on a busy machine.
const FUZZ_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Feeds a parser of outside data with its corpus, `fixtures/fuzz/NAME/*`, and with mutations of it: whatever it is given, it
/// comes to an end without a panic. What was found is kept beside the corpus, and is tried first from then on.
///
/// `LAYERIZE_FUZZ_SECONDS` is how long it goes on, `LAYERIZE_FUZZ_SEED` another beginning than the suite's.
#[expect(clippy::disallowed_methods, reason = "a long run is asked for by the environment")]
pub(crate) fn fuzz(name: &str, parse: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/fuzz")
        .join(name);
    let seeds: Vec<Vec<u8>> = crate::fsio::sorted_names(&dir)
        .unwrap()
        .into_iter()
        .map(|name| std::fs::read(dir.join(name)).unwrap())
        .collect();
    assert!(!seeds.is_empty(), "{} is empty", dir.display());
    let try_one = |input: &[u8]| {
        let started = std::time::Instant::now();
        let ended = std::panic::catch_unwind(|| parse(input)).is_ok();
        if !ended || started.elapsed() > FUZZ_PATIENCE {
            let found = dir.join(format!("found-{}", &crate::digest::Digest::of(input).hex()[..16]));
            std::fs::write(&found, input).unwrap();
            panic!(
                "`{name}` {} on {}",
                if ended { "takes too long" } else { "panics" },
                found.display()
            );
        }
    };
    seeds.iter().for_each(|seed| try_one(seed));
    let mut random = Random(number("LAYERIZE_FUZZ_SEED").unwrap_or(0) ^ 0x9e37_79b9_7f4a_7c15);
    let seconds = number("LAYERIZE_FUZZ_SECONDS").map(std::time::Duration::from_secs);
    let (started, mut rounds) = (std::time::Instant::now(), 0usize);
    while seconds.map_or(rounds < FUZZ_ROUNDS, |seconds| started.elapsed() < seconds) {
        try_one(&random.mutated(&seeds));
        rounds += 1;
    }
    if seconds.is_some() {
        println_rounds(name, rounds);
    }
}

#[expect(clippy::print_stderr, reason = "a long run tells what it did")]
fn println_rounds(name: &str, rounds: usize) {
    eprintln!("fuzz {name}: {rounds} inputs");
}

/// Numbers that look random and are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap_or(0)
    }

    /// A seed with some of its bytes changed, moved, doubled, cut, or taken from another seed.
    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        const INTERESTING: &[&[u8]] = &[
            b"\0",
            b"\xff",
            b"\n",
            b" ",
            b"\"",
            b"\\",
            b"/",
            b"../",
            b"-",
            b"9",
            b"99999999999999999999",
            b"7777777",
            b"\x80\0\0\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"{",
            b"[",
            b"]",
            b"}",
            b":",
            b",",
            b"=",
            b"\xc3\x28",
            b"e999",
            b"null",
            b"",
        ];
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let length = self.below(64);
            let end = (at + length).min(bytes.len());
            match self.below(8) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 => drop(bytes.splice(at..end, INTERESTING[self.below(INTERESTING.len())].iter().copied())),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let piece = bytes[at..end].to_vec();
                    let times = 1 + self.below(20);
                    drop(bytes.splice(at..at, piece.iter().copied().cycle().take(piece.len() * times)));
                }
                5 => bytes.truncate(at),
                6 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(200)).min(other.len());
                    drop(bytes.splice(at..end, other[from..to].iter().copied()));
                }
                _ => {
                    let to = self.below(bytes.len() + 1);
                    let piece: Vec<u8> = bytes[at..end].to_vec();
                    drop(bytes.splice(to..to, piece));
                }
            }
            bytes.truncate(64 << 10);
        }
        bytes
    }
}
