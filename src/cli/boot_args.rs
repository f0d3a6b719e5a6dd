//! Options that concern the boot volume: EFI system partition, boot configuration.

use clap::ValueEnum;

use crate::windows::{BootGraphics, BootOptions, FallbackLoader, TestSigning};

// The boot volume: the same for every command that injects, and a document
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct BootArgs {
    /// Copy the boot manager to where UEFI firmware looks without an entry in its NVRAM, if nothing is there
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub fallback_loader: FallbackLoaderArg,

    /// Choose what becomes of graphicsmodedisabled (element 16000046) in the boot configuration of a guest with UEFI
    #[arg(long, value_name = "CHOICE", value_enum, default_value_t)]
    pub boot_graphics: BootGraphicsArg,

    /// Set or remove testsigning (element 16000049) in the boot configuration: on lets Windows load drivers with any test
    /// signature, unless Secure Boot is on; for test machines only [default: leave it as it is]
    #[arg(long, value_name = "SWITCH", value_enum)]
    pub test_signing: Option<TestSigningArg>,
}

impl From<BootArgs> for BootOptions {
    fn from(args: BootArgs) -> Self {
        Self {
            fallback_loader: match args.fallback_loader {
                FallbackLoaderArg::Auto => FallbackLoader::Auto,
                FallbackLoaderArg::On => FallbackLoader::On,
                FallbackLoaderArg::Off => FallbackLoader::Off,
            },
            graphics: match args.boot_graphics {
                BootGraphicsArg::Auto => BootGraphics::Auto,
                BootGraphicsArg::Keep => BootGraphics::Keep,
            },
            test_signing: match args.test_signing {
                None => TestSigning::Keep,
                Some(TestSigningArg::On) => TestSigning::On,
                Some(TestSigningArg::Off) => TestSigning::Off,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum FallbackLoaderArg {
    /// Where it is missing and can be written; else a warning says why not
    #[default]
    Auto,
    /// Where it is missing; fail if it cannot be written
    On,
    /// Never
    Off,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum BootGraphicsArg {
    /// It is removed: the screen of a virtual machine with UEFI has no text mode
    #[default]
    Auto,
    /// It stays
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestSigningArg {
    /// Set it
    On,
    /// Remove it
    Off,
}
