//! *Data* of the Debian packages of a closure, at the places where their libraries look for it.
//!
//! Invariant: a function of the recipe and of the packages' trees. Nothing that the image has is replaced, and a path below
//! a place leads to what the package has there as if the package were laid out at `/`.
//!
//! Libraries find each other by the store paths that their programs name; what they open at run time they look for where
//! Debian's package manager would have put it. That is known of the libraries of [`PLACES`].

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::ImageError;
use super::filesystem::{FileSystem, Found, Node, Origin, absolute, push};
use super::join::is_real;
use super::recipe::{ClosureMember, Recipe};
use crate::fsio::{IoContext, PathError, sorted_names};
use crate::root;
use crate::spec::Join;

/// Names from before the merge of `/usr` that libraries have built in.
const OLD_NAMES: &[(&str, &str)] = &[("lib/terminfo", "usr/lib/terminfo")];

/// What Debian's packages leave of their names in a tree.
const STATUS_DIR: &str = "var/lib/dpkg/status.d";

/// Paths that are shown of one kind of data before the rest is counted.
const PATHS_SHOWN: usize = 3;

/// Libraries that look at fixed places, by the beginnings of their files' names, the places (`*` is any part of a name), and
/// what is there.
struct Place {
    libraries: &'static [&'static str],
    paths: &'static [&'static str],
    what: &'static str,
    /// Whether the libraries' own package has its share built in.
    of_others: bool,
}

const fn place(libraries: &'static [&'static str], paths: &'static [&'static str], what: &'static str) -> Place {
    Place {
        libraries,
        paths,
        what,
        of_others: false,
    }
}

const PLACES: &[Place] = &[
    // iconv(3) of what is not built in; dlopen(3) of name services by nsswitch.conf; setlocale(3); tzset(3); getservbyname(3).
    place(&["libc.so.6"], &["usr/lib/*/gconv"], "character sets"),
    Place {
        of_others: true,
        ..place(&["libc.so.6"], &["usr/lib/*/libnss_*.so.*"], "name services")
    },
    place(&["libc.so.6"], &["usr/lib/locale", "usr/share/i18n"], "locales"),
    place(&["libc.so.6"], &["usr/share/zoneinfo"], "time zones"),
    place(
        &["libc.so.6"],
        &[
            "etc/ethertypes",
            "etc/networks",
            "etc/protocols",
            "etc/rpc",
            "etc/services",
        ],
        "names of services and protocols",
    ),
    // OPENSSLDIR is /usr/lib/ssl, MODULESDIR and ENGINESDIR are beside the library. GnuTLS, NSS, libcurl and p11-kit have the
    // bundle's path built in.
    place(
        &[
            "libcrypto.so.",
            "libgnutls.so.",
            "libcurl",
            "libnss3.so",
            "libp11-kit.so.",
            "libmbedtls.so.",
        ],
        &[
            "etc/ssl",
            "usr/lib/ssl",
            "usr/share/ca-certificates",
            "usr/share/p11-kit",
        ],
        "certificates",
    ),
    place(
        &["libcrypto.so."],
        &["usr/lib/*/engines-*", "usr/lib/*/ossl-modules"],
        "modules of OpenSSL",
    ),
    place(
        &["libp11-kit.so."],
        &["usr/lib/*/pkcs11", "etc/pkcs11"],
        "modules of PKCS #11",
    ),
    // libmagic(3): the compiled file by its name in /usr/share/misc, a link to /usr/lib/file.
    place(
        &["libmagic.so."],
        &["etc/magic*", "usr/lib/file", "usr/share/file", "usr/share/misc/magic*"],
        "file types",
    ),
    // term(5): /etc, then /usr/lib, then /usr/share.
    place(
        &["libtinfo.so.", "libncurses", "libslang.so."],
        &["etc/terminfo", "usr/lib/terminfo", "usr/share/terminfo"],
        "terminals",
    ),
    place(&["libreadline.so."], &["etc/inputrc"], "keys of readline"),
    place(&["libsasl2.so."], &["usr/lib/*/sasl2"], "modules of SASL"),
    place(
        &["libkrb5.so.", "libgssapi"],
        &["etc/gss", "etc/krb5.conf*", "usr/lib/*/gss", "usr/lib/*/krb5"],
        "modules of Kerberos",
    ),
    place(&["libldap"], &["etc/ldap"], "settings of LDAP"),
    place(
        &["libodbc.so.", "libodbcinst.so."],
        &["etc/odbc*", "usr/lib/*/odbc"],
        "drivers of ODBC",
    ),
    place(&["libpsl.so."], &["usr/share/publicsuffix"], "public suffixes"),
    place(
        &["libfontconfig.so."],
        &["etc/fonts", "usr/share/fontconfig", "usr/share/fonts"],
        "fonts",
    ),
    place(
        &["libX11.so.", "libxkbcommon"],
        &["usr/share/X11"],
        "keyboards and locales of X",
    ),
    place(
        &["libgdk_pixbuf-2.0.so."],
        &["usr/lib/*/gdk-pixbuf-2.0"],
        "image loaders",
    ),
    place(
        &["libgio-2.0.so."],
        &["usr/lib/*/gio", "usr/share/glib-2.0", "usr/share/mime"],
        "modules, schemas and file types of GLib",
    ),
    place(
        &["libMagickCore"],
        &["etc/ImageMagick*", "usr/lib/*/ImageMagick*", "usr/share/ImageMagick*"],
        "coders of ImageMagick",
    ),
    place(
        &["libgs.so."],
        &["usr/share/ghostscript", "usr/share/color/icc", "usr/share/poppler"],
        "resources of Ghostscript",
    ),
    place(&["libpoppler"], &["usr/share/poppler"], "encodings of Poppler"),
    place(&["libproj.so."], &["usr/share/proj"], "projections"),
    place(&["libgdal.so."], &["usr/share/gdal"], "tables of GDAL"),
    place(
        &["libhunspell", "libenchant", "libaspell.so."],
        &[
            "usr/lib/aspell",
            "usr/lib/*/enchant*",
            "usr/share/hunspell",
            "usr/share/myspell",
            "usr/share/enchant*",
        ],
        "dictionaries",
    ),
    place(
        &["libtesseract.so."],
        &["usr/share/tesseract-ocr"],
        "languages of Tesseract",
    ),
    place(
        &["libasound.so."],
        &["etc/alsa", "usr/lib/*/alsa-lib", "usr/share/alsa"],
        "settings of ALSA",
    ),
    place(
        &["libGL.so.", "libEGL.so.", "libvulkan.so.", "libdrm", "libgbm.so."],
        &[
            "usr/lib/*/dri",
            "usr/share/drirc.d",
            "usr/share/glvnd",
            "usr/share/libdrm",
            "usr/share/vulkan",
        ],
        "graphics drivers",
    ),
    place(
        &["libpci.so.", "libusb", "libudev.so.", "libhwloc.so."],
        &["usr/share/hwdata", "usr/share/misc/*.ids"],
        "names of devices",
    ),
    place(&["libsnmp", "libnetsnmp"], &["etc/snmp", "usr/share/snmp"], "MIBs"),
];

