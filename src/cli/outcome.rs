//! The *outcome* of a command that ended without trouble, which its exit status says.

/// What a command that ended without trouble says by its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or the answer is yes: 0.
    Done,
    /// The answer is no: 1.
    No,
    /// The status of a program that was run.
    Status(u8),
    /// What goes on until it is interrupted was interrupted: 0.
    Ended,
}

impl Outcome {
    /// The exit status of a program that was run.
    pub fn of_status(status: i32) -> Self {
        match status {
            0 => Self::Done,
            status => Self::Status(u8::try_from(status).unwrap_or(2)),
        }
    }
}
