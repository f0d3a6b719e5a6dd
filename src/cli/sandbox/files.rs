//! Files: Landlock.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::places::Places;
use crate::nbd::Address;

/// The version whose rights are known here. An older kernel enforces those that it knows.
const VERSION: ABI = ABI::V6;

/// What every run may read: tables of the kernel about mounts, locks, devices and processors, and its own program (for the
/// names in the message of a panic). The memory and the open files of other processes stay out of reach below `/proc`,
/// because Landlock denies tracing.
const READ_ALWAYS: [&str; 3] = ["/proc", "/sys", "/proc/self/exe"];

/// Where a key is asked for.
const TERMINAL: &str = "/dev/tty";

/// Restricts this thread and those that it starts to `places`, for good.
///
/// # Errors
/// When the kernel has Landlock and refuses the rules.
pub(super) fn restrict(places: &Places) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    for path in READ_ALWAYS.map(Path::new) {
        allow(&mut rules, path, reading(path));
    }
    allow(&mut rules, &std::env::temp_dir(), scratch());
    allow(&mut rules, Path::new(TERMINAL), writing(Path::new(TERMINAL)));
    for path in places.read() {
        allow(&mut rules, path, reading(path));
    }
    for path in places.written() {
        allow(&mut rules, path, writing(path));
    }
    for server in places.servers() {
        if let Address::Tcp(_, port) = server {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Allows access to a file, or to all that lies in a folder. What does not exist or cannot be restricted (a pipe) needs no
/// rule.
fn allow(rules: &mut RulesetCreated, path: &Path, access: BitFlags<AccessFs>) {
    if let Ok(file) = PathFd::new(path) {
        let _ = rules.add_rule(PathBeneath::new(file, access));
    }
}

/// To read files and list folders; or to read a file or a device, and ask for its size.
fn reading(path: &Path) -> BitFlags<AccessFs> {
    AccessFs::ReadFile | if path.is_dir() { AccessFs::ReadDir } else { AccessFs::IoctlDev }
}

/// To make new files in a folder, write into files and give them names; or to write into a file, a device or a pipe.
fn writing(path: &Path) -> BitFlags<AccessFs> {
    let content = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    if !path.is_dir() {
        return content | AccessFs::IoctlDev;
    }
    let names = AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::RemoveFile | AccessFs::RemoveDir;
    content | names | AccessFs::ReadDir
}

/// To spill what does not fit into memory into a file without a name.
fn scratch() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile
}
