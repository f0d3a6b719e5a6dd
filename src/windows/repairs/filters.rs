//! Lists of filter drivers: of the device classes, and of single devices.

use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registry;

/// Most classes, and most devices, whose lists are read.
const LISTS_MAX: usize = 200_000;

/// A value that lists filters, among them some that are looked for.
#[derive(Debug, Clone)]
pub(super) struct FilterList {
    /// The key, from the root of SYSTEM.
    pub(super) key: String,
    /// `UpperFilters` or `LowerFilters`.
    pub(super) name: &'static str,
    data: RegistryData,
    texts: Vec<String>,
}

impl FilterList {
    /// Whether it lists this filter.
    pub(super) fn lists(&self, filter: &str) -> bool {
        self.texts.iter().any(|text| text.eq_ignore_ascii_case(filter))
    }

    /// Key and value as one place.
    pub(super) fn place(&self) -> String {
        format!("{} : {}", self.key, self.name)
    }

    /// Whether the list can be written again without a change to its other entries.
    pub(super) fn can_be_written(&self) -> bool {
        let is_exact = |text: &String| !text.contains(char::REPLACEMENT_CHARACTER);
        self.texts.iter().all(is_exact)
            && (RegistryData::multi_sz(&self.texts) == self.data
                || (self.texts.len() == 1 && self.data.as_text().is_some()))
    }

    /// The list without these filters; `None` if nothing is left of it.
    pub(super) fn without(&self, filters: &[&str]) -> Option<RegistryData> {
        let is_other = |text: &&String| !filters.iter().any(|filter| text.eq_ignore_ascii_case(filter));
        let left: Vec<&String> = self.texts.iter().filter(is_other).collect();
        (!left.is_empty()).then(|| RegistryData::multi_sz(&left))
    }
}

/// The lists of one control set that name one of `filters`: of its classes, and of its devices. The order is that of the
/// hive.
///
/// # Errors
/// When the hive is damaged.
pub(super) fn lists_naming(builder: &PlanBuilder<'_>, set: &str, filters: &[&str]) -> Result<Vec<FilterList>> {
    let hive = builder.hive(GuestHive::System)?;
    let mut out = Vec::new();
    let mut count = 0usize;
    let class = format!("{set}\\Control\\Class");
    let devices = format!("{set}\\Enum");
    // a device is three keys below `Enum`: bus, device, instance
    let mut pending: Vec<(String, usize)> = vec![(devices, 3), (class, 1)];
    while let Some((key, depth)) = pending.pop() {
        count += 1;
        if count > LISTS_MAX {
            break;
        }
        if depth == 0 {
            for name in ["UpperFilters", "LowerFilters"] {
                let Some(data) = registry::get_value(hive, &key, name)? else { continue };
                let list = FilterList { key: key.clone(), name, texts: data.to_texts(), data };
                if filters.iter().any(|filter| list.lists(filter)) {
                    out.push(list);
                }
            }
            continue;
        }
        let below = registry::subkey_names(hive, &key)?;
        pending.extend(below.into_iter().rev().map(|name| (format!("{key}\\{name}"), depth - 1)));
    }
    Ok(out)
}
