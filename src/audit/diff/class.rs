//! A *class* is the respect in which two images differ: every difference has one, and one can be ignored by its name.
//!
//! Invariant: names are stable and in kebab case; the list is complete: a difference that fits no other class is
//! `tar-bytes` or `manifest`, never without a class.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal,)+) => {
        /// The respect in which two images differ.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Class {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Class {
            /// All classes, from the index down to the bytes of a layer's tar.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name: in reports, and for `--ignore`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_start(),)+
                }
            }
        }
    };
}

classes! {
    /// The names an image has where it is.
    Names "names",
    /// An index lists the same images in another order.
    IndexOrder "index-order",
    /// An index lists an image, or says something of one, that the other does not.
    IndexEntry "index-entry",
    /// A build attestation beside the images of an index.
    Attestation "attestation",
    /// A document's or a blob's media type.
    MediaType "media-type",
    /// An annotation of an index, a manifest or a layer.
    Annotation "annotation",
    /// Another field of the manifest.
    Manifest "manifest",
    /// A document of the same values in other bytes: order of keys, white space, escapes.
    Json "json",
    /// A field that is absent on one side and null, false or empty on the other.
    EmptyField "empty-field",
    /// When the image or a step of its history was made.
    Created "created",
    /// The history, its times aside.
    History "history",
    /// Operating system, architecture or variant.
    Platform "platform",
    /// What the building tool or host wrote of itself: author, container, host name, version.
    Builder "builder",
    /// A variable of the environment.
    Env "env",
    /// The same variables in another order.
    EnvOrder "env-order",
    /// A label.
    Label "label",
    /// Another field of the config: entrypoint, user, ports and so on.
    Config "config",
    /// A layer that only the second image has.
    LayerAdded "layer-added",
    /// A layer that only the first image has.
    LayerRemoved "layer-removed",
    /// A layer that is not the same and that its image's place does without, so that its files were not compared.
    KeptElsewhere "kept-elsewhere",
    /// The same layer at another place.
    LayerOrder "layer-order",
    /// The same files in other layers.
    Layering "layering",
    /// The same tar, compressed by another method.
    Compression "compression",
    /// The same tar, other fields in the gzip header.
    GzipHeader "gzip-header",
    /// The same tar, cut into other gzip members.
    GzipMembers "gzip-members",
    /// The same tar, deflated by another library or at another level.
    GzipData "gzip-data",
    /// The same tar, other zstd frames or parameters of a frame.
    ZstdFrame "zstd-frame",
    /// The same tar and frame parameters, compressed by another version or at another level.
    ZstdData "zstd-data",
    /// Bytes after a layer's compressed stream.
    BlobTrailer "blob-trailer",
    /// A package of another version.
    Package "package",
    /// A store path of the same name with another hash.
    StorePath "store-path",
    /// A file that only the second image has.
    Added "added",
    /// A file that only the first image has.
    Removed "removed",
    /// The same file under another name.
    Renamed "renamed",
    /// A directory that has an entry of its own on one side and is only implied by its files on the other.
    ImpliedDirectory "implied-directory",
    /// File, directory, link and so on.
    Type "type",
    /// Permission bits, setuid, setgid and sticky.
    Mode "mode",
    /// Owner or group, by number or name.
    Owner "owner",
    /// Modification time.
    Mtime "mtime",
    /// A file's content.
    Content "content",
    /// A content that differs in nothing but hashes of store paths, or a link in which one store path stands for another.
    StoreHash "store-hash",
    /// Target of a symbolic link, or of a hard link to another file.
    Link "link",
    /// The same content as a file of its own or a hard link, or another name of it as the target.
    HardLink "hard-link",
    /// Numbers of a device.
    Device "device",
    /// Extended attributes, capabilities and access lists among them.
    Xattr "xattr",
    /// Order of a tar's entries.
    Order "order",
    /// The tar format in the headers: v7, ustar or gnu.
    TarFormat "tar-format",
    /// Pax records that say nothing of the files which the headers do not.
    TarPax "tar-pax",
    /// The pax headers around the records: their names, times and order.
    TarPaxHeader "tar-pax-header",
    /// How paths are spelt: with `./` or `/` in front or after.
    TarPath "tar-path",
    /// Whether GNU's long-name entries are used.
    TarLongName "tar-long-name",
    /// A file stored as sparse.
    TarSparse "tar-sparse",
    /// Headers of the same meaning in other bytes.
    TarHeader "tar-header",
    /// A path that has more entries in one layer than in the other.
    TarDuplicate "tar-duplicate",
    /// What follows a tar's last entry.
    TarPadding "tar-padding",
    /// Bytes of a tar that belong to no entry.
    TarBytes "tar-bytes",
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a class of differences")]
pub struct UnknownClass(String);

impl UnknownClass {
    /// What can be written instead.
    pub fn help(&self) -> Option<String> {
        let names: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        Some(format!("the classes are: {}", names.join(", ")))
    }
}

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        let found = Self::ALL.iter().copied().find(|class| class.name() == text);
        found.ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_named_once_and_parsed_as_they_are_printed() {
        for class in Class::ALL {
            assert_eq!(class.to_string().parse(), Ok(*class));
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
            assert!(class.meaning().ends_with('.') && !class.meaning().starts_with(' '));
        }
        let names: std::collections::BTreeSet<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        assert_eq!(names.len(), Class::ALL.len());
        let error = "mtimes".parse::<Class>().unwrap_err();
        assert!(error.to_string().contains("`mtimes`") && error.help().unwrap().contains("mtime, content"));
    }
}
