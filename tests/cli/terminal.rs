//! A terminal as a person has one: a program at the other end of a pseudo terminal, what it shows, and what is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long something may take to show.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a program in its foreground.
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    /// All that was shown.
    pub seen: String,
    /// What of it was asked about.
    read: usize,
}

impl Terminal {
    /// Starts a program; `command` has its environment.
    pub fn start(command: &Command) -> Self {
        let size = nix::pty::Winsize {
            ws_row: 50,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let both = nix::pty::openpty(&size, None).unwrap();
        let (ours, theirs) = (File::from(both.master), File::from(both.slave));
        // A session of its own, whose terminal this is.
        let mut started = Command::new("setsid");
        started
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        started.env_clear();
        for (name, value) in command.get_envs() {
            started.env(name, value.unwrap_or_default());
        }
        if let Some(dir) = command.get_current_dir() {
            started.current_dir(dir);
        }
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let child = started.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(started);
        drop(theirs);
        let (sender, shown) = channel();
        let mut screen = ours.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It fails when nobody has the other end any more.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keys: ours,
            shown,
            seen: String::new(),
            read: 0,
        }
    }

    /// Waits until a text is shown behind what was waited for before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> &mut Self {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                self.read += at + text.len();
                return self;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.show(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("`{text}` was not shown; all that was:\n{}", self.seen)
                }
            }
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        // Some shells ask what terminal it is, and wait for the answer.
        if text.contains("\x1b[c") || text.contains("\x1b[0c") {
            self.keys.write_all(b"\x1b[?62;c").unwrap();
        }
        self.seen.push_str(&text);
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&mut self) -> &mut Self {
        self.keys.write_all(b"\x03").unwrap();
        self
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) -> &mut Self {
        self.keys.write_all(format!("{text}\r").as_bytes()).unwrap();
        self
    }

    /// Waits for the end of the program; gives its status.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Ok(bytes) = self.shown.try_recv() {
                self.show(&bytes);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(
                Instant::now() < until,
                "it has not ended; all that was shown:\n{}",
                self.seen
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
