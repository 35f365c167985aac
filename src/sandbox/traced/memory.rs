//! The *memory* of a process that is answered or traced: texts and plain values are read from it and written to it.
//!
//! Invariant: nothing is read beyond what is asked for but the rest of two pages, and a bad address is `EFAULT`, as the kernel
//! would say.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;

/// Bytes of a page, the least that any processor here has.
const PAGE: u64 = 4096;

/// Most bytes of a path, its end included.
pub(super) const PATH_MAX: usize = 4096;

/// Whether a container's filter refuses the calls that read and write another process's memory: then it is a file.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Memory of a process, named by one of its threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub thread: u32,
}

impl Memory {
    /// The path at an address.
    pub fn path(self, address: u64) -> Result<Vec<u8>, Errno> {
        let text = self.text(address, PATH_MAX)?;
        text.ok_or(Errno::ENAMETOOLONG)
    }

    /// The text at an address; `None`: it is longer.
    pub fn text(self, address: u64, most: usize) -> Result<Option<Vec<u8>>, Errno> {
        let mut text = Vec::new();
        while text.len() < most {
            let from = address.wrapping_add(text.len() as u64);
            let mut part = vec![0; most.min(PATH_MAX)];
            let read = self.read_some(from, &mut part)?;
            if let Some(end) = part[..read].iter().position(|&byte| byte == 0) {
                text.extend_from_slice(&part[..end]);
                return Ok((text.len() < most).then_some(text));
            }
            text.extend_from_slice(&part[..read]);
        }
        Ok(None)
    }

    fn file(self, writable: bool) -> Result<File, Errno> {
        let file = File::options()
            .read(true)
            .write(writable)
            .open(format!("/proc/{}/mem", self.thread));
        file.map_err(|_| Errno::EFAULT)
    }

    /// As many bytes as are there, at least one.
    fn read_some(self, address: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        // Up to the end of the page, as the next one may not be there.
        let first = usize::try_from(PAGE - address % PAGE).unwrap_or(1).min(bytes.len());
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let remote = [
            libc::iovec {
                iov_base: address as *mut libc::c_void,
                iov_len: first,
            },
            libc::iovec {
                iov_base: address.wrapping_add(first as u64) as *mut libc::c_void,
                iov_len: bytes.len() - first,
            },
        ];
        let count = if bytes.len() > first { 2 } else { 1 };
        if REFUSED.load(Ordering::Relaxed) {
            let bytes = &mut bytes[..first];
            return match self.file(false)?.read_at(bytes, address) {
                Ok(0) | Err(_) => Err(Errno::EFAULT),
                Ok(read) => Ok(read),
            };
        }
        // SAFETY: the local part describes `bytes`; the remote ones are the other process's, and checked by the kernel.
        let read = unsafe {
            libc::process_vm_readv(
                self.thread as libc::pid_t,
                &raw const local,
                1,
                remote.as_ptr(),
                count,
                0,
            )
        };
        match Errno::result(read) {
            Err(Errno::EPERM | Errno::ENOSYS) => {
                REFUSED.store(true, Ordering::Relaxed);
                self.read_some(address, bytes)
            }
            Ok(0) | Err(_) => Err(Errno::EFAULT),
            Ok(read) => Ok(read.unsigned_abs()),
        }
    }

    /// Fills `bytes` from an address.
    pub fn read(self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            done += self.read_some(address.wrapping_add(done as u64), &mut bytes[done..])?;
        }
        Ok(())
    }

    /// A number of 64 bits.
    pub fn word(self, address: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Writes bytes to an address.
    pub fn write(self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if REFUSED.load(Ordering::Relaxed) {
            return self.file(true)?.write_all_at(bytes, address).map_err(|_| Errno::EFAULT);
        }
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let remote = libc::iovec {
            iov_base: address as *mut libc::c_void,
            iov_len: bytes.len(),
        };
        // SAFETY: the local part describes `bytes`, which is read only; the remote one is checked by the kernel.
        let written = unsafe {
            libc::process_vm_writev(self.thread as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0)
        };
        match Errno::result(written) {
            Ok(count) if count.unsigned_abs() == bytes.len() => Ok(()),
            Err(Errno::EPERM | Errno::ENOSYS) => {
                REFUSED.store(true, Ordering::Relaxed);
                self.write(address, bytes)
            }
            _ => Err(Errno::EFAULT),
        }
    }
}

/// The bytes of a plain value.
///
/// # Safety
///
/// All bytes of the value are initialised: it is plain data that began as zeros.
pub(super) unsafe fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: the slice is the value's own memory, all of which is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of_val(value)) }
}
