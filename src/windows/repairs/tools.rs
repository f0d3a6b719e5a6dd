//! Disables the tools of a former hypervisor: what Windows would start in vain, and filters on devices of the new machine.

use std::collections::BTreeMap;

use super::filters::{FilterList, lists_naming};
use super::hypervisor::Hypervisor;
use super::options::RepairOptions;
use super::uninstaller;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::first_boot::description::Step;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{DisabledService, RemovedFilter, RepairRecord};
use crate::windows::registry;

/// `SERVICE_DISABLED`.
const DISABLED: u32 = 4;
/// `SERVICE_DEMAND_START`: from here on Windows does not start a service by itself.
const ON_DEMAND: u32 = 3;
/// Most services of a control set whose dependencies are read.
const SERVICES_MAX: usize = 20_000;

/// Disables what the options name, and finds the uninstallers. A driver stays that a disk may hang on, on which another
/// service depends, or that stays in a list of filters.
///
/// # Errors
/// When a hive or the volume is damaged.
pub fn remove_tools(builder: &mut PlanBuilder<'_>, options: &RepairOptions, record: &mut RepairRecord) -> Result<()> {
    let is_asked = |hypervisor: &Hypervisor| options.remove_tools_found || options.remove_tools.contains(hypervisor);
    let chosen: Vec<Hypervisor> = Hypervisor::ALL.into_iter().filter(is_asked).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let sets = builder.guest.control_set_names();
    let mut is_any_found = false;
    for hypervisor in chosen {
        let before = record.clone();
        for set in &sets {
            disable(builder, hypervisor, set, record)?;
        }
        uninstaller::find(builder, hypervisor, record)?;
        is_any_found |= *record != before;
        if *record == before && !options.remove_tools_found {
            builder.add_note(format!("{hypervisor}: none of its tools start in this guest, and none are installed"));
        }
    }
    for uninstaller in &record.uninstallers {
        builder.add_job_step(Step::Run(uninstaller::step(uninstaller)));
    }
    if !is_any_found && options.remove_tools_found {
        builder.add_note("no tools of a former hypervisor start in this guest, and none are installed");
    }
    for item in &record.left {
        builder.add_note(item.as_str());
    }
    Ok(())
}

/// What of a control set decides whether a service can be disabled.
struct Needs {
    /// Lists that name one of the services.
    lists: Vec<FilterList>,
    /// Services on which others depend that may be started: in lower case, with one of those others.
    depended_on: BTreeMap<String, String>,
}

impl Needs {
    /// Of the dependencies those count that do not go with the tools.
    fn read(builder: &PlanBuilder<'_>, set: &str, names: &[&str]) -> Result<Self> {
        let hive = builder.hive(GuestHive::System)?;
        let lists = lists_naming(builder, set, names)?;
        let mut depended_on = BTreeMap::new();
        let services = format!("{set}\\Services");
        for other in registry::subkey_names(hive, &services)?.into_iter().take(SERVICES_MAX) {
            let key = format!("{services}\\{other}");
            let goes = names.iter().any(|name| name.eq_ignore_ascii_case(&other));
            if goes || registry::get_u32(hive, &key, "Start")?.is_none_or(|start| start >= DISABLED) {
                continue;
            }
            for service in registry::get_strings(hive, &key, "DependOnService")? {
                depended_on.entry(service.folded()).or_insert_with(|| other.clone());
            }
        }
        Ok(Self { lists, depended_on })
    }

    /// Why a service may be needed by something that stays; `is_taken_out`: it leaves the lists.
    fn reason_to_stay(
        &self,
        builder: &PlanBuilder<'_>,
        key: &str,
        service: &str,
        is_taken_out: bool,
    ) -> Result<Option<String>> {
        let group = builder.system_string(key, "Group")?.unwrap_or_default();
        if group.eq_ignore_ascii_case("SCSI miniport") {
            return Ok(Some("a disk may hang on it".to_owned()));
        }
        if let Some(other) = self.depended_on.get(&service.folded()) {
            return Ok(Some(format!("the service {other} depends on it")));
        }
        let list = self.lists.iter().find(|list| list.lists(service) && !is_taken_out);
        Ok(list.map(|list| format!("{} lists it", list.place())))
    }
}

