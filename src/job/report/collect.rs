//! Fills the report from the results of the layers.

use super::fields::{
    Artifact, BcdChanges, Choice, DiskFacts, DriverFound, Failure, FileCopied, Report, Run, SCHEMA, SetupScript,
    VERSION, WindowsFacts, WindowsPaths,
};
use super::recommend::is_signed;
use crate::block::Format;
use crate::block::commit::Committed;
use crate::drivers::{Arch, Package, Selection};
use crate::job::bitlocker_start::BitLockerStart;
use crate::job::log_replay::LogReplayRecord;
use crate::job::request::{Destination, InjectRequest};
use crate::partition::{Partition, PartitionTable};
use crate::plan::{Change, GuestHive, Plan};
use crate::windows::Guest;
use crate::windows::{Action, Code, Level, Record};

/// What a run warns of at the links of the boot chain before Windows' own drivers: the plan says the rest.
const WARNED_OF: [Code; 4] = [Code::DuplicateDiskId, Code::NoFallbackLoader, Code::NoBootManager, Code::BcdDirty];

impl Report {
    /// The report of a run that has not begun yet: what was asked for.
    #[must_use]
    pub fn of_request(request: &InjectRequest) -> Self {
        let dry_run = request.destination == Destination::DryRun;
        let mut report = Self {
            schema: SCHEMA,
            version: VERSION,
            run: Run {
                tool: format!("winject {}", env!("CARGO_PKG_VERSION")),
                time: request.clock.to_string(),
                image: request.image.display().to_string(),
                mode: request.destination.mode(),
                output_format: match &request.destination {
                    Destination::Overlay(_) => Some(Format::Qcow2),
                    Destination::Standalone { format, .. } => Some(*format),
                    Destination::InPlace | Destination::DryRun => None,
                },
                dry_run,
                ..Run::default()
            },
            image_files: vec![request.image.clone()],
            ..Self::default()
        };
        report.virtio.dry_run = dry_run;
        report.virtio.force_overwrite = request.options.force;
        report.virtio.virtio_dir = request.drivers.iter().map(|path| path.display().to_string()).collect();
        report.virtio.registry_changes.dry_run = dry_run;
        report.virtio.bcd_changes = BcdChanges {
            stores: Vec::new(),
            notes: vec!["the boot configuration names disks by signature or GPT id, which stay as they are".into()],
            ..BcdChanges::default()
        };
        report
    }

    /// Adds which of several disks is the image, and which ones are only read.
    pub(crate) fn add_disks(&mut self, request: &InjectRequest) {
        self.run.image = request.image.display().to_string();
        self.run.other_disks = request.other_disks.iter().map(|path| path.display().to_string()).collect();
    }

    /// Adds what the boot check says of the firmware, of what it starts, and of several disks.
    pub(crate) fn add_boot_disks(&mut self, image: &str) {
        let Some(answer) = self.boot.first() else { return };
        if let Some(machine) = &mut self.recommendation {
            machine.set_firmware(answer.firmware);
        }
        let shown = answer.findings.iter().filter(|finding| WARNED_OF.contains(&finding.code));
        let shown = shown.filter(|finding| matches!(finding.level, Level::NotJudged | Level::Warning));
        self.virtio.warnings.extend(shown.map(|finding| finding.text.clone()));
        let Some(start) = &answer.start_disk else { return };
        let note = format!("start the machine from {start} (the first disk in its boot order), not from {image}");
        match &mut self.recommendation {
            Some(machine) => machine.notes.push(note),
            None => self.virtio.notes.push(note),
        }
    }

    /// Adds what is known once Windows is found.
    pub(crate) fn add_guest(&mut self, size: u64, table: &PartitionTable, partition: &Partition, guest: &Guest) {
        let disk = DiskFacts { size, scheme: table.scheme, sector: table.sector, partition: partition.clone() };
        self.disk = Some(disk);
        self.bitlocker = partition.bitlocker.as_ref().and_then(BitLockerStart::of);
        if let Some(start) = &self.bitlocker {
            let texts = if start.asks_for_key { &mut self.virtio.warnings } else { &mut self.virtio.notes };
            texts.push(format!("BitLocker: {}", start.first_start));
        }
        self.virtio.warnings.extend(table.warnings.iter().chain(&guest.warnings).cloned());
        self.virtio.windows = Some(windows_facts(guest));
        self.virtio.windows_paths = Some(windows_paths(guest));
        self.virtio.registry_changes.replayed.clone_from(&guest.replayed);
    }

