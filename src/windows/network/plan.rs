//! Plans that the new adapters get the settings of the former ones: steps of the first-boot job.

use super::adapter::Network;
use super::choose::{KeptAdapter, KeptNetwork, choose_adapters};
use super::record::{KeptAdapterRecord, NetworkRecord};
use super::release::{CONNECTION_NAME, release};
use super::values::EarlierValues;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::plan::saved::is_former_connection;
use crate::windows::first_boot;
use crate::windows::first_boot::description::{NetworkStep, RunStep, Step};
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::{PlanBuilder, ReplacedValue};

/// How long an adapter is waited for: its driver is installed in the same job.
const ADAPTER_SECONDS: u32 = 300;
/// How long the adapter is waited for once more, to restore its name.
const NAME_SECONDS: u32 = 10;
/// Time limit for the command that sets a DNS suffix.
const SUFFIX_SECONDS: u32 = 120;
/// First Windows build that comes without `WMIC.exe` (11 24H2, Server 2025).
const BUILD_WITHOUT_WMIC: u32 = 26_100;

/// First Windows build whose `netsh` knows `dnsservers` and `validate` (7, Server 2008 R2).
const BUILD_DNSSERVERS: u32 = 7600;

/// Adds the steps that give adapters their settings, if that is asked for.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind::Usage) when `--mac` names an adapter that the guest does not have.
pub fn keep_network(builder: &mut PlanBuilder<'_>, options: &InjectOptions) -> Result<NetworkRecord> {
    let mut record = NetworkRecord::default();
    let ended = first_boot::ended(builder, &options.first_boot)?;
    if !options.network.keep {
        if ended.is_none() && has_former_connections(builder)? {
            builder.add_warning(
                "former connections keep the names that an earlier run with --keep-network gave them, and nothing gives the new \
                 ones their settings: give --keep-network again, or winject remove IMAGE first",
            );
        }
        return Ok(record);
    }
    if let Some(what) = ended {
        builder.add_warning(format!(
            "network settings are not kept: the first-boot job {what} in this guest already; --rearm lets it run again"
        ));
        return Ok(record);
    }
    let network = network_before(builder)?;
    let mut kept = choose_adapters(&network, &options.network)?;
    if first_boot::is_script(builder, &options.first_boot) {
        leave_unspellable_names(builder, &mut kept);
    }
    release(builder, &kept)?;
    record.released = kept.released.iter().map(|(_, label)| label.clone()).collect();
    for note in kept.notes {
        builder.add_note(note);
    }
    for warning in kept.warnings {
        builder.add_warning(warning);
    }
    for adapter in kept.adapters {
        builder.add_note(format!(
            "the network settings of {:?} go to the adapter with MAC address {} at the first boot",
            adapter.name, adapter.mac
        ));
        add_steps(builder, &adapter);
        record.kept.push(KeptAdapterRecord::of(&adapter));
    }
    Ok(record)
}

/// Leaves names alone that a batch file cannot hold: one that is freed and not given to the new connection is lost.
fn leave_unspellable_names(builder: &mut PlanBuilder<'_>, kept: &mut KeptNetwork) {
    for adapter in &mut kept.adapters {
        if adapter.rename.take_if(|command| !command.is_ascii()).is_some() {
            builder.add_warning(format!(
                "the new connection does not get the name {:?}: a script can hold names in ASCII only, and the former one keeps \
                 it; --firstboot-method service has no such limit",
                adapter.name
            ));
        }
    }
}

/// Whether connections have the names that an earlier run gave them.
fn has_former_connections(builder: &PlanBuilder<'_>) -> Result<bool> {
    let is_name = |value: &ReplacedValue| {
        let name = value.data.as_ref().and_then(RegistryData::as_text);
        value.hive == GuestHive::System
            && value.name.eq_ignore_ascii_case(CONNECTION_NAME)
            && name.is_some_and(|name| is_former_connection(&name))
    };
    Ok(builder.earlier_replaced()?.iter().any(is_name))
}

/// The settings as they were before earlier runs of winject replaced any of them.
fn network_before(builder: &PlanBuilder<'_>) -> Result<Network> {
    let mut earlier = EarlierValues::default();
    for value in builder.earlier_replaced()?.into_iter().filter(|value| value.hive == GuestHive::System) {
        earlier.add(&value.key, &value.name, value.before);
    }
    let set = builder.guest.current_control_set();
    Ok(Network::read_before(builder.hive(GuestHive::System)?, set, &earlier))
}

fn add_steps(builder: &mut PlanBuilder<'_>, adapter: &KeptAdapter) {
    let KeptAdapter { name, mac, commands, rename, dns_suffix, .. } = adapter;
    let build = builder.guest.build;
    let step = |seconds, name: String, commands: &[String]| {
        let commands = commands.iter().map(|command| spell_for(build, command)).collect();
        Step::Network(NetworkStep { mac: mac.to_string(), seconds, name, commands })
    };
    if !commands.is_empty() {
        builder.add_job_step(step(ADAPTER_SECONDS, name.clone(), commands));
    }
    // A step of its own: when Windows refuses the name, the settings still count as made.
    if let Some(rename) = rename {
        let seconds = if commands.is_empty() { ADAPTER_SECONDS } else { NAME_SECONDS };
        builder.add_job_step(step(seconds, format!("{name} (name)"), std::slice::from_ref(rename)));
    }
    let Some(suffix) = dns_suffix else { return };
    if builder.guest.build >= BUILD_WITHOUT_WMIC {
        builder.add_warning(format!(
            "the DNS suffix {suffix} of {name:?} is not restored: this Windows has no program that a job can rely on for it"
        ));
        return;
    }
    let system = "%SystemRoot%\\System32";
    // WMIC ends with 0 whatever comes of the call; its answer tells.
    let command = format!(
        "{system}\\cmd.exe /d /c \"{system}\\wbem\\WMIC.exe nicconfig where MACAddress='{mac}' call SetDNSDomain {suffix} \
         <nul | {system}\\findstr.exe ReturnValue.=.0\""
    );
    builder.add_job_step(Step::Run(RunStep::optional(format!("DNS suffix {suffix}"), SUFFIX_SECONDS, command)));
}

/// The command as the `netsh` of this build takes it.
fn spell_for(build: u32, command: &str) -> String {
    if build >= BUILD_DNSSERVERS {
        return command.to_owned();
    }
    command.replace(" dnsservers ", " dnsserver ").replace(" validate=no", "")
}