/// Disables the tools of one hypervisor in one control set.
fn disable(builder: &mut PlanBuilder<'_>, hypervisor: Hypervisor, set: &str, record: &mut RepairRecord) -> Result<()> {
    let tools = hypervisor.tools();
    let names: Vec<&str> = tools.programs.iter().chain(tools.filters).copied().collect();
    let needs = Needs::read(builder, set, &names)?;
    let mut removable = Vec::new();
    for filter in tools.filters {
        match needs.lists.iter().find(|list| list.lists(filter) && !list.can_be_written()) {
            Some(list) => {
                record.leave(format!("{hypervisor}: the filter {filter} stays: {} is not a list", list.place()));
            }
            None => removable.push(*filter),
        }
    }
    for list in &needs.lists {
        take_out(builder, hypervisor, list, &removable, record)?;
    }
    for service in tools.programs.iter().chain(&removable) {
        disable_service(builder, hypervisor, set, service, &needs, removable.contains(service), record)?;
    }
    let mut staying = Vec::new();
    for service in tools.devices {
        let key = format!("{set}\\Services\\{service}");
        if registry::get_value(builder.hive(GuestHive::System)?, &key, "Start")?.is_some() {
            staying.push(*service);
        }
    }
    if !staying.is_empty() {
        let names = staying.join(", ");
        record.leave(format!("{hypervisor}: the drivers of its devices stay, a disk may hang on one of them: {names}"));
    }
    Ok(())
}

/// Takes filters out of a list; what else it names stays in its order.
fn take_out(
    builder: &mut PlanBuilder<'_>,
    hypervisor: Hypervisor,
    list: &FilterList,
    filters: &[&str],
    record: &mut RepairRecord,
) -> Result<()> {
    let listed: Vec<&str> = filters.iter().copied().filter(|filter| list.lists(filter)).collect();
    if listed.is_empty() {
        return Ok(());
    }
    builder.set_reason(format!("{hypervisor}: {} is taken out of the list of filters", listed.join(", ")));
    // The list is that of the guest, and another hypervisor may have lost filters in it.
    let earlier = record.filters.iter().filter(|removed| removed.list == list.place());
    let gone: Vec<&str> = earlier.map(|removed| removed.filter.as_str()).chain(listed.iter().copied()).collect();
    builder.replace_value(GuestHive::System, &list.key, list.name, list.without(&gone))?;
    for filter in listed {
        record.filters.push(RemovedFilter {
            hypervisor: hypervisor.to_string(),
            filter: filter.to_owned(),
            list: list.place(),
        });
    }
    Ok(())
}

/// Disables one service: a program only where it would start by itself, a filter in any case.
fn disable_service(
    builder: &mut PlanBuilder<'_>,
    hypervisor: Hypervisor,
    set: &str,
    service: &str,
    needs: &Needs,
    is_filter: bool,
    record: &mut RepairRecord,
) -> Result<()> {
    let system = GuestHive::System;
    let key = format!("{set}\\Services\\{service}");
    let Some(start) = registry::get_u32(builder.hive(system)?, &key, "Start")? else { return Ok(()) };
    let harmless_from = if is_filter { DISABLED } else { ON_DEMAND };
    if start >= harmless_from && builder.earlier_replacement(system, &key, "Start")?.is_none() {
        return Ok(());
    }
    if let Some(reason) = needs.reason_to_stay(builder, &key, service, is_filter)? {
        record.leave(format!("{hypervisor}: {service} stays: {reason} ({set})"));
        return Ok(());
    }
    builder.set_reason(if is_filter {
        format!("{hypervisor}: the filter {service} goes with its entries in lists")
    } else {
        format!("{hypervisor}: {service} would start in vain on another hypervisor")
    });
    let action = builder.replace_value(system, &key, "Start", Some(RegistryData::dword(DISABLED)))?;
    let (hypervisor, service, control_set) = (hypervisor.to_string(), service.to_owned(), set.to_owned());
    record.services.push(DisabledService { hypervisor, service, control_set, action });
    Ok(())
}
