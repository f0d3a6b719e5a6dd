//! Options of an injection that concern the guest.

use serde::{Deserialize, Serialize};

use super::boot_options::BootOptions;
use super::extras::ExtrasOptions;
use super::first_boot::FirstBootOptions;
use super::network::options::NetworkOptions;
use super::repairs::RepairOptions;

/// How much is written into `DriverDatabase` to register a boot driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// The minimum that is needed to boot; the first-boot job then installs the packages properly.
    #[default]
    Minimal,
    /// Everything that Windows itself writes when it installs a package: driver store, INF, catalogue, all records.
    Full,
}

/// Options of an injection that concern the guest. By default drivers are registered minimally, the first-boot job is
/// installed, and nothing that is newer in the guest is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectOptions {
    /// Replace drivers in the guest even if they are newer than those of the media.
    pub force: bool,
    /// The job that installs all staged packages at the first boot.
    pub first_boot: FirstBootOptions,
    /// Keep the in-box controllers startable, so that the guest still starts from SATA, IDE or NVMe.
    pub keep_inbox_controllers: bool,
    /// How much is written to register boot drivers.
    pub registration: Registration,
    /// What becomes of the network settings; by default nothing.
    pub network: NetworkOptions,
    /// Certificates (DER or PEM) of publishers that the guest trusts, so that their drivers install without a question.
    pub trusted_publishers: Vec<Vec<u8>>,
    /// The boot volume: fallback loader, graphics mode, test mode.
    pub boot: BootOptions,
    /// Repairs of a guest that comes from another hypervisor; none by default.
    pub repairs: RepairOptions,
    /// What the user puts into the guest in addition to drivers.
    pub extras: ExtrasOptions,
}

impl Default for InjectOptions {
    fn default() -> Self {
        Self {
            force: false,
            first_boot: FirstBootOptions::default(),
            keep_inbox_controllers: true,
            registration: Registration::Minimal,
            network: NetworkOptions::default(),
            trusted_publishers: Vec::new(),
            boot: BootOptions::default(),
            repairs: RepairOptions::default(),
            extras: ExtrasOptions::default(),
        }
    }
}