    /// Adds the replay of the volume's log, if there is one.
    pub(crate) fn add_log_replay(&mut self, replay: Option<LogReplayRecord>) {
        self.log_replay = replay;
    }

    /// Adds what is known once the drivers are chosen.
    pub(crate) fn add_selection(&mut self, guest: &Guest, selection: &Selection) {
        let release = guest.target().release();
        self.virtio.plan = Some(Choice {
            release: release.key.to_owned(),
            arch_dir: guest.arch.store_name().to_owned(),
            bucket_hint: selection.buckets.first().cloned(),
            candidates: selection.buckets.clone(),
            drivers_needed: selection.boot_packages().map(|(_, boot)| boot.service.clone()).collect(),
        });
        self.virtio.drivers_found = selection.packages.iter().map(driver_found).collect();
        self.virtio.skipped.clone_from(&selection.skipped);
        self.virtio.warnings.extend(selection.warnings.iter().cloned());
    }

    /// Adds what is known once the plan is made.
    pub(crate) fn add_plan(&mut self, guest: &Guest, plan: Plan, record: Record) {
        let virtio = &mut self.virtio;
        virtio.setup_script = setup_script(&record);
        virtio.files_copied =
            record.files_copied.into_iter().map(|file| FileCopied { file, guest_sha256: None }).collect();
        virtio.packages_staged = record.packages_staged;
        virtio.registry_changes.record = record.registry_changes;
        virtio.devicepath_changes.record = record.devicepath_changes;
        virtio.firstboot.record = record.firstboot;
        virtio.bcd_changes.elements = record.boot.elements;
        virtio.bcd_changes.files = record.boot.files;
        virtio.network = record.network;
        virtio.repairs = record.repairs;
        virtio.extras = record.extras;
        self.add_changes(guest, plan);
    }

    /// Adds the edits of a plan, wherever it comes from.
    pub(crate) fn add_changes(&mut self, guest: &Guest, plan: Plan) {
        let virtio = &mut self.virtio;
        virtio.unchanged = plan.is_empty();
        virtio.warnings.extend(plan.warnings.iter().cloned());
        virtio.notes.extend(plan.notes.iter().cloned());
        virtio.artifacts = artifacts(&plan);
        let store = plan.boot.as_ref().filter(|_| plan.of_hive(GuestHive::Bcd).next().is_some());
        virtio.bcd_changes.stores = store.into_iter().map(|boot| boot.store.clone()).collect();
        virtio.registry_changes.registry_modified = plan.steps.iter().any(|step| step.change.hive().is_some());
        virtio.registry_changes.hive_path = guest.local_path(&plan.hive_path(GuestHive::System));
        self.changes = Some(plan);
        self.drop_repetitions();
    }

    /// Removes repeated warnings and notes: several layers may see the same fact.
    fn drop_repetitions(&mut self) {
        for list in [&mut self.virtio.warnings, &mut self.virtio.notes] {
            let mut seen = std::collections::HashSet::new();
            list.retain(|text| seen.insert(text.clone()));
        }
    }

    /// Has `complete` complete the commands in the texts that can hold one: it knows how the image is opened.
    pub(crate) fn complete_commands(&mut self, complete: &dyn Fn(&str) -> String) {
        let hint = self.error.as_mut().and_then(|error| error.hint.as_mut());
        let left = self.removal.iter_mut().flat_map(|removal| &mut removal.left).map(|item| &mut item.reason);
        let virtio = &mut self.virtio;
        let of_run = self.run.output_notes.iter_mut().chain(&mut self.run.undo);
        let texts = virtio.warnings.iter_mut().chain(&mut virtio.notes).chain(of_run).chain(hint).chain(left);
        texts.for_each(|text| *text = complete(text));
    }

