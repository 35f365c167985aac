//! Images made by hand: sound, odd or hostile ones that no tool would write.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use layerize::digest::{Digest, HashingWriter};
use layerize::oci::Artifact;
use serde_json::{Value, json};

/// Memory that a command may take whatever it is given, in bytes.
pub const MEMORY_MAX: u64 = 512 << 20;

/// The most memory that any command of this test took, in bytes. Tests run in processes of their own (nextest), and
/// must themselves stay small: what a new process takes at first is its parent's.
pub fn peak_memory() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    u64::try_from(usage.max_rss()).unwrap() * 1024
}

/// Asserts that no command of this test took more memory than any may.
#[track_caller]
pub fn memory_is_bounded(what: &str) {
    let peak = peak_memory();
    assert!(peak < MEMORY_MAX, "{what}: {} MB of memory", peak >> 20);
}

/// A layout under construction.
pub struct Crafted {
    /// Its directory.
    pub dir: PathBuf,
}

impl Crafted {
    /// An empty layout in a new directory, or one that is there already.
    pub fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir: dir.to_owned() }
    }

    /// Stores a blob.
    pub fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(self.blob(&digest), bytes).unwrap();
        digest
    }

    /// The file of a blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Stores an artifact and gives its descriptor.
    pub fn artifact(&self, artifact: &Artifact) -> Value {
        self.put(&artifact.manifest);
        for (_, blob) in &artifact.blobs {
            self.put(blob);
        }
        artifact.descriptor()
    }

    /// Changes the list in `index.json`.
    pub fn edit_index(&self, edit: impl FnOnce(&mut Vec<Value>)) {
        let path = self.dir.join("index.json");
        let mut index: Value = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => json!({ "schemaVersion": 2, "manifests": [] }),
        };
        edit(index["manifests"].as_array_mut().unwrap());
        let mut file = fs::File::create(path).unwrap();
        file.write_all(index.to_string().as_bytes()).unwrap();
    }
}

/// The parts of an image by hand, each of which may be changed before the next names its digest.
pub struct Parts {
    /// The layers' tars, stored as they are.
    pub tars: Vec<Vec<u8>>,
    /// The config; its diffIDs are added.
    pub config: Value,
    /// Changes the manifest, which is made of the others.
    pub manifest: Box<dyn Fn(&mut Value)>,
    /// Changes the entry of `index.json`.
    pub entry: Box<dyn Fn(&mut Value)>,
}

impl Parts {
    /// A sound image of these layers.
    pub fn of(tars: Vec<Vec<u8>>) -> Self {
        Self {
            tars,
            config: json!({ "architecture": "amd64", "os": "linux", "config": { "Entrypoint": ["/run"] } }),
            manifest: Box::new(|_| {}),
            entry: Box::new(|_| {}),
        }
    }

    /// Writes the image into a layout, under the tag `v1`, and gives its manifest's digest.
    pub fn write(&self, layout: &Crafted) -> Digest {
        let mut config = self.config.clone();
        let diff_ids: Vec<Digest> = self.tars.iter().map(|tar| layout.put(tar)).collect();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = config.to_string();
        let layers = self.tars.iter().zip(&diff_ids);
        let layers: Vec<Value> = layers
            .map(|(tar, digest)| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": tar.len() }))
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                        "digest": layout.put(config.as_bytes()), "size": config.len() },
            "layers": layers,
        });
        (self.manifest)(&mut manifest);
        let manifest = manifest.to_string();
        let digest = layout.put(manifest.as_bytes());
        let mut entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": "v1" },
        });
        (self.entry)(&mut entry);
        layout.edit_index(|manifests| *manifests = vec![entry]);
        digest
    }
}

/// An entry of a tar, as raw as its header can be.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub path: Vec<u8>,
    pub flag: u8,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    pub owner: Vec<u8>,
    /// Pax records before it.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// A file.
    pub fn file(path: &[u8], data: &[u8]) -> Self {
        Self {
            path: path.to_vec(),
            flag: b'0',
            data: data.to_vec(),
            ..Self::default()
        }
    }

    /// Of another type, with a link target.
    pub fn of(path: &[u8], flag: u8, link: &[u8]) -> Self {
        Self {
            path: path.to_vec(),
            flag,
            link: link.to_vec(),
            ..Self::default()
        }
    }

    /// With a pax record.
    pub fn pax(mut self, key: &[u8], value: &[u8]) -> Self {
        self.pax.push((key.to_vec(), value.to_vec()));
        self
    }
}

/// The tar of some entries.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        if !entry.pax.is_empty() {
            let records: Vec<u8> = entry.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            header(&mut out, b"pax", b'x', b"", b"", records.len());
            out.extend(records);
            pad(&mut out);
        }
        header(
            &mut out,
            &entry.path,
            entry.flag,
            &entry.link,
            &entry.owner,
            entry.data.len(),
        );
        out.extend(&entry.data);
        pad(&mut out);
    }
    out.extend([0; 1024]);
    out
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(512), 0);
}

/// `LENGTH KEY=VALUE\n`, whose length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..)
        .map(|digits| rest + digits)
        .find(|length| length.to_string().len() + rest == *length)
        .unwrap();
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn header(out: &mut Vec<u8>, path: &[u8], flag: u8, link: &[u8], owner: &[u8], size: usize) {
    let mut header = tar::Header::new_ustar();
    let fields = header.as_ustar_mut().unwrap();
    let copy = |field: &mut [u8], text: &[u8]| field[..text.len()].copy_from_slice(text);
    copy(&mut fields.name, path);
    copy(&mut fields.linkname, link);
    copy(&mut fields.uname, owner);
    copy(&mut fields.gname, owner);
    fields.typeflag = [flag];
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size as u64);
    header.set_cksum();
    out.extend(header.as_bytes());
}

impl Crafted {
    /// Stores a gzipped layer that is too large to be held, written piece by piece: its diffID and its descriptor.
    pub fn stream(&self, write: impl FnOnce(&mut dyn Write)) -> (Digest, Value) {
        let path = self.dir.join("blobs/sha256/new");
        let file = HashingWriter::new(fs::File::create(&path).unwrap());
        let gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let mut tar = HashingWriter::new(std::io::BufWriter::new(gzip));
        write(&mut tar);
        let (buffered, tar, _) = tar.finish();
        let (_, blob, size) = buffered.into_inner().ok().unwrap().finish().unwrap().finish();
        let digest = blob.digest();
        fs::rename(path, self.blob(&digest)).unwrap();
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        (
            tar.digest(),
            json!({ "mediaType": media_type, "digest": digest, "size": size }),
        )
    }

    /// Writes an image of stored layers under the tag `v1`; `config` and `more` of the manifest are added as they are.
    pub fn image(&self, layers: &[(Digest, Value)], config: &Value, more: &Value) {
        let mut document = json!({ "architecture": "amd64", "os": "linux", "config": config });
        let (diff_ids, layers): (Vec<Digest>, Vec<Value>) = layers.iter().cloned().unzip();
        document["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let document = document.to_string();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                        "digest": self.put(document.as_bytes()), "size": document.len() },
            "layers": layers,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            manifest[key] = value.clone();
        }
        let manifest = manifest.to_string();
        let entry = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.put(manifest.as_bytes()), "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": "v1" } });
        self.edit_index(|manifests| *manifests = vec![entry]);
    }
}

/// One entry of a tar, without what ends the archive.
pub fn entry_of(entry: Entry) -> Vec<u8> {
    let mut bytes = tar_of(&[entry]);
    bytes.truncate(bytes.len() - 1024);
    bytes
}