/// A Debian package of the closure.
struct Package<'a> {
    member: &'a ClosureMember,
    /// What its library directories hold.
    libraries: BTreeSet<String>,
}

/// Lays the data into `files`; gives each kind of it, with its places.
pub(super) fn lay_out(recipe: &Recipe, files: &mut FileSystem) -> Result<Vec<String>, ImageError> {
    let everything = match (recipe.spec.join, &recipe.base) {
        (Some(Join::Contents), _) => return Ok(Vec::new()),
        // What a base has is not known, and would be hidden.
        (None, Some(_)) => return Ok(Vec::new()),
        (Some(Join::Closure), _) => true,
        (None, None) => false,
    };
    let packages = debian_packages(recipe)?;
    let mut lines = Vec::new();
    for place in PLACES {
        let is_sought = |package: &Package<'_>| {
            let mut libraries = place.libraries.iter();
            libraries.any(|start| package.libraries.iter().any(|name| name.starts_with(start)))
        };
        if !everything && !packages.iter().any(is_sought) {
            continue;
        }
        let mut laid = BTreeSet::new();
        for package in packages
            .iter()
            .filter(|package| !place.of_others || !is_sought(package))
        {
            for path in place
                .paths
                .iter()
                .map(|pattern| found(&package.member.physical, pattern))
            {
                for path in path? {
                    if lay_out_one(package.member, &path, files)? {
                        laid.insert(format!("`/{path}`"));
                    }
                }
            }
        }
        if !laid.is_empty() {
            lines.push(format!("{} ({})", place.what, list(&laid)));
        }
    }
    add_old_names(files)?;
    Ok(lines)
}

fn add_old_names(files: &mut FileSystem) -> Result<(), ImageError> {
    for (old, new) in OLD_NAMES {
        if files.resolve(new.as_bytes())?.is_none() || files.resolve(old.as_bytes())?.is_some() {
            continue;
        }
        let (old_dir, new_dir) = (root::parent(old.as_bytes()), root::parent(new.as_bytes()));
        if files.lookup(old_dir)?.is_none() {
            files.insert(old_dir.to_vec(), Node::symlink(new_dir))?;
        } else {
            let place = files.make_parent(old.as_bytes())?;
            if files.lookup(&place)?.is_none() {
                files.insert(place, Node::symlink(absolute(new.as_bytes())))?;
            }
        }
    }
    Ok(())
}

/// Lays out what a package has at `path`; gives whether anything was.
fn lay_out_one(member: &ClosureMember, path: &str, files: &mut FileSystem) -> Result<bool, ImageError> {
    let mut laying = Laying {
        member,
        files,
        count: 0,
    };
    laying.place(path.as_bytes())?;
    Ok(laying.count > 0)
}

