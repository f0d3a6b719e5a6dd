//! The folder layouts of driver media: where driver, Windows release and CPU are in the path.
//!
//! | layout | where it is seen |
//! |---|---|
//! | `<Driver>/<os>/<arch>/` | virtio-win ISOs, hand-extracted trees, `drivers/by-driver/` of packages |
//! | `<arch>/<os>/` | the ISO's top level and `drivers/by-os/`: all drivers in one folder |
//! | anything else with an INF | vendors' packages |

use crate::drivers::guest::{Arch, BUCKETS};

/// Driver, release and CPU of a folder, by its path alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// The driver's folder; none in layouts that put all drivers into one folder.
    pub driver: Option<String>,
    /// The first folder below the source.
    pub top: Option<String>,
    /// The Windows release, as [`BUCKETS`] spells it.
    pub bucket: Option<&'static str>,
    /// The CPU that a folder is named after.
    pub arch: Option<Arch>,
    /// Whether the layout puts the drivers of a release side by side into one folder.
    pub shared: bool,
}

/// Folder names of older packages.
const ALIASES: &[(&str, &str)] = &[
    ("winxp", "xp"),
    ("win2003", "2k3"),
    ("win2k3", "2k3"),
    ("vista", "2k8"),
    ("winvista", "2k8"),
    ("win2008", "2k8"),
    ("win7", "w7"),
    ("win2008r2", "2k8R2"),
    ("win8", "w8"),
    ("win2012", "2k12"),
    ("win8.1", "w8.1"),
    // ISO 9660 without extensions has no dot in a folder's name
    ("w8_1", "w8.1"),
    ("win81", "w8.1"),
    ("win2012r2", "2k12R2"),
    ("win10", "w10"),
    ("win2016", "2k16"),
    ("win2019", "2k19"),
    ("win11", "w11"),
    ("win2022", "2k22"),
    ("win2025", "2k25"),
];

/// Folders that only group others.
const GROUPS: &[&str] = &["drivers", "by-driver", "by-os", "virtio-win"];

/// The release that a folder name stands for.
#[must_use]
pub fn bucket(name: &str) -> Option<&'static str> {
    let found = BUCKETS.iter().copied().find(|b| b.eq_ignore_ascii_case(name));
    found.or_else(|| ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, bucket)| *bucket))
}

/// The first build of the kernel that a bucket is made for.
#[must_use]
pub fn bucket_build(bucket: &str) -> Option<u32> {
    Some(match bucket {
        "xp" => 2600,
        "2k3" => 3790,
        "2k8" => 6000,
        "w7" | "2k8R2" => 7600,
        "w8" | "2k12" => 9200,
        "w8.1" | "2k12R2" => 9600,
        "w10" => 10240,
        "2k16" => 14393,
        "2k19" => 17763,
        "2k22" => 20348,
        "w11" => 22000,
        "2k25" => 26100,
        _ => return None,
    })
}

/// Whether a bucket is named after a server: `2k12R2`.
#[must_use]
pub fn is_for_servers(bucket: &str) -> bool {
    bucket.starts_with("2k")
}

impl Layout {
    /// Reads a folder's path below the source.
    #[must_use]
    pub fn of(folder: &str) -> Self {
        let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        let mut out = Self { top: parts.first().map(|&p| p.to_owned()), ..Self::default() };
        let (mut bucket_at, mut arch_at) = (None, None);
        for (index, part) in parts.iter().enumerate() {
            if let Some(found) = bucket(part) {
                (out.bucket, bucket_at) = (Some(found), Some(index));
            }
            if let Some(found) = Arch::parse(part) {
                (out.arch, arch_at) = (Some(found), Some(index));
            }
        }
        let first = match (bucket_at, arch_at) {
            (Some(b), Some(a)) => b.min(a),
            (b, a) => b.or(a).unwrap_or(parts.len()),
        };
        out.shared = matches!((bucket_at, arch_at), (Some(b), Some(a)) if a < b);
        let before = parts.get(..first).unwrap_or_default();
        let is_group = |part: &&&str| GROUPS.iter().any(|g| g.eq_ignore_ascii_case(part));
        out.driver = before.last().filter(|part| !is_group(part)).map(|&part| part.to_owned());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn layout(folder: &str, driver: Option<&str>, bucket: Option<&str>, arch: Option<Arch>, shared: bool) {
        let found = Layout::of(folder);
        let expected = (driver, bucket, arch, shared);
        assert_eq!((found.driver.as_deref(), found.bucket, found.arch, found.shared), expected, "{folder}");
    }

    #[test]
    fn every_layout() {
        use Arch::*;
        layout("viostor/w10/amd64", Some("viostor"), Some("w10"), Some(Amd64), false);
        layout("VIOSTOR/2K12R2/AMD64", Some("VIOSTOR"), Some("2k12R2"), Some(Amd64), false);
        layout("vioscsi/w11/ARM64", Some("vioscsi"), Some("w11"), Some(Arm64), false);
        layout("amd64/w8.1", None, Some("w8.1"), Some(Amd64), true);
        layout("i386/2k8", None, Some("2k8"), Some(X86), true);
        layout("drivers/by-driver/NetKVM/2k16/amd64", Some("NetKVM"), Some("2k16"), Some(Amd64), false);
        layout("drivers/by-os/i386/w7", None, Some("w7"), Some(X86), true);
        layout("drivers/amd64/Win10", None, Some("w10"), Some(Amd64), true);
        layout("usr/share/virtio-win/drivers/by-os/amd64/2k25", None, Some("2k25"), Some(Amd64), true);
        layout("Vendor/Network/x64", Some("Network"), None, Some(Amd64), false);
        layout("Vendor", Some("Vendor"), None, None, false);
        layout("", None, None, None, false);
        layout("w10/amd64", None, Some("w10"), Some(Amd64), false);
    }

    #[test]
    fn every_bucket_has_its_kernel() {
        assert!(BUCKETS.iter().all(|b| bucket_build(b).is_some() && bucket(b) == Some(b)));
        assert!(ALIASES.iter().all(|(_, b)| BUCKETS.contains(b)));
    }
}