    /// Adds what a commit wrote.
    pub(crate) fn add_commit(&mut self, committed: Committed) {
        self.run.output = Some(committed.path.display().to_string());
        self.virtio.warnings.extend(committed.warnings);
        self.virtio.notes.extend(committed.notes.iter().cloned());
        self.run.output_notes = committed.notes;
        self.run.undo = committed.undo_command;
    }

    /// Marks everything as done and verified, after it has been; also what was found done.
    pub fn succeed(&mut self) {
        let virtio = &mut self.virtio;
        if self.removal.is_some() {
            virtio.success = true;
            return;
        }
        virtio.injected = !virtio.registry_changes.record.services.is_empty() || self.boot.iter().any(|b| b.boots);
        virtio.success = true;
        virtio.registry_changes.success = true;
        virtio.devicepath_changes.success = true;
        virtio.firstboot.success = virtio.firstboot.record.skipped.is_none();
        let services = virtio.registry_changes.record.services.iter().map(|service| service.service.clone());
        let mut services: Vec<String> = services.collect();
        services.sort_unstable();
        services.dedup();
        virtio.registry_changes.verified_services = services;
        for file in &mut virtio.files_copied {
            if file.file.action != Action::Kept {
                file.guest_sha256 = Some(file.file.sha256.clone());
            }
        }
    }

    /// Marks the run as failed with this error.
    pub(crate) fn fail(&mut self, error: &crate::Error) {
        let failure = Failure::from(error);
        self.virtio.injected = false;
        self.virtio.success = false;
        self.virtio.reason = Some(reason(error, self));
        self.virtio.registry_changes.success = false;
        self.virtio.registry_changes.verification_errors =
            (error.kind() == crate::Kind::Verify).then(|| failure.message.clone()).into_iter().collect();
        self.virtio.firstboot.success = false;
        self.virtio.devicepath_changes.success = false;
        self.summary = format!("Nothing was written: {}", failure.message);
        self.error = Some(failure);
    }
}

/// The word for programs, in the vocabulary that readers of such reports know.
fn reason(error: &crate::Error, report: &Report) -> &'static str {
    use crate::Kind;
    match error.kind() {
        Kind::Drivers if report.virtio.virtio_dir.is_empty() => "virtio_drivers_dir_not_set",
        Kind::Drivers if report.virtio.plan.is_none() && report.virtio.windows.is_none() => {
            "virtio_drivers_dir_not_found"
        }
        Kind::Drivers => "no_drivers_found",
        Kind::NotWindows => "not_windows",
        Kind::Verify => "verification_failed",
        Kind::Refused => "refused",
        Kind::Unsupported => "unsupported",
        Kind::Damaged => "damaged",
        Kind::Io => "io",
        Kind::Pending => "pending",
        Kind::Stale => "stale",
        Kind::Cancelled => "cancelled",
        Kind::Usage => "usage",
        Kind::Bug => "bug",
    }
}

fn windows_paths(guest: &Guest) -> WindowsPaths {
    let path = |path: &str| guest.local_path(path);
    WindowsPaths {
        windows_dir: path(&guest.windows_dir),
        system32_dir: path(&guest.system32()),
        drivers_dir: path(&guest.drivers_dir()),
        config_dir: path(&guest.config_dir()),
        temp_dir: path(&format!("{}/Temp", guest.windows_dir)),
        system_hive: path(&format!("{}/SYSTEM", guest.config_dir())),
        software_hive: path(&format!("{}/SOFTWARE", guest.config_dir())),
    }
}

fn windows_facts(guest: &Guest) -> WindowsFacts {
    WindowsFacts {
        product_name: guest.product_name.clone(),
        product: guest.product.clone(),
        edition: guest.edition.clone(),
        installation_type: guest.installation_type.clone(),
        product_type: guest.product_type,
        display_version: guest.display_version.clone(),
        build: guest.build,
        major: guest.major,
        minor: guest.minor,
        bits: if guest.arch == Arch::X86 { 32 } else { 64 },
        arch: guest.arch,
        distro: "windows",
        osinfo_id: osinfo_id(guest.target().release().key),
    }
}

