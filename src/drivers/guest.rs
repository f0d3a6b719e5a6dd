//! The Windows that a driver is chosen for: CPU, version, kind of product, and the table of releases.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Processor architecture of a guest or a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 32-bit programs on Intel and AMD (i386).
    X86,
    /// 64-bit Intel and AMD.
    Amd64,
    /// 64-bit ARM (AArch64).
    Arm64,
}

impl Arch {
    /// Every architecture that winject knows.
    pub const ALL: [Self; 3] = [Self::X86, Self::Amd64, Self::Arm64];

    /// `IMAGE_FILE_HEADER.Machine` of programs for it (PE format, "Machine Types").
    #[must_use]
    pub const fn pe_machine(self) -> u16 {
        match self {
            Self::X86 => 0x014C,
            Self::Amd64 => 0x8664,
            Self::Arm64 => 0xAA64,
        }
    }

    /// The architecture of a PE machine number.
    #[must_use]
    pub fn from_pe_machine(machine: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.pe_machine() == machine)
    }

    /// `PROCESSOR_ARCHITECTURE_*`, as the first word of `DriverPackages\…\Version` and `Architecture` hold it.
    #[must_use]
    pub const fn processor_number(self) -> u16 {
        match self {
            Self::X86 => 0,
            Self::Amd64 => 9,
            Self::Arm64 => 12,
        }
    }

    /// The name in driver-store folders (`viostor.inf_amd64_…`), in lower case.
    #[must_use]
    pub const fn store_name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The part of an INF decoration after `NT` (`amd64` in `NTamd64.10.0`), in lower case.
    #[must_use]
    pub const fn inf_name(self) -> &'static str {
        self.store_name()
    }

    /// Reads any of the spellings in use: `x86_64`, `amd64`, `x64`; `i386`, `i686`, `x86`; `arm64`, `aarch64`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "x86" | "i386" | "i486" | "i586" | "i686" => Some(Self::X86),
            "amd64" | "x64" | "x86_64" | "x86-64" => Some(Self::Amd64),
            "arm64" | "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.store_name())
    }
}

/// `ProductOptions\ProductType` of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub enum ProductType {
    /// A client: `VER_NT_WORKSTATION` in INF decorations.
    WinNt,
    /// A server that is not a domain controller: `VER_NT_SERVER`.
    ServerNt,
    /// A domain controller: `VER_NT_DOMAIN_CONTROLLER`.
    LanmanNt,
}

impl ProductType {
    /// The number that INF decorations use (`VER_NT_*`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::WinNt => 1,
            Self::LanmanNt => 2,
            Self::ServerNt => 3,
        }
    }
}

/// The Windows that drivers are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct GuestTarget {
    /// Architecture of its kernel.
    pub arch: Arch,
    /// Build number: 7601, 19045, 26100 …
    pub build: u32,
    /// Major version of the kernel: 6, 10.
    pub major: u32,
    /// Minor version of the kernel.
    pub minor: u32,
    /// Server or client; builds such as 9600 and 26100 exist as both.
    pub server: bool,
    /// The exact kind of product.
    pub product_type: ProductType,
    /// `VER_SUITE_*` bits, as far as known; INF decorations may ask for them.
    pub suite: u16,
    /// Whether a Windows 7 or Server 2008 R2 has the SHA-2 code-signing update (KB4474419); `None`: not known.
    pub sha2_update: Option<bool>,
}

impl GuestTarget {
    /// A target of a version; the product type follows from `server`.
    #[must_use]
    pub const fn new(arch: Arch, major: u32, minor: u32, build: u32, server: bool) -> Self {
        let product_type = if server { ProductType::ServerNt } else { ProductType::WinNt };
        Self { arch, build, major, minor, server, product_type, suite: 0, sha2_update: None }
    }

    /// A target of a build number alone, by the table of releases.
    #[must_use]
    pub fn of_build(arch: Arch, build: u32, server: bool) -> Self {
        let (major, minor) = match build {
            0..=2600 => (5, 1),
            2601..=5999 => (5, 2),
            6000..=7599 => (6, 0),
            7600..=9199 => (6, 1),
            9200..=9599 => (6, 2),
            9600..=9999 => (6, 3),
            _ => (10, 0),
        };
        Self::new(arch, major, minor, build, server)
    }

