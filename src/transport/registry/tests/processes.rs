//! What takes a process of its own: a push that is killed, its memory, its speed.
//!
//! Each test runs this very test program again, for the ignored test that stands for the process, in a directory that
//! both know.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::super::push as push_api;
use super::faulty::{Faulty, Ways};
use super::oracle::Distribution;
use super::*;
use crate::digest::{Digest, HashingWriter};
use crate::event::Silent;
use crate::image::ImageLayer;
use crate::layer::Blob;
use crate::oci::{Descriptor, MediaType};
use crate::transport::testing::sha256;
use crate::transport::testing::{config, image_of, oracle, run, stdout};

const CHILD: &str = "transport::registry::tests::processes::a_process_that_pushes";

/// Writes files of these sizes for the layers, and where they go to.
fn prepare(dir: &Path, host: &str, sizes: &[usize]) {
    for (at, size) in sizes.iter().enumerate() {
        let mut file = fs::File::create(dir.join(format!("layer{at}"))).unwrap();
        let piece = noise(at as u64 + 1, 1 << 20);
        for start in (0..*size).step_by(1 << 20) {
            // The same piece with another beginning, so that no two are alike.
            file.write_all(&(start as u64).to_le_bytes()).unwrap();
            let end = piece.len().min(size - start) - 8;
            file.write_all(&piece[..end]).unwrap();
        }
    }
    fs::write(dir.join("target"), format!("{host}/app:1")).unwrap();
}

/// The image of the files that were prepared.
fn prepared(dir: &Path) -> Image {
    let mut layers = Vec::new();
    while let Ok(mut file) = fs::File::open(dir.join(format!("layer{}", layers.len()))) {
        let mut hashing = HashingWriter::new(std::io::sink());
        let size = std::io::copy(&mut file, &mut hashing).unwrap();
        let (_, hasher, _) = hashing.finish();
        layers.push(ImageLayer {
            diff_id: Some(hasher.clone().diff_id()),
            descriptor: Descriptor::new(MediaType::LAYER, hasher.digest(), size),
            content: Blob::File {
                path: dir.join(format!("layer{}", layers.len())),
                offset: 0,
                len: size,
            },
        });
    }
    let diff_ids: Vec<_> = layers.iter().filter_map(|layer| layer.diff_id).collect();
    image_of(layers, &config(&diff_ids), None)
}

