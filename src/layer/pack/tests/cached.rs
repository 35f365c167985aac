//! The cache: nothing is packed twice, nothing damaged is served.

use super::*;
use crate::event::Event;

fn cached(cache: &LayerCache) -> PackOptions<'_> {
    PackOptions {
        cache: Some(cache),
        ..options(Compression::default(), 2)
    }
}

/// Collects which layers came from the cache, and warnings.
#[derive(Default)]
struct Seen {
    cached: Mutex<Vec<bool>>,
    warnings: Mutex<Vec<String>>,
}

impl Reporter for Seen {
    fn report(&self, event: Event) {
        match event {
            Event::LayerFinished { cached, .. } => self.cached.lock().unwrap().push(cached),
            Event::Warning { text } => self.warnings.lock().unwrap().push(text),
            _ => {}
        }
    }
}

fn pieces(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for shard in crate::fsio::sorted_names(&dir.join("pieces")).unwrap() {
        for name in crate::fsio::sorted_names(&dir.join("pieces").join(&shard)).unwrap() {
            files.push(dir.join("pieces").join(&shard).join(name));
        }
    }
    files
}

#[test]
fn an_unchanged_layer_opens_no_file_and_a_changed_one_only_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = tempfile::tempdir().unwrap();
    for compression in compressions() {
        for single_member in [false, true] {
            let mut inputs = inputs(dir.path());
            let plain = PackOptions {
                single_member,
                ..options(compression, 2)
            };
            let expected = digests(&pack(&inputs, &plain, &Silent).unwrap());
            let cache = LayerCache::open(cache_dir.path()).unwrap();
            let with = PackOptions {
                cache: Some(&cache),
                ..plain
            };
            assert_eq!(digests(&pack(&inputs, &with, &Silent).unwrap()), expected);
            // Without its files, only the cache can make the layer.
            let physical = store_paths(&mut inputs[0])[0].physical.clone();
            let hidden = dir.path().join("hidden");
            fs::rename(&physical, &hidden).unwrap();
            let seen = Seen::default();
            let layers = pack(&inputs, &with, &seen).unwrap();
            assert_eq!(digests(&layers), expected);
            assert_eq!(*seen.cached.lock().unwrap(), [true; 4]);
            if compression == Compression::None {
                // Uncompressed layers are kept nowhere: reading them reads the store.
                layers[0].open().read_to_end(&mut Vec::new()).unwrap_err();
                fs::rename(&hidden, &physical).unwrap();
                assert_eq!(Digest::of(&bytes_of(&layers[0])), layers[0].digest);
                continue;
            }
            for layer in &layers {
                assert_eq!(Digest::of(&bytes_of(layer)), layer.digest);
            }
            // Another path of the layer changes: the hidden one's bytes come from its piece.
            store_paths(&mut inputs[0])[1] = sample(dir.path(), "other", 3000);
            let changed = pack(&inputs[..1], &with, &Silent).unwrap();
            fs::rename(&hidden, &physical).unwrap();
            let fresh = PackOptions { cache: None, ..with };
            assert_eq!(
                digests(&changed),
                digests(&pack(&inputs[..1], &fresh, &Silent).unwrap()),
                "{compression}"
            );
        }
    }
}

fn store_paths(input: &mut LayerInput) -> &mut Vec<StoreEntry> {
    match &mut input.content {
        LayerContent::StorePaths(paths) => paths,
        LayerContent::Tree(_) => panic!("a layer of other entries"),
    }
}

/// Damages one file of the cache in every way that keeps or changes its size.
fn damages(file: &Path) -> Vec<Vec<u8>> {
    let sound = fs::read(file).unwrap();
    let mut flips: Vec<Vec<u8>> = [0, sound.len() / 2, sound.len() - 60, sound.len() - 1]
        .into_iter()
        .map(|at| {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            bytes
        })
        .collect();
    flips.extend([
        Vec::new(),
        sound[..sound.len() / 2].to_vec(),
        vec![0; sound.len()],
        [&sound[..], b"x"].concat(),
    ]);
    flips
}

#[test]
fn damaged_pieces_are_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let cache = LayerCache::open(cache_dir.path()).unwrap();
    let sound = pack(&inputs, &cached(&cache), &Silent).unwrap();
    for file in pieces(cache_dir.path()) {
        for damage in damages(&file) {
            // Where the records are gone the damage is found while packing.
            fs::write(&file, &damage).unwrap();
            fs::remove_dir_all(cache_dir.path().join("layers")).unwrap();
            fs::create_dir(cache_dir.path().join("layers")).unwrap();
            let layers = pack(&inputs, &cached(&cache), &Silent).unwrap();
            assert_eq!(digests(&layers), digests(&sound));
            for layer in &layers {
                assert_eq!(Digest::of(&bytes_of(layer)), layer.digest);
            }
            // Where they are there it is found when the layer is written, and mended.
            fs::write(&file, &damage).unwrap();
            let dest = dir.path().join("dest");
            for layer in pack(&inputs, &cached(&cache), &Silent).unwrap() {
                let out = fs::File::create(&dest).unwrap();
                layer.blob.copy_to(layer.digest, layer.size, &out, 0, &dest).unwrap();
                assert_eq!(Digest::of(&fs::read(&dest).unwrap()), layer.digest);
            }
        }
    }
}

