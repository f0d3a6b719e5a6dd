//! The numbers of third-party INFs (`oemN.inf`).

use std::collections::BTreeSet;

use crate::error::{Error, Layer, Result};
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registration::driver_database::ROOT;
use crate::windows::registry;

/// Highest number of an `oemN.inf` that we take.
const OEM_MAX: usize = 4096;

/// Marks number `n` in an `OemInfMap`: one bit for each number, the first one highest.
#[must_use]
pub(super) fn mark_oem(map: &[u8], n: usize) -> Vec<u8> {
    let mut out = map.to_vec();
    if out.len() <= n / 8 {
        out.resize(n / 8 + 1, 0);
    }
    if let Some(byte) = out.get_mut(n / 8) {
        *byte |= 0x80 >> (n % 8);
    }
    out
}

/// An `OemInfMap` without the mark of number `n`, and without the zeros at its end that the mark had needed.
#[must_use]
pub(crate) fn unmark_oem(map: &[u8], n: usize) -> Vec<u8> {
    let mut out = map.to_vec();
    if let Some(byte) = out.get_mut(n / 8) {
        *byte &= !(0x80 >> (n % 8));
    }
    let is_last = out.len() == n / 8 + 1;
    while is_last && out.last() == Some(&0) {
        out.pop();
    }
    out
}

/// Whether number `n` is marked.
fn is_marked(map: &[u8], n: usize) -> bool {
    map.get(n / 8).is_some_and(|byte| byte & (0x80 >> (n % 8)) != 0)
}

/// The number of `oemN.inf`.
pub(crate) fn oem_number(oem: &str) -> Option<usize> {
    oem.to_ascii_lowercase().strip_prefix("oem")?.strip_suffix(".inf")?.parse().ok()
}

/// The `oemN.inf` under which a package, or an earlier version of it, was registered by us; else the first free one.
pub(super) fn oem_name(
    builder: &PlanBuilder<'_>,
    package: &str,
    earlier: Vec<String>,
    taken: &mut BTreeSet<usize>,
) -> Result<(String, usize)> {
    let map =
        registry::get_value(builder.hive(GuestHive::System)?, ROOT, "OemInfMap")?.map(|d| d.bytes).unwrap_or_default();
    let hives = [GuestHive::System, GuestHive::Drivers];
    let mut known = Vec::new();
    for file in hives.into_iter().filter(|file| builder.has_hive(*file)) {
        known.extend(registry::get_string(builder.hive(file)?, &format!("{ROOT}\\DriverPackages\\{package}"), "")?);
    }
    known.extend(earlier);
    for oem in known {
        if let Some(number) = oem_number(&oem).filter(|number| !taken.contains(number)) {
            taken.insert(number);
            return Ok((oem, number));
        }
    }
    for number in 0..OEM_MAX {
        let name = format!("oem{number}.inf");
        if is_marked(&map, number) || taken.contains(&number) {
            continue;
        }
        let mut is_free = !builder.exists(&format!("{}/INF/{name}", builder.guest.windows_dir))?;
        for file in hives.into_iter().filter(|file| builder.has_hive(*file)) {
            let key = format!("{ROOT}\\DriverInfFiles\\{name}");
            is_free &= registry::find_key(builder.hive(file)?, &key)?.is_none();
        }
        if is_free {
            taken.insert(number);
            return Ok((name, number));
        }
    }
    Err(Error::refused(Layer::Windows, "the guest has no free oemN.inf")
        .hint("remove unused driver packages in the guest with pnputil /delete-driver"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_of_oem_numbers() {
        // real hives: e0 with oem0 to oem2 in use, fffc with oem0 to oem13
        assert!(is_marked(&[0xe0], 2) && !is_marked(&[0xe0], 3));
        assert!(is_marked(&[0xff, 0xfc], 13) && !is_marked(&[0xff, 0xfc], 14));
        assert_eq!(mark_oem(&[0xe0], 3), [0xf0]);
        assert_eq!(mark_oem(&[0xff], 8), [0xff, 0x80]);
        assert_eq!(mark_oem(&[], 0), [0x80]);
        assert_eq!(unmark_oem(&[0xf0], 3), [0xe0]);
        assert_eq!(unmark_oem(&[0xff, 0x80], 8), [0xff]);
        assert_eq!(unmark_oem(&[0x80], 0), [0u8; 0]);
        assert_eq!(unmark_oem(&[0xff], 8), [0xff]);
    }
}
