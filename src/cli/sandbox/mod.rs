//! Every image is untrusted: before the first byte of one is read, the process gives up the files that the command was not
//! given, the network, and the system calls that it does not need. Whatever a defect lets an image do afterwards, it can
//! reach no other file and start no program. Where an image is an NBD export, the process may connect to the port of its server
//! (of any host: the kernel restricts ports), or to Unix sockets.
//!
//! The kernel enforces both: Landlock for files, seccomp for calls. Where it has them only in part, the rest is enforced,
//! and the log (`-v`) says what is missing.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;
mod files;
mod places;

use clap::{ArgMatches, Command};
use landlock::RulesetStatus;

use super::inject;
use crate::host::create_private_folder;
use crate::nbd;
use places::Places;

/// Restricts this thread, and all that it starts, to reading files: images may name any. Nothing can be written or sent.
pub fn enter_for_headers() {
    let mut places = Places::default();
    places.add_all_files();
    restrict(&places);
}

/// Restricts this thread, and all that it starts, to what a command line needs.
pub fn enter(command: &Command, matches: &ArgMatches) {
    let mut places = Places::of_command(command, matches);
    // A document that cannot be read is reported by the run.
    if let Some(spec) = places.document().and_then(|path| inject::spec_of_document(path).ok()) {
        places.add_spec(&spec);
    }
    restrict(&places);
}

fn restrict(places: &Places) {
    // Looking a name up needs more rights than connecting does.
    places.servers().iter().for_each(nbd::resolve_now);
    if let Some(folder) = places.journals() {
        // Only what exists can be allowed. A folder that cannot be made is reported by the run.
        let _ = create_private_folder(folder);
    }
    match files::restrict(places) {
        Ok(RulesetStatus::FullyEnforced) => tracing::info!("sandbox: only the command's own files can be opened"),
        Ok(RulesetStatus::PartiallyEnforced) => {
            tracing::info!("sandbox: only the command's own files can be opened, as far as this kernel restricts it");
        }
        Ok(RulesetStatus::NotEnforced) => {
            tracing::info!("sandbox: this kernel does not restrict files (Landlock is missing or switched off)");
        }
        Err(error) => tracing::info!(%error, "sandbox: this kernel does not restrict files"),
    }
    match calls::restrict(!places.servers().is_empty()) {
        Ok(()) => tracing::info!("sandbox: only the system calls for files, memory and threads are allowed"),
        Err(error) => tracing::info!(%error, "sandbox: this kernel does not restrict system calls"),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls {
    /// Fails: which calls a program makes differs from processor to processor.
    pub(super) fn restrict(_connects: bool) -> Result<(), &'static str> {
        Err("not known for this processor")
    }
}
