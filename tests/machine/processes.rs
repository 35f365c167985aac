//! Processes of this machine, found by their arguments.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Processes of this machine whose arguments hold `marker`.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let names = layerize::fsio::sorted_names(Path::new("/proc")).unwrap();
    let pids = names.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let arguments = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
    pids.filter(|pid| holds(&arguments(pid))).collect()
}

/// Waits for something that comes soon.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A number of seconds that no other process sleeps.
pub fn marker(number: u32) -> String {
    format!("{number}{}.25", std::process::id())
}

fn parent(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The helper's processes that are between this one and those of a sandbox that have `marker`: the outer, and the keeper below
/// it.
pub fn helpers(marker: &str) -> Vec<u32> {
    let helpers = processes_with("__sandbox");
    let mut found = Vec::new();
    for mut pid in processes_with(marker) {
        while pid > 1 {
            pid = parent(pid);
            if helpers.contains(&pid) && !found.contains(&pid) {
                found.insert(0, pid);
            }
        }
    }
    found
}
