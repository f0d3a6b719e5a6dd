//! Where things are in the guest. The names are a contract with the host, with tools and with people.

use alloc::string::String;

use crate::text::join;
use crate::windows::{file, system};

/// Paths of the running Windows.
pub struct Places {
    /// The folder of all that the host has put there: `C:\hyper2kvm`.
    pub base: String,
    /// The Windows folder.
    pub windows: String,
    /// The log.
    pub log: String,
}

impl Places {
    /// Finds them by the environment; `None` when that is not one of Windows.
    pub fn find() -> Option<Self> {
        let set = |text: &str| system::expand(text).filter(|path| !path.is_empty() && !path.contains('%'));
        let (drive, windows) = (set("%SystemDrive%")?, set("%SystemRoot%")?);
        let log = join(&[&windows, "\\Temp\\hyper2kvm-firstboot.log"]);
        Some(Self { base: join(&[&drive, "\\hyper2kvm"]), windows, log })
    }

    /// A file in the base folder.
    pub fn base_file(&self, name: &str) -> String {
        join(&[&self.base, "\\", name])
    }

    /// The folder with the staged packages.
    pub fn stage(&self) -> String {
        self.base_file("drivers\\virtio")
    }

    /// A program of Windows. A 32-bit process finds those of a 64-bit Windows under another name.
    pub fn system_program(&self, name: &str) -> String {
        let native = join(&[&self.windows, "\\Sysnative\\", name]);
        if file::exists(&native) { native } else { join(&[&self.windows, "\\System32\\", name]) }
    }
}