/// The first paths and how many more.
fn list(paths: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = paths.iter().take(PATHS_SHOWN).map(String::as_str).collect();
    match paths.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The Debian packages of the closure, by their names; those among the contents are joined as a whole.
fn debian_packages(recipe: &Recipe) -> Result<Vec<Package<'_>>, PathError> {
    let is_content = |member: &ClosureMember| recipe.contents.iter().any(|content| content.logical == member.logical);
    let mut packages = Vec::new();
    for member in recipe.closure.iter().filter(|member| !is_content(member)) {
        if !member.physical.join(STATUS_DIR).is_dir() {
            continue;
        }
        let lib = member.physical.join("usr/lib");
        let mut libraries = BTreeSet::new();
        for name in names(&lib)? {
            libraries.extend(names(&lib.join(&name))?);
            libraries.insert(name);
        }
        packages.push(Package { member, libraries });
    }
    packages.sort_by(|a, b| (&a.member.name, &a.member.logical).cmp(&(&b.member.name, &b.member.logical)));
    Ok(packages)
}

/// What a directory holds, sorted; nothing where there is none.
fn names(dir: &Path) -> Result<Vec<String>, PathError> {
    match dir.is_dir() && !dir.is_symlink() {
        false => Ok(Vec::new()),
        true => Ok((sorted_names(dir)?.into_iter())
            .filter_map(|name| name.into_string().ok())
            .collect()),
    }
}

/// The paths in a tree that a pattern fits.
fn found(tree: &Path, pattern: &str) -> Result<Vec<String>, PathError> {
    let mut paths = vec![String::new()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for path in paths {
            let below = |name: &str| {
                if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}/{name}")
                }
            };
            if part.contains('*') {
                let names = names(&tree.join(&path))?;
                next.extend(names.iter().filter(|name| fits(part, name)).map(|name| below(name)));
            } else if tree.join(below(part)).symlink_metadata().is_ok() {
                next.push(below(part));
            }
        }
        paths = next;
    }
    Ok(paths)
}

/// Whether a name is as a pattern says, in which `*` is any part of it.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            let mut cuts = (0..=tail.len()).filter(|&at| tail.is_char_boundary(at));
            cuts.any(|at| fits(rest, &tail[at..]))
        }),
    }
}

/// Data of one package being laid out.
struct Laying<'a> {
    member: &'a ClosureMember,
    files: &'a mut FileSystem,
    /// How many entries were made.
    count: usize,
}

impl Laying<'_> {
    /// Lays out what the package has at `path`.
    fn place(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let physical = self.physical(path);
        let metadata = physical.symlink_metadata().context("read", &physical)?;
        let present = self.files.resolve(path)?;
        // A link that leads nowhere is something, too.
        if present.is_none() && self.files.lookup(path)?.is_some() {
            return Ok(());
        }
        if metadata.is_dir() {
            return match present {
                None if !is_real(path) && self.is_closed(path, path)? => self.link(path, self.in_store(path)),
                None | Some((_, Found::Directory)) => self.merge(path, &physical),
                Some(_) => Ok(()),
            };
        }
        if present.is_some() {
            return Ok(());
        }
        let target = match metadata.is_symlink() {
            true => self.target_of(path, &physical)?,
            false => self.in_store(path),
        };
        self.link(path, target)
    }

    fn merge(&mut self, path: &[u8], physical: &Path) -> Result<(), ImageError> {
        for name in sorted_names(physical)? {
            let mut below = path.to_vec();
            push(&mut below, name.as_bytes());
            self.place(&below)?;
        }
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: Vec<u8>) -> Result<(), ImageError> {
        let place = match self.files.make_parent(path) {
            Ok(place) => place,
            // What the image has instead of a directory of Debian's stays as it is.
            Err(ImageError::NotADirectory { .. } | ImageError::InsideStorePath { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.files.lookup(&place)?.is_none() {
            self.files.insert(place, Node::symlink(target).from(Origin::Joined))?;
            self.count += 1;
        }
        Ok(())
    }

    /// Where a symlink leads: to the package's own file, else to where it would lead at `/`.
    fn target_of(&self, path: &[u8], physical: &Path) -> Result<Vec<u8>, PathError> {
        let target = fs::read_link(physical).context("read the link", physical)?;
        let led = root::resolve(root::parent(path), target.as_os_str().as_bytes());
        Ok(match self.physical(&led).is_file() {
            true => self.in_store(&led),
            false => absolute(&led),
        })
    }

    /// Whether every symlink at or below `path` stays below `top`, so that one symlink can stand for all.
    fn is_closed(&self, path: &[u8], top: &[u8]) -> Result<bool, PathError> {
        let physical = self.physical(path);
        for name in sorted_names(&physical)? {
            let mut below = path.to_vec();
            push(&mut below, name.as_bytes());
            let place = self.physical(&below);
            let closed = if place.is_symlink() {
                let target = fs::read_link(&place).context("read the link", &place)?;
                let led = root::resolve(root::parent(&below), target.as_os_str().as_bytes());
                !target.is_absolute() && led.starts_with(&[top, b"/"].concat())
            } else {
                !place.is_dir() || self.is_closed(&below, top)?
            };
            if !closed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn physical(&self, path: &[u8]) -> PathBuf {
        self.member.physical.join(std::ffi::OsString::from_vec(path.to_vec()))
    }

    fn in_store(&self, path: &[u8]) -> Vec<u8> {
        [self.member.logical.as_str().as_bytes(), b"/", path].concat()
    }
}
