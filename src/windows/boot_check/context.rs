//! The guest, its SYSTEM hive and the options, as every gate needs them.

use crate::drivers::{Arch, SignatureLevel};
use crate::error::Result;
use crate::hive::reader::{Node, Reader};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// First build that binds by `DriverDatabase` (Windows 8, Server 2012).
pub(super) const BUILD_DRIVER_DATABASE: u32 = 9200;

/// How strictly the boot check judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// What a boot driver's signature must prove; less is a failure.
    pub signatures: SignatureLevel,
}

/// The input of every gate.
pub(super) struct Context<'a> {
    pub files: &'a dyn GuestFiles,
    pub guest: &'a Guest,
    pub system: Reader<'a>,
    pub control_set: String,
    pub options: &'a CheckOptions,
}

impl<'a> Context<'a> {
    pub(super) fn key(&self, path: &str) -> Result<Option<Node<'a>>> {
        self.system.key(path)
    }

    pub(super) fn text(&self, key: &str, name: &str) -> Result<Option<String>> {
        let Some(key) = self.key(key)? else { return Ok(None) };
        Ok(key.value(name)?.and_then(|data| data.as_text()))
    }

    pub(super) fn number(&self, key: &str, name: &str) -> Result<Option<u32>> {
        let Some(key) = self.key(key)? else { return Ok(None) };
        Ok(key.value(name)?.and_then(|value| value.as_u32()))
    }
}

/// Whether this Windows loads signed boot drivers only: 64-bit Windows since Vista.
pub(super) fn insists_on_signatures(guest: &Guest) -> bool {
    guest.arch != Arch::X86 && guest.build >= 6000
}
