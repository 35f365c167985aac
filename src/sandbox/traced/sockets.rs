//! The *sockets* of a traced process that have a path. Where a call names one, the process is made to hold the directory of it,
//! and to name it by what it holds: an address has too little room for a place of the machine.
//!
//! Invariant: a path is the build's; addresses of sockets without a path go on to the kernel. Who asks for the address of a
//! socket that it bound is told the path that it was bound to.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::libc;

use super::answers::Reaction;
use super::memory::Memory;
use super::view::{Caller, View};
use crate::sandbox::notify::Answer;

/// Where the path begins in an address (`struct sockaddr_un`).
const START: usize = 2;

/// Bytes of the longest path.
const LENGTH: usize = 108;

/// Where a process finds what it holds.
const HELD: &str = "/proc/self/fd/";

/// Digits of the longest number of a descriptor.
const DIGITS: usize = 10;

/// A path that a call is to be about.
pub(super) struct Address {
    /// What is to be held: the directory of a socket that is to be made, or a socket.
    pub held: Vec<u8>,
    /// The socket's name in the directory.
    name: Vec<u8>,
    /// The path, where a socket is to have it.
    pub path: Option<Vec<u8>>,
}

impl Address {
    /// That of a call that binds or connects a socket; `None`: it has no path.
    pub fn of(view: &View, caller: Caller, call: i64, address: u64, size: u64) -> Result<Option<Self>, Errno> {
        let Some(path) = path_at(caller.memory, address, size) else {
            return Ok(None);
        };
        if call == libc::SYS_connect {
            let socket = view.locate(caller, libc::AT_FDCWD, &path, true)?;
            return Ok(Some(Self {
                held: socket.place()?,
                name: Vec::new(),
                path: None,
            }));
        }
        let entry = view.entry(caller, libc::AT_FDCWD, &path)?;
        if entry.exists() {
            return Err(Errno::EADDRINUSE);
        }
        if !view.standing(&entry.directory)?.1 {
            return Err(Errno::EROFS);
        }
        let name = entry.name.to_bytes();
        if HELD.len() + DIGITS + 1 + name.len() >= LENGTH {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(Some(Self {
            held: entry.directory.place()?,
            name: [b"/", name].concat(),
            path: Some(path),
        }))
    }

    /// The address as the kernel takes it, where `descriptor` is held.
    pub fn bytes(&self, descriptor: i64) -> Vec<u8> {
        let family = libc::AF_UNIX as libc::sa_family_t;
        let held = format!("{HELD}{descriptor}");
        [&family.to_ne_bytes()[..], held.as_bytes(), &self.name, b"\0"].concat()
    }
}

/// The paths that sockets were bound to, by what the kernel calls each.
#[derive(Default)]
pub(super) struct Sockets {
    bound: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Sockets {
    /// A process has bound a socket.
    pub fn note(&self, caller: Caller, socket: u64, path: Vec<u8>) {
        if let Some(name) = name_of(caller, socket) {
            self.bound
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name, path);
        }
    }

    /// Answers a call; `None`: it is none of those that are answered here.
    pub fn answer(&self, view: &View, caller: Caller, call: i64, arguments: &[u64; 6]) -> Option<Reaction> {
        let [socket, address, size, _, to, to_size] = *arguments;
        match call {
            libc::SYS_sendto => Some(match path_at(caller.memory, to, to_size) {
                // A message is not ours to send, and where it goes would be the machine's.
                Some(path) => match view.locate(caller, libc::AT_FDCWD, &path, true) {
                    Ok(_) => Errno::EOPNOTSUPP.into(),
                    Err(errno) => errno.into(),
                },
                None => Reaction::Now(Answer::Continue),
            }),
            libc::SYS_getsockname => {
                let told = self.tell(caller, socket, address, size);
                Some(told.map_or(Reaction::Now(Answer::Continue), Reaction::from))
            }
            _ => None,
        }
    }

    /// Tells the path that a socket was bound to; `None`: the kernel tells.
    fn tell(&self, caller: Caller, socket: u64, address: u64, size: u64) -> Option<Result<(), Errno>> {
        let name = name_of(caller, socket)?;
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let path = bound.get(&name)?;
        let family = libc::AF_UNIX as libc::sa_family_t;
        let answer = [&family.to_ne_bytes()[..], path, b"\0"].concat();
        let tell = || {
            let mut room = [0; 4];
            caller.memory.read(size, &mut room)?;
            let room = usize::try_from(u32::from_ne_bytes(room)).unwrap_or(0).min(answer.len());
            caller.memory.write(address, &answer[..room])?;
            caller.memory.write(size, &(answer.len() as u32).to_ne_bytes())
        };
        Some(tell())
    }
}

/// What the kernel calls a socket: `socket:[NUMBER]`.
fn name_of(caller: Caller, socket: u64) -> Option<Vec<u8>> {
    let name = std::fs::read_link(caller.descriptor(i32::try_from(socket).ok()?)).ok()?;
    Some(name.as_os_str().as_bytes().to_vec())
}

/// The path that an address is; `None`: it is another kind of address.
fn path_at(memory: Memory, address: u64, size: u64) -> Option<Vec<u8>> {
    let size = usize::try_from(size)
        .ok()
        .filter(|&size| address != 0 && size > START && size <= START + LENGTH)?;
    let mut bytes = vec![0; size];
    memory.read(address, &mut bytes).ok()?;
    let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
    let path = bytes[START..].split(|&byte| byte == 0).next()?;
    (i32::from(family) == libc::AF_UNIX && !path.is_empty()).then(|| path.to_vec())
}
