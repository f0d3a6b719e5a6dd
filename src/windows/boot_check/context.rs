//! The guest, its SYSTEM hive and the options, as every gate needs them.

use crate::drivers::{Arch, SignatureLevel};
use crate::error::Result;
use crate::hive::reader::{Node, Reader};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;
use crate::windows::inspect::program::ProgramFile;

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
        Ok(self.system.value(key, name)?.and_then(|data| data.as_text()))
    }

    pub(super) fn number(&self, key: &str, name: &str) -> Result<Option<u32>> {
        Ok(self.system.value(key, name)?.and_then(|data| data.as_u32()))
    }

    /// The strings of a `REG_MULTI_SZ`, or the one of a `REG_SZ`.
    pub(super) fn texts(&self, key: &str, name: &str) -> Result<Vec<String>> {
        Ok(self.system.value(key, name)?.map(|data| data.to_texts()).unwrap_or_default())
    }

    /// Whether a `StartOverride` of the service at `key` sets its start to `at_least` or more: it beats `Start`, with one
    /// DWORD for each hardware profile.
    pub(super) fn has_start_override(&self, key: &str, at_least: u32) -> Result<bool> {
        let Some(node) = self.key(&format!("{key}\\StartOverride"))? else { return Ok(false) };
        Ok(node.values()?.iter().any(|value| value.data.as_u32().is_some_and(|start| start >= at_least)))
    }
}

/// What is wrong with a program's file; `None` when it is there and for this CPU.
pub(super) fn program_problem(context: &Context<'_>, path: &str) -> Result<Option<String>> {
    Ok(match ProgramFile::read(context.files, path)? {
        ProgramFile::Missing => Some(format!("{path} is missing")),
        ProgramFile::NotAProgram => Some(format!("{path} is not a program")),
        ProgramFile::ForMachine(machine) if Arch::from_pe_machine(machine) != Some(context.guest.arch) => {
            Some(format!("{path} is for CPU {machine:#x}, Windows for {}", context.guest.arch))
        }
        ProgramFile::ForMachine(_) => None,
    })
}

/// Whether this Windows loads signed boot drivers only: 64-bit Windows since Vista.
pub(super) fn insists_on_signatures(guest: &Guest) -> bool {
    guest.arch != Arch::X86 && guest.build >= 6000
}
