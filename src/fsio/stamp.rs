//! A *stamp* is what the file system says of a file without reading it, and what changes when the file does.
//!
//! Invariant: of a file with a settled stamp no later change leaves the stamp as it is, unless somebody sets the machine's clock
//! back. It is the rule by which git believes its index.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// Within so long two changes may bear one time: the kernel's clock for files ticks at least a hundred times a second.
const TICK: Duration = Duration::from_millis(100);

/// The same on file systems that count whole seconds, or pairs of them.
const COARSE_TICK: Duration = Duration::from_secs(3);

/// Device, inode, mode, size, and the times of content and inode in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64, u64, u32, u64, (i64, i64), (i64, i64));

impl Stamp {
    /// The stamp of a file; that of a directory does not change with what is in it, which has stamps of its own.
    pub fn of(metadata: &Metadata) -> Self {
        let (size, times) = match metadata.is_dir() {
            true => (0, [(0, 0); 2]),
            false => (
                metadata.len(),
                [
                    (metadata.mtime(), metadata.mtime_nsec()),
                    (metadata.ctime(), metadata.ctime_nsec()),
                ],
            ),
        };
        Self(
            metadata.dev(),
            metadata.ino(),
            metadata.mode(),
            size,
            times[0],
            times[1],
        )
    }

    /// Whether it is a directory's.
    pub fn is_dir(&self) -> bool {
        rustix::fs::FileType::from_raw_mode(self.2) == rustix::fs::FileType::Directory
    }

    /// Whether whoever changes the file at `moment` or later changes the stamp: the file's last change is long enough before it.
    pub fn is_settled(&self, moment: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.5;
        let tick = if nanoseconds == 0 { COARSE_TICK } else { TICK };
        // One from before 1970 says nothing.
        let changed = u64::try_from(seconds).ok().map(|seconds| {
            let fraction = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + fraction
        });
        let since = changed.and_then(|changed| moment.duration_since(changed).ok());
        // A directory has no times, and none that matter.
        (self.4, self.5) == ((0, 0), (0, 0)) || since.is_some_and(|since| since > tick)
    }

    /// The stamp as bytes, different ones for different stamps.
    pub fn bytes(&self) -> Vec<u8> {
        let Self(device, inode, mode, size, content, change) = self;
        let mut bytes = Vec::with_capacity(60);
        for number in [*device, *inode, u64::from(*mode), *size] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [content.0, content.1, change.0, change.1] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_change_is_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let look = || {
            // The clock of files ticks meanwhile.
            std::thread::sleep(Duration::from_millis(20));
            Stamp::of(&fs::symlink_metadata(&path).unwrap())
        };
        fs::write(&path, "one").unwrap();
        let first = look();
        assert_eq!((first, first.bytes()), (look(), look().bytes()));
        let times = fs::metadata(&path).unwrap();
        let times = fs::FileTimes::new()
            .set_modified(times.modified().unwrap())
            .set_accessed(times.accessed().unwrap());
        // The same size, and the time of its content set back as by a program that keeps times.
        fs::write(&path, "two").unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
        let second = look();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let third = look();
        fs::copy(&path, dir.path().join("other")).unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        let all = [first, second, third, look()];
        for (index, stamp) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert_ne!(stamp, other);
                assert_ne!(stamp.bytes(), other.bytes());
            }
        }
    }

    #[test]
    fn what_was_changed_just_now_is_not_settled() {
        let changed = |nanoseconds: i64| Stamp(1, 2, 0o100_644, 3, (5, 0), (1000, nanoseconds));
        let moment = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let fine = changed(500_000_000);
        for (millis, expected) in [
            (1_000_400, false),
            (1_000_500, false),
            (1_000_600, false),
            (1_000_601, true),
        ] {
            assert_eq!(fine.is_settled(moment(millis)), expected, "{millis}");
        }
        let coarse = changed(0);
        assert!(!coarse.is_settled(moment(1_003_000)) && coarse.is_settled(moment(1_003_001)));
        assert!(!Stamp(1, 2, 0o100_644, 3, (5, 0), (-1, 0)).is_settled(moment(1_000_000)));
        assert!(Stamp(1, 2, 0o040_755, 0, (0, 0), (0, 0)).is_settled(moment(1_000_000)));
    }
}
