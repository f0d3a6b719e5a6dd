//! Options that describe the machine to create.

use std::path::{Path, PathBuf};

use super::text_file::TextFile;
use super::{Ui, worker};
use crate::error::{Error, Kind, Layer, Result};
use crate::host;
use crate::job::{InjectRequest, Machine, MachineKind};

/// What a description is called in messages.
pub const MACHINE: &str = "the description of the machine";

// The machine to create
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct MachineArgs {
    /// Print the machine that fits the guest: a libvirt domain, a QEMU command line, a KubeVirt manifest or Proxmox commands
    #[arg(long, value_name = "KIND", value_enum)]
    pub machine: Option<MachineArg>,

    /// Write the machine to this file in place of printing it
    #[arg(long, value_name = "FILE", requires = "machine")]
    pub machine_output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MachineArg {
    /// A domain (XML) for virsh define
    Libvirt,
    /// A shell script that starts QEMU
    Qemu,
    /// A VirtualMachine (YAML) for kubectl apply
    Kubevirt,
    /// A shell script of qm commands
    Proxmox,
}

impl From<MachineArg> for MachineKind {
    fn from(kind: MachineArg) -> Self {
        match kind {
            MachineArg::Libvirt => Self::Libvirt,
            MachineArg::Qemu => Self::Qemu,
            MachineArg::Kubevirt => Self::KubeVirt,
            MachineArg::Proxmox => Self::Proxmox,
        }
    }
}

impl MachineArgs {
    /// Refuses a description that has no place to go, or could not hold the paths of the request; keeps standard output
    /// for one that is printed.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub fn prepare(&self, request: &InjectRequest, ui: &Ui) -> Result<()> {
        if self.machine.is_none() {
            return Ok(());
        }
        if self.is_printed() && ui.is_json() {
            let what = "cannot print both JSON and the machine on standard output";
            return Err(Error::new(Kind::Usage, Layer::Cli, what).hint("add --machine-output FILE"));
        }
        Machine::check_paths(request)?;
        if self.is_printed() {
            ui.keep_output_for_document();
        }
        Ok(())
    }

    /// Whether the machine is printed to standard output.
    #[must_use]
    pub fn is_printed(&self) -> bool {
        self.machine.is_some() && self.machine_output.is_none()
    }

    /// The file that is written, with what it is called.
    pub fn outputs(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.machine_output.iter().map(|path| (MACHINE, path.as_path()))
    }

    /// Prints or writes the machine, if it was asked for. No more users may read the file than `sources`.
    ///
    /// # Errors
    /// When the machine cannot be described, or the file cannot be written.
    pub fn show(
        &self,
        machine: impl FnOnce() -> Result<Machine>,
        overwrite: bool,
        sources: &[PathBuf],
        ui: &Ui,
    ) -> Result<()> {
        let Some(kind) = self.machine else { return Ok(()) };
        let text = machine()?.describe(kind.into());
        let Some(path) = &self.machine_output else {
            ui.document(&text);
            return Ok(());
        };
        // A worker may come again after it had written everything.
        if worker::is_worker() && host::read(path, text.len() as u64).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        TextFile { what: MACHINE, path, overwrite }.write(text.as_bytes(), sources, || ())?;
        ui.note(&format!("machine written: {}", path.display()));
        Ok(())
    }
}
