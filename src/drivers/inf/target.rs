//! Decorations of models sections: for which Windows a section is ("INF Manufacturer Section", TargetOSVersion).
//!
//! `NT[arch][.[major][.[minor][.[product type][.[suite mask][.[build]]]]]]`

use std::fmt;

use super::number::parse_number;
use crate::drivers::guest::{Arch, GuestTarget};

/// A parsed decoration. `None` fields match everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetOs {
    /// CPU; without one the section is for x86 (since Windows Server 2003 SP1).
    pub arch: Option<Arch>,
    /// A CPU that winject does not know (`ia64`, `arm`): never fits.
    pub foreign_arch: bool,
    /// Lowest version; the minor number is 0 when it is left out.
    pub version: Option<(u32, u32)>,
    /// `VER_NT_*`: 1 client, 2 domain controller, 3 server.
    pub product_type: Option<u32>,
    /// `VER_SUITE_*` bits, all of which the guest must have.
    pub suite: Option<u32>,
    /// Lowest build within the version; Windows before build 14310 ignores such a section.
    pub build: Option<u32>,
    /// Nothing at all was written after the models section's name.
    pub undecorated: bool,
}

/// First build of Windows that reads the build number in a decoration.
const BUILD_AWARE: u32 = 14310;

/// Why a decoration does not fit a guest, the most telling reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// The guest is older than the decoration's version or build.
    TooOld,
    /// Another kind of product or suite.
    Product,
    /// The decoration is for another CPU.
    Cpu,
}

impl TargetOs {
    /// The section without any decoration.
    #[must_use]
    pub fn none() -> Self {
        Self { undecorated: true, ..Self::default() }
    }

    /// Reads a decoration; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let rest = text.get(..2).filter(|nt| nt.eq_ignore_ascii_case("nt")).and(text.get(2..))?;
        let mut parts = rest.split('.');
        let mut out = Self::default();
        match parts.next()? {
            "" => {}
            cpu => match Arch::parse(cpu) {
                // Windows' own spellings only: "NTx64" is not a decoration
                Some(arch) if arch.inf_name().eq_ignore_ascii_case(cpu) => out.arch = Some(arch),
                _ if ["ia64", "arm", "alpha", "mips", "ppc", "axp64"].contains(&cpu.to_ascii_lowercase().as_str()) => {
                    out.foreign_arch = true;
                }
                _ => return None,
            },
        }
        let mut numbers = [None; 5];
        for (index, part) in parts.enumerate() {
            let slot = numbers.get_mut(index)?;
            if !part.is_empty() {
                *slot = Some(parse_number(part)?);
            }
        }
        let [major, minor, product_type, suite, build] = numbers;
        out.version = match (major, minor) {
            (Some(major), minor) => Some((major, minor.unwrap_or(0))),
            (None, Some(_)) => return None,
            (None, None) => None,
        };
        (out.product_type, out.suite, out.build) = (product_type, suite, build);
        Some(out)
    }

    /// Whether the section is for the guest.
    ///
    /// # Errors
    /// The reason why not.
    pub fn fits(&self, guest: &GuestTarget) -> Result<(), Misfit> {
        // without a CPU a section is for x86 alone
        if self.foreign_arch || self.arch.unwrap_or(Arch::X86) != guest.arch {
            return Err(Misfit::Cpu);
        }
        if self.version.is_some_and(|version| version > (guest.major, guest.minor)) {
            return Err(Misfit::TooOld);
        }
        if let Some(build) = self.build {
            let newer_version = self.version.is_some_and(|v| v < (guest.major, guest.minor));
            if guest.build < BUILD_AWARE || (!newer_version && guest.build < build) {
                return Err(Misfit::TooOld);
            }
        }
        if self.product_type.is_some_and(|p| p != u32::from(guest.product_type.number())) {
            return Err(Misfit::Product);
        }
        if self.suite.is_some_and(|s| u32::from(guest.suite) & s != s) {
            return Err(Misfit::Product);
        }
        Ok(())
    }

    /// How closely a fitting section matches: the highest version wins, then the highest build, then the one that names
    /// product type and suite, then the one that names the CPU.
    #[must_use]
    pub fn rank(&self) -> impl Ord + use<> {
        (
            self.version.unwrap_or((0, 0)),
            self.build.unwrap_or(0),
            self.product_type.is_some(),
            self.suite.map_or(0, u32::count_ones),
            self.arch.is_some(),
            !self.undecorated,
        )
    }

    /// "amd64, Windows 10 (10.0) build 16299 and later".
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = match self.arch {
            Some(arch) => arch.to_string(),
            None if self.foreign_arch => "another CPU".to_owned(),
            None => Arch::X86.to_string(),
        };
        if let Some((major, minor)) = self.version {
            out += &format!(", {}", system_name(major, minor));
            if let Some(build) = self.build {
                out += &format!(" build {build}");
            }
            out += " and later";
        }
        match self.product_type {
            Some(1) => out += ", clients",
            Some(_) => out += ", servers",
            None => {}
        }
        out
    }
}

