//! *Steps* from one schema of the database to the next: what a path was built behind, and how.
//!
//! Invariant: a step that a store may have taken never changes.

/// What schema 4 changed: which walls a path was built behind, where there was only whether it was in a sandbox.
pub(super) const CREATE_4: &str = "
ALTER TABLE path ADD COLUMN walls TEXT NOT NULL DEFAULT 'namespaces' CHECK (walls IN ('namespaces', 'chroot', 'none'));
UPDATE path SET walls = 'none' WHERE sandboxed = 0;
ALTER TABLE path DROP COLUMN sandboxed;
";

/// What schema 5 added: how the programs of the script ran that made a path.
pub(super) const CREATE_5: &str = "
ALTER TABLE path ADD COLUMN execution TEXT NOT NULL DEFAULT 'native'
    CHECK (execution IN ('native', 'emulated', 'emulated-by-machine'));
";

/// What schema 6 changed: a path may have been built behind a builder's walls.
pub(super) const CREATE_6: &str = "
ALTER TABLE path ADD COLUMN behind TEXT NOT NULL DEFAULT 'namespaces'
    CHECK (behind IN ('namespaces', 'chroot', 'builder', 'none'));
UPDATE path SET behind = walls;
ALTER TABLE path DROP COLUMN walls;
ALTER TABLE path RENAME COLUMN behind TO walls;
";

/// What schema 7 changed: a path may have been built behind traced walls.
pub(super) const CREATE_7: &str = "
ALTER TABLE path ADD COLUMN behind TEXT NOT NULL DEFAULT 'namespaces'
    CHECK (behind IN ('namespaces', 'chroot', 'traced', 'builder', 'none'));
UPDATE path SET behind = walls;
ALTER TABLE path DROP COLUMN walls;
ALTER TABLE path RENAME COLUMN behind TO walls;
";

/// What schema 8 changed: a path may have been made on another machine than it is for.
pub(super) const CREATE_8: &str = "
ALTER TABLE path ADD COLUMN ran TEXT NOT NULL DEFAULT 'native'
    CHECK (ran IN ('native', 'emulated', 'emulated-by-machine', 'cross'));
UPDATE path SET ran = execution;
ALTER TABLE path DROP COLUMN execution;
ALTER TABLE path RENAME COLUMN ran TO execution;
";
