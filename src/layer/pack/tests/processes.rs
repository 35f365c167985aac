//! What takes a process of its own: another CPU, a full disk, a killed writer, its memory.
//!
//! Each test runs this very test program again, for one ignored test that stands for the process, in a directory
//! that both know.

use std::process::{Child, Stdio};

use super::*;

const MODULE: &str = "layer::pack::tests::processes";

/// The command that runs the ignored test `name` in `dir`, under `wrapper`.
fn process(wrapper: &[&str], name: &str, dir: &Path) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut words = wrapper.to_vec();
    words.push(program.to_str().unwrap());
    let mut command = Command::new(words[0]);
    let name = format!("{MODULE}::{name}");
    command
        .args(&words[1..])
        .args(["--ignored", "--exact", &name, "--test-threads=1"]);
    command.current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn passes(mut command: Command) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{command:?}:\n{text}"
    );
}

#[test]
fn another_cpu_gives_the_same_digests() {
    if oracle("qemu-x86_64") && cfg!(target_arch = "x86_64") {
        let dir = tempfile::tempdir().unwrap();
        passes(process(&["qemu-x86_64", "-cpu", "Nehalem"], "digests", dir.path()));
    }
}

#[test]
#[ignore = "a process of another test"]
fn digests() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let golden = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/layer/layers.txt")).unwrap();
    for compression in ["gzip", "zstd", "none"].map(|text| text.parse().unwrap()) {
        for digests in digests_of(&inputs, compression) {
            assert!(
                golden.contains(&format!("{compression} single=false {digests}\n")),
                "{compression}: {digests}"
            );
        }
    }
}

fn digests_of(inputs: &[LayerInput], compression: Compression) -> Vec<String> {
    super::digests(&pack(inputs, &options(compression, 2), &Silent).unwrap())
}

#[test]
fn a_full_disk_only_costs_the_cache() {
    if !oracle("unshare") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("full")).unwrap();
    let mount = "mount -t tmpfs -o size=1m none full && cd full && exec \"$@\"";
    passes(process(
        &[
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            mount,
            "sh",
        ],
        "full_disk",
        dir.path(),
    ));
}

#[test]
#[ignore = "a process of another test"]
fn full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let cache = LayerCache::open(Path::new(".")).unwrap();
    for _ in 0..2 {
        let layers = pack(
            &inputs,
            &PackOptions {
                cache: Some(&cache),
                ..options(Compression::default(), 2)
            },
            &Silent,
        )
        .unwrap();
        assert_eq!(super::digests(&layers), digests_of(&inputs, Compression::default()));
        layers
            .iter()
            .for_each(|layer| assert_eq!(Digest::of(&bytes_of(layer)), layer.digest));
    }
}

#[test]
fn a_killed_writer_leaves_nothing_that_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = inputs(&fs::canonicalize(dir.path()).unwrap());
    let expected = digests_of(&inputs, Compression::default());
    let cache_dir = dir.path().join("cache");
    for delay in [0, 20, 40, 60, 80, 100, 130, 160, 200, 300] {
        let mut writer: Child = process(&["env"], "writer", dir.path()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        // It may be done.
        let _ = writer.kill();
        writer.wait().unwrap();
        let mut cache = LayerCache::open(&cache_dir).unwrap();
        let layers = pack(
            &inputs,
            &PackOptions {
                cache: Some(&cache),
                ..options(Compression::default(), 2)
            },
            &Silent,
        )
        .unwrap();
        assert_eq!(super::digests(&layers), expected);
        layers
            .iter()
            .for_each(|layer| assert_eq!(Digest::of(&bytes_of(layer)), layer.digest));
        drop(layers);
        assert!(!cache.trim(0).unwrap().busy);
    }
}

#[test]
#[ignore = "a process of another test"]
fn writer() {
    let inputs = existing_inputs();
    let cache = LayerCache::open(Path::new("cache")).unwrap();
    pack(
        &inputs,
        &PackOptions {
            cache: Some(&cache),
            ..options(Compression::default(), 2)
        },
        &Silent,
    )
    .unwrap();
}

/// The trees that the other process made here.
fn existing_inputs() -> Vec<LayerInput> {
    let here = std::env::current_dir().unwrap();
    let names = crate::fsio::sorted_names(&here).unwrap();
    let names = names
        .into_iter()
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.starts_with("0000"));
    names
        .map(|name| store_layer(vec![describe(&format!("/layerize/store/{name}"), &here.join(&name))]))
        .collect()
}

#[test]
fn memory_is_bounded_whatever_the_size_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join(format!("{:0>32}-large", 0));
    fs::create_dir(&tree).unwrap();
    fs::File::create(tree.join("sparse"))
        .unwrap()
        .set_len(700 << 20)
        .unwrap();
    fs::write(tree.join("noise"), noise("large", 20 << 20)).unwrap();
    passes(process(&["env"], "large", dir.path()));
}

#[test]
#[ignore = "a process of another test"]
fn large() {
    let inputs = existing_inputs();
    for compression in ["gzip:1", "zstd:1", "none"].map(|text| text.parse().unwrap()) {
        let layers = pack(
            &inputs,
            &PackOptions {
                scratch: Some(".".into()),
                ..options(compression, 2)
            },
            &Silent,
        )
        .unwrap();
        assert!(layers[0].tar_size > 700 << 20);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 64 << 10, "peak memory {kilobytes} kB");
}