    /// The row of the release table: the nearest not above the guest's build.
    #[must_use]
    pub fn release(&self) -> &'static Release {
        Release::of(self.build, self.server, self.arch)
    }
}

impl fmt::Display for GuestTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (build {}, {})", self.release().name, self.build, self.arch)
    }
}

/// A row of the table of Windows releases: which folders of driver media are made for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// "Windows 10", "Windows Server 2022" …
    pub name: &'static str,
    /// The key that user-made definition files may use for it.
    pub key: &'static str,
    /// First build of the release.
    pub first_build: u32,
    /// Whether the release is one of Windows Server.
    pub server: bool,
    /// Folders of the media, best first. None is made for a newer kernel than this release's.
    pub buckets: &'static [&'static str],
}

const fn row(
    name: &'static str,
    key: &'static str,
    first_build: u32,
    server: bool,
    buckets: &'static [&'static str],
) -> Release {
    Release { name, key, first_build, server, buckets }
}

/// All releases, oldest first within clients and within servers.
pub const RELEASES: &[Release] = &[
    row("Windows XP", "windows_xp", 0, false, &["xp"]),
    row("Windows XP x64", "windows_xp_x64", 3790, false, &["2k3", "xp"]),
    row("Windows Vista", "windows_vista", 6000, false, &["2k8"]),
    row("Windows 7", "windows_7", 7600, false, &["w7", "2k8R2"]),
    row("Windows 8", "windows_8", 9200, false, &["w8", "2k12"]),
    row("Windows 8.1", "windows_8_1", 9600, false, &["w8.1", "2k12R2", "w8"]),
    row("Windows 10", "windows_10", 10240, false, &["w10"]),
    row("Windows 11", "windows_11", 22000, false, &["w11", "w10"]),
    row("Windows Server 2003", "server_2003", 0, true, &["2k3"]),
    row("Windows Server 2008", "server_2008", 6001, true, &["2k8"]),
    row("Windows Server 2008 R2", "server_2008_r2", 7600, true, &["2k8R2", "w7"]),
    row("Windows Server 2012", "server_2012", 9200, true, &["2k12", "w8"]),
    row("Windows Server 2012 R2", "server_2012_r2", 9600, true, &["2k12R2", "w8.1", "2k12"]),
    row("Windows Server 2016", "server_2016", 10240, true, &["2k16", "w10"]),
    row("Windows Server 2019", "server_2019", 17763, true, &["2k19", "2k16", "w10"]),
    row("Windows Server 2022", "server_2022", 20348, true, &["2k22", "2k19", "2k16"]),
    row("Windows Server 2025", "server_2025", 26040, true, &["2k25", "2k22", "w11", "2k19"]),
];

/// The newest builds that the table was made for; a guest beyond them is taken for the newest row, with a warning.
pub const NEWEST_BUILD_KNOWN: u32 = 26299;

/// Every folder name that stands for a Windows release on driver media.
pub const BUCKETS: &[&str] =
    &["xp", "2k3", "2k8", "2k8R2", "w7", "w8", "2k12", "w8.1", "2k12R2", "w10", "2k16", "2k19", "w11", "2k22", "2k25"];

impl Release {
    /// The row of a build: the nearest of its kind whose first build is not above it.
    #[must_use]
    pub fn of(build: u32, server: bool, arch: Arch) -> &'static Self {
        let mut best = &RELEASES[0];
        for row in RELEASES.iter().filter(|row| row.server == server) {
            // 3790 as a client exists for amd64 only
            if row.first_build <= build && !(row.key == "windows_xp_x64" && arch == Arch::X86) {
                best = row;
            }
        }
        if best.server != server {
            return RELEASES.iter().find(|row| row.server == server).unwrap_or(best);
        }
        best
    }

    /// The row of a key of definition files (`windows_10`, `server_2019`, …).
    #[must_use]
    pub fn by_key(key: &str) -> Option<&'static Self> {
        RELEASES.iter().find(|row| row.key.eq_ignore_ascii_case(key))
    }
}
