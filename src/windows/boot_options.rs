//! Options of an injection that concern the boot volume.

use serde::{Deserialize, Serialize};

/// Whether the boot manager is copied to where UEFI firmware looks without an entry in its NVRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FallbackLoader {
    /// Where it is missing and can be written; else a warning says why not.
    #[default]
    Auto,
    /// Where it is missing; fail if it cannot be written.
    On,
    /// Never.
    Off,
}

/// What becomes of `graphicsmodedisabled` of the default loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum BootGraphics {
    /// It is taken out for a guest with UEFI: the screen of its virtual machine has no text mode.
    #[default]
    Auto,
    /// It stays.
    Keep,
}

/// What becomes of `testsigning` of the default loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TestSigning {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is set: Windows accepts drivers with any test signature, unless Secure Boot is on.
    On,
    /// It is taken out.
    Off,
}

/// Options of an injection that concern the boot volume. By default a missing fallback loader is put in place, and a loader
/// of a guest with UEFI may use the screen's graphics mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BootOptions {
    /// The fallback loader.
    pub fallback_loader: FallbackLoader,
    /// The graphics mode.
    pub graphics: BootGraphics,
    /// The test mode.
    pub test_signing: TestSigning,
}