#[test]
fn a_damaged_layer_read_as_a_stream_is_an_error_and_then_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = tempfile::tempdir().unwrap();
    let inputs = [store_layer(vec![sample(dir.path(), "b", 400_000)])];
    let cache = LayerCache::open(cache_dir.path()).unwrap();
    let layer = pack(&inputs, &cached(&cache), &Silent).unwrap().remove(0);
    let file = &pieces(cache_dir.path())[0];
    let mut bytes = fs::read(file).unwrap();
    bytes[1000] ^= 1;
    fs::write(file, bytes).unwrap();
    let error = layer.open().read_to_end(&mut Vec::new()).unwrap_err();
    let error = layer.blob.read_error(layer.digest, error);
    assert!(matches!(error, LayerError::Damaged { .. }) && error.help().is_some());
    let again = pack(&inputs, &cached(&cache), &Silent).unwrap().remove(0);
    assert_eq!(Digest::of(&bytes_of(&again)), layer.digest);
    assert_eq!(
        Digest::of(&bytes_of(&PackedLayer {
            blob: layer.blob.packed_anew(layer.digest).unwrap(),
            ..layer.clone()
        })),
        layer.digest
    );
}

#[test]
fn damaged_records_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = tempfile::tempdir().unwrap();
    let inputs = [store_layer(vec![sample(dir.path(), "b", 4000)])];
    let cache = LayerCache::open(cache_dir.path()).unwrap();
    let sound = digests(&pack(&inputs, &cached(&cache), &Silent).unwrap());
    let shard = cache_dir
        .path()
        .join("layers")
        .join(&crate::fsio::sorted_names(&cache_dir.path().join("layers")).unwrap()[0]);
    let record = shard.join(&crate::fsio::sorted_names(&shard).unwrap()[0]);
    for damage in damages(&record) {
        fs::write(&record, damage).unwrap();
        let seen = Seen::default();
        assert_eq!(digests(&pack(&inputs, &cached(&cache), &seen).unwrap()), sound);
        assert_eq!(*seen.cached.lock().unwrap(), [false]);
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_left_out_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let cache = LayerCache::open(cache_dir.path()).unwrap();
    // Also root cannot make a directory where a file is.
    fs::remove_dir(cache_dir.path().join("pieces")).unwrap();
    fs::write(cache_dir.path().join("pieces"), "").unwrap();
    let seen = Seen::default();
    let layers = pack(&inputs, &cached(&cache), &seen).unwrap();
    assert_eq!(
        digests(&layers),
        digests(&pack(&inputs, &options(Compression::default(), 2), &Silent).unwrap())
    );
    for layer in &layers {
        assert_eq!(bytes_of(layer).len() as u64, layer.size);
    }
    let warnings = seen.warnings.lock().unwrap();
    assert!(
        warnings.len() == 1
            && warnings
                .iter()
                .all(|text| text.starts_with("the layer cache is not used: cannot "))
    );
}

#[test]
fn trimming_removes_the_least_recently_used() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let mut cache = LayerCache::open(cache_dir.path()).unwrap();
    for input in &inputs {
        pack(std::slice::from_ref(input), &cached(&cache), &Silent).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let held = pack(&inputs[..1], &cached(&cache), &Silent).unwrap();
    fs::write(pieces(cache_dir.path())[0].with_file_name(".layerize-dead"), "half").unwrap();
    let busy = cache.trim(0).unwrap();
    assert!(busy.busy && busy.before == busy.after && busy.before > 0);
    drop(held);
    let other = LayerCache::open(cache_dir.path()).unwrap();
    assert!(cache.trim(0).unwrap().busy, "another holder of the cache");
    drop(other);
    let seen = Seen::default();
    let half = cache.trim(busy.before - 1).unwrap();
    assert!(!half.busy && half.after < busy.before && half.after > 0);
    assert!(
        pieces(cache_dir.path())
            .iter()
            .all(|path| !path.ends_with(".layerize-dead"))
    );
    pack(&inputs[..1], &cached(&cache), &seen).unwrap();
    assert_eq!(*seen.cached.lock().unwrap(), [true], "it was used last");
    assert_eq!(cache.trim(0).unwrap().after, 0);
    assert!(cache.trim(0).unwrap().before == 0);
    pack(&inputs[1..2], &cached(&cache), &seen).unwrap();
    assert_eq!(*seen.cached.lock().unwrap(), [true, false]);
}

#[test]
fn two_writers_of_one_key_agree() {
    let dir = tempfile::tempdir().unwrap();
    let cache_dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let all: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let cache = LayerCache::open(cache_dir.path()).unwrap();
                    let layers = pack(&inputs, &cached(&cache), &Silent).unwrap();
                    layers
                        .iter()
                        .for_each(|layer| assert_eq!(Digest::of(&bytes_of(layer)), layer.digest));
                    digests(&layers)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|digests| *digests == all[0]));
    assert_eq!(pieces(cache_dir.path()).len(), 5);
}