/// The marketing name with the number that INFs use: "Windows 8.1 (6.3)".
fn system_name(major: u32, minor: u32) -> String {
    let name = match (major, minor) {
        (5, 0) => "2000",
        (5, 1) => "XP",
        (5, 2) => "Server 2003",
        (6, 0) => "Vista",
        (6, 1) => "7",
        (6, 2) => "8",
        (6, 3) => "8.1",
        (10, 0) => "10",
        _ => return format!("Windows {major}.{minor}"),
    };
    format!("Windows {name} ({major}.{minor})")
}

impl fmt::Display for TargetOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(arch: Arch, build: u32, server: bool) -> GuestTarget {
        GuestTarget::of_build(arch, build, server)
    }

    #[track_caller]
    fn fits(decoration: &str, guest: &GuestTarget) -> Result<(), Misfit> {
        TargetOs::parse(decoration).unwrap_or_else(|| panic!("{decoration}")).fits(guest)
    }

    #[test]
    fn versions_and_builds() {
        let w10 = guest(Arch::Amd64, 19045, false);
        let w10_1607 = guest(Arch::Amd64, 14393, false);
        let w10_first = guest(Arch::Amd64, 10240, false);
        let w7 = guest(Arch::Amd64, 7601, false);
        assert_eq!(fits("NTamd64.10.0...16299", &w10), Ok(()));
        assert_eq!(fits("NTamd64.10.0...16299", &w10_1607), Err(Misfit::TooOld));
        assert_eq!(fits("NTamd64.10.0...14310", &w10_first), Err(Misfit::TooOld));
        assert_eq!(fits("NTamd64.10.0", &w10_first), Ok(()));
        assert_eq!(fits("NTamd64.6.3", &w10), Ok(()));
        assert_eq!(fits("NTamd64.6.3", &w7), Err(Misfit::TooOld));
        assert_eq!(fits("ntAMD64", &w7), Ok(()));
        assert_eq!(fits("NTx86.6.1", &w7), Err(Misfit::Cpu));
        assert_eq!(fits("NTia64", &w7), Err(Misfit::Cpu));
        assert_eq!(fits("NT.6.1", &w7), Err(Misfit::Cpu));
        assert_eq!(fits("NT.6.1", &guest(Arch::X86, 7601, false)), Ok(()));
        assert_eq!(fits("NTARM64.10.0", &guest(Arch::Arm64, 22631, false)), Ok(()));
    }

    #[test]
    fn product_types_and_suites() {
        let client = guest(Arch::Amd64, 26100, false);
        let server = guest(Arch::Amd64, 26100, true);
        assert_eq!(fits("NTamd64.10.0.1", &client), Ok(()));
        assert_eq!(fits("NTamd64.10.0.1", &server), Err(Misfit::Product));
        assert_eq!(fits("NTamd64.10.0.3", &server), Ok(()));
        assert_eq!(fits("NTamd64.10.0.3..20348", &server), Ok(()));
        assert_eq!(fits("NTamd64.10.0.3..26101", &server), Err(Misfit::TooOld));
        assert_eq!(fits("NTamd64.10.0.0x3.0x80", &GuestTarget { suite: 0x82, ..server }), Ok(()));
        assert_eq!(fits("NTamd64.10.0.3.0x80", &server), Err(Misfit::Product));
    }

    #[test]
    fn other_texts_are_not_decorations() {
        for text in ["", "N", "amd64", "NTx64", "NTamd64.x", "NTamd64.1.2.3.4.5.6", "NTamd64..1", "NTwhat"] {
            assert_eq!(TargetOs::parse(text), None, "{text}");
        }
    }

    #[test]
    fn rank_prefers_version_then_build_then_detail() {
        let order = ["NT", "NTamd64", "NTamd64.6.1", "NTamd64.10.0", "NTamd64.10.0.1", "NTamd64.10.0...16299"];
        for pair in order.windows(2) {
            let [low, high] = [pair[0], pair[1]].map(|t| TargetOs::parse(t).unwrap().rank());
            assert!(low < high, "{pair:?}");
        }
        assert!(TargetOs::none().rank() < TargetOs::parse("NT").unwrap().rank());
    }
}