/// The ids of libosinfo's database: `win10`, `win2k22`.
fn osinfo_id(release: &str) -> String {
    let id = match release {
        "windows_xp" | "windows_xp_x64" => "winxp",
        "windows_vista" => "winvista",
        "windows_7" => "win7",
        "windows_8" => "win8",
        "windows_8_1" => "win8.1",
        "windows_10" => "win10",
        "windows_11" => "win11",
        "server_2003" => "win2k3",
        "server_2008" => "win2k8",
        "server_2008_r2" => "win2k8r2",
        "server_2012" => "win2k12",
        "server_2012_r2" => "win2k12r2",
        "server_2016" => "win2k16",
        "server_2019" => "win2k19",
        "server_2022" => "win2k22",
        "server_2025" => "win2k25",
        _ => "winnt",
    };
    id.to_owned()
}

fn driver_found(package: &Package) -> DriverFound {
    let boot = package.boot.as_ref();
    let service = boot
        .map(|boot| boot.service.clone())
        .or_else(|| package.inf.function_service().map(|service| service.name.clone()));
    let start = boot.map(|boot| boot.start).or_else(|| package.inf.function_service().map(|service| service.start));
    let version = package.inf.driver_version;
    let dotted = version.map(|part| part.to_string()).join(".");
    let signature = boot.map_or(&package.signature, |boot| &boot.signature);
    let signed = is_signed(package);
    DriverFound {
        name: package.driver.clone(),
        category: package.category.to_string(),
        src_path: package.source_path.clone(),
        dest_name: boot.map(|boot| boot.file_name.clone()),
        start_type: start,
        service_name: service,
        pci_ids: package.inf.hardware_ids().into_iter().map(str::to_owned).collect(),
        class_guid: Some(package.inf.class_guid.braced()),
        package_dir: package.source_path.clone(),
        inf_path: if package.inf_name.is_empty() {
            String::new()
        } else {
            format!("{}/{}", package.source_path, package.inf_name)
        },
        bucket_used: package.bucket.clone(),
        reason: package.reason.clone(),
        driver_version: (version != [0; 4]).then_some(dotted),
        driver_date: Some(package.inf.driver_date_text.clone()).filter(|date| !date.is_empty()),
        signed,
        signer: signature.signer.clone().filter(|_| signed),
    }
}

fn artifacts(plan: &Plan) -> Vec<Artifact> {
    let written = plan.steps.iter().filter_map(|step| match &step.change {
        Change::WriteFile { path, content, .. } => Some((path, content)),
        _ => None,
    });
    written
        .map(|(path, content)| Artifact {
            kind: if plan.uploads.contains(path) { "upload" } else { artifact_kind(&path.to_ascii_lowercase()) },
            path: path.clone(),
            size: content.size(),
            sha256: content.sha256(),
        })
        .collect()
}

fn artifact_kind(path: &str) -> &'static str {
    match path {
        "/hyper2kvm/setup.cmd" => "setup_cmd",
        "/hyper2kvm/firstboot.cmd" => "firstboot_cmd",
        "/hyper2kvm/firstboot.job" => "firstboot_job",
        "/hyper2kvm/hyper2kvm-firstboot.exe" => "firstboot_program",
        "/hyper2kvm/manifest.json" => "manifest",
        _ if path.starts_with("/hyper2kvm/drivers/") => "staged_payload",
        _ if path.starts_with("/hyper2kvm/firstboot.d/") => "firstboot_script",
        _ if path.starts_with("/hyper2kvm/guest-agent/") => "guest_agent",
        _ if path.contains("/system32/drivers/") => "driver_sys",
        _ if path.contains("/driverstore/") => "driver_store",
        _ if path.contains("/catroot/") => "catalog",
        _ => "other",
    }
}

fn setup_script(record: &Record) -> Option<SetupScript> {
    let content = record.setup_script.clone();
    (!content.is_empty()).then(|| SetupScript { path: "C:\\hyper2kvm\\setup.cmd".to_owned(), content })
}
