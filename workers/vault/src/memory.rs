//! What keeps the process's memory, and so its keys, from others of this user.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dump, which would hold every key, and no other process of this user that attaches to this one or reads its
/// memory (`/proc/<pid>/mem`, `environ`).
pub(crate) fn protect() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