fn child(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", CHILD, "--test-threads=1"]);
    command.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
#[ignore = "a process of another test"]
fn a_process_that_pushes() {
    let dir = std::env::current_dir().unwrap();
    let Ok(target) = fs::read_to_string(dir.join("target")) else {
        return;
    };
    let image = prepared(&dir);
    let config = RegistryConfig {
        state_dir: Some(dir.join("state")),
        ..RegistryConfig::default()
    };
    let target: Reference = target.parse().unwrap();
    let options = PushOptions::default();
    let summary = push_api(&config, &target, &[&image], &[], &[], &options, &Silent).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.trim().trim_end_matches(" kB").to_owned();
    let seconds = Duration::from_millis(summary.milliseconds).as_secs_f64();
    fs::write(dir.join("done"), format!("{} {peak} {seconds}", summary.bytes_sent)).unwrap();
}

/// Bytes sent, peak memory in kB and seconds of the process that is done.
fn done(dir: &Path) -> (u64, u64, f64) {
    let text = fs::read_to_string(dir.join("done")).expect("the process pushed");
    let words: Vec<&str> = text.split(' ').collect();
    (
        words[0].parse().unwrap(),
        words[1].parse().unwrap(),
        words[2].parse().unwrap(),
    )
}

#[test]
fn row_22_a_push_that_is_killed_is_taken_up_by_the_next_process() {
    const SIZE: usize = 48 << 20;
    let registry = Faulty::start(Ways {
        throttle: Some(Duration::from_micros(500)),
        ..Ways::default()
    });
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &registry.host, &[SIZE]);
    let mut first = child(dir.path()).spawn().unwrap();
    let began = Instant::now();
    while registry.arrived() < SIZE / 3 && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    while !registry.is_idle() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = registry.arrived();
    assert!((SIZE / 3..SIZE).contains(&before), "killed in the middle: {before}");
    run(child(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let image = prepared(dir.path());
    assert_eq!(
        registry.arrived(),
        SIZE + image.config.size() as usize,
        "only the rest was sent"
    );
    assert!(registry.has_blob("app", &sha256(&image.layers[0])));
    assert_eq!(
        done(dir.path()).0 as usize,
        SIZE - before + image.config.size() as usize + image.manifest.size() as usize
    );
    let left = crate::fsio::sorted_names(&dir.path().join("state/uploads")).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_push_of_many_blobs_needs_little_memory() {
    let Some(registry) = Distribution::start("") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &registry.host, &[24 << 20; 8]);
    run(child(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (_, peak, _) = done(dir.path());
    assert!(peak < 64 << 10, "{peak} kB");
}

/// A gigabyte: how fast beside `curl -T`, in how much memory, and what a killed push costs. Run it by hand on a quiet
/// machine: `cargo nextest run --run-ignored only a_gigabyte --no-capture`.
#[test]
#[ignore = "takes a gigabyte of disk twice and a minute"]
fn a_gigabyte_is_pushed_as_fast_as_curl_does() {
    if !oracle("curl") {
        return;
    }
    let Some(registry) = Distribution::start("") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &registry.host, &[1 << 30]);
    let digest = sha256(&prepared(dir.path()).layers[0]);
    let (mut ours, mut curls) = (Vec::new(), Vec::new());
    for round in 0..3 {
        curls.push(curl(
            &registry.host,
            &format!("curl{round}"),
            &dir.path().join("layer0"),
            &digest,
        ));
        fs::write(dir.path().join("target"), format!("{}/ours{round}:1", registry.host)).unwrap();
        run(child(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        ours.push(done(dir.path()).2);
        let peak = done(dir.path()).1;
        let text = format!("curl {:.2} s, layerize {:.2} s, {peak} kB\n", curls[round], ours[round]);
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    // Killed in the middle, and again. (This registry signs the offset into its locations and forgets an upload whose
    // request was cut off, so that the blob is sent whole; one that follows the specification gets the rest alone.)
    fs::write(dir.path().join("target"), format!("{}/killed:1", registry.host)).unwrap();
    let mut first = child(dir.path()).spawn().unwrap();
    let uploads = registry
        .dir
        .path()
        .join("data/docker/registry/v2/repositories/killed/_uploads");
    while arrived(&uploads) < 1 << 29 && first.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    run(child(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let sent = done(dir.path()).0;
    let text = format!("after a kill: {sent} of {} bytes\n", 1 << 30);
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    let best = |times: &[f64]| times.iter().copied().fold(f64::MAX, f64::min);
    assert!(best(&curls) >= 0.8 * best(&ours));
}

/// The largest upload that the registry has on its disk.
fn arrived(uploads: &Path) -> u64 {
    let names = crate::fsio::sorted_names(uploads).unwrap_or_default();
    let size = |name| fs::metadata(uploads.join(name).join("data")).map_or(0, |data| data.len());
    names.into_iter().map(size).max().unwrap_or(0)
}

/// Seconds that `curl -T` takes to upload a file as a blob.
fn curl(host: &str, repository: &str, file: &Path, digest: &Digest) -> f64 {
    let url = format!("http://{host}/v2/{repository}/blobs/uploads/");
    let mut post = Command::new("curl");
    let location = stdout(post.args([
        "-s",
        "-o",
        "/dev/null",
        "-X",
        "POST",
        "-w",
        "%{redirect_url}%header{location}",
        &url,
    ]));
    let location = location
        .split("http")
        .nth(1)
        .map(|rest| format!("http{rest}"))
        .expect("a location");
    let mut put = Command::new("curl");
    put.args([
        "-s",
        "-f",
        "-o",
        "/dev/null",
        "-H",
        "Expect:",
        "-w",
        "%{time_total}",
        "-T",
    ])
    .arg(file);
    stdout(put.arg(format!("{location}&digest={digest}"))).parse().unwrap()
}
