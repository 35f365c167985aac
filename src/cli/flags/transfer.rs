//! The flags of commands that write images to places.

use std::path::PathBuf;

use clap::Args;

use crate::project::place::TransferOptions;

/// Options of every command that writes images to places.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Transfer options")]
pub struct TransferFlags {
    /// Further tag, or a whole NAME:TAG for archives and engines; repeatable
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Leave an existing name as it is, whatever it points to
    #[arg(long, conflicts_with = "immutable")]
    skip_existing: bool,
    /// Fail rather than move a name that points to something else
    #[arg(long)]
    immutable: bool,
    /// Write nothing; say what would be written
    #[arg(long)]
    dry_run: bool,
    /// Send layers to a registry that only their vendor hands out (of Windows), too
    #[arg(long)]
    non_distributable: bool,
    /// Write the digest to this file
    #[arg(long, value_name = "FILE")]
    pub digest_file: Option<PathBuf>,
}

impl TransferFlags {
    /// Whether nothing is to be written.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The flags as the options they stand for.
    pub fn options(&self) -> TransferOptions {
        let Self {
            tag,
            skip_existing,
            immutable,
            dry_run,
            non_distributable,
            digest_file: _,
        } = self;
        TransferOptions {
            tags: tag.clone(),
            skip_existing: *skip_existing,
            immutable: *immutable,
            dry_run: *dry_run,
            non_distributable: *non_distributable,
            beside: Vec::new(),
        }
    }
}
