//! `--firstboot` and `--guest-agent`: what the first-boot job runs after drivers and network.
//!
//! Each is a step of its own with its own log and time limit, and optional: one that fails stops neither the others nor the
//! job. The files lie in winject's own folder, where only the system and administrators may write, because they run as the
//! system.

use std::path::Path;

use super::options::ExtrasOptions;
use super::script_file::{ScriptFile, ScriptKind};
use crate::drivers::{PackageFile, Selection};
use crate::error::{Error, Kind, Layer, Result};
use crate::plan::{Access, Content};
use crate::windows::first_boot::description::{RunStep, Step};
use crate::windows::guest_paths::{FIRSTBOOT_SCRIPTS, GUEST_AGENT};
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{FileRecord, Record, ScriptRecord};

/// Most scripts of one run: their numbers have two digits.
const SCRIPTS_MAX: usize = 99;
/// Longest time limit of a script, in seconds: a day.
const SECONDS_MAX: u32 = 86_400;
/// Longest name that a script keeps, without its number.
const NAME_MAX: usize = 100;
/// Time limit for the guest agent, in seconds.
const AGENT_SECONDS: u32 = 600;

/// Plans the guest agent and the scripts, in this order.
///
/// # Errors
/// [`Kind::Usage`] for a file that cannot be used; when the volume is damaged there.
pub fn plan_scripts(
    builder: &mut PlanBuilder<'_>,
    selection: &Selection,
    options: &ExtrasOptions,
    record: &mut Record,
) -> Result<()> {
    if let Some(agent) = &selection.guest_agent {
        plan_guest_agent(builder, selection, agent, record)?;
    }
    let (count, seconds) = (options.scripts.len(), options.script_seconds);
    if count > SCRIPTS_MAX {
        return Err(Error::new(Kind::Usage, Layer::Windows, "cannot run so many first-boot scripts")
            .expected_found(format_args!("at most {SCRIPTS_MAX}"), count)
            .hint("let one script call the others; --upload puts them into the guest"));
    }
    if !(1..=SECONDS_MAX).contains(&seconds) {
        return Err(Error::new(Kind::Usage, Layer::Windows, "cannot use the time limit of the first-boot scripts")
            .expected_found(format_args!("1 to {SECONDS_MAX} seconds"), seconds)
            .hint("--firstboot-timeout takes seconds, for instance 600"));
    }
    for (index, path) in options.scripts.iter().enumerate() {
        plan_script(builder, index + 1, path, seconds, record)?;
    }
    Ok(())
}

fn plan_script(
    builder: &mut PlanBuilder<'_>,
    number: usize,
    path: &Path,
    seconds: u32,
    record: &mut Record,
) -> Result<()> {
    let ScriptFile { kind, content, converted } = ScriptFile::read(path, builder.guest.arch)?;
    let name = stored_name(number, path);
    if kind == ScriptKind::PowerShell {
        let powershell = format!("{}/WindowsPowerShell/v1.0/powershell.exe", builder.guest.system32());
        if !builder.exists(&powershell)? {
            builder.add_warning(format!("{name} cannot run: this Windows has no PowerShell ({powershell})"));
        }
    }
    builder.set_reason("scripts of the user for the first boot (--firstboot)");
    let place = Place { folder: FIRSTBOOT_SCRIPTS, name: &name, log: &format!("{name}.log") };
    let run = run_step(kind, &place, name.clone(), seconds);
    let done = add(builder, &place, path.display().to_string(), content, run, converted)?;
    record.extras.scripts.push(done);
    Ok(())
}

fn plan_guest_agent(
    builder: &mut PlanBuilder<'_>,
    selection: &Selection,
    agent: &PackageFile,
    record: &mut Record,
) -> Result<()> {
    let is_serial =
        |name: &str| ["vioserial", "vioser", "vioser.inf"].iter().any(|known| name.eq_ignore_ascii_case(known));
    if !selection.packages.iter().any(|package| is_serial(&package.driver) || is_serial(&package.inf_name)) {
        builder.add_note(
            "the guest agent needs the driver vioserial, which is not among the packages for this Windows: \
             it answers only if the guest has the driver already",
        );
    }
    builder.set_reason("the QEMU guest agent (--guest-agent)");
    let name = agent.name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let place = Place { folder: GUEST_AGENT, name: &name, log: "install.log" };
    let run = run_step(ScriptKind::Package, &place, "guest-agent".to_owned(), AGENT_SECONDS);
    let done = add(builder, &place, agent.shown(), Content::of_package(agent), run, None)?;
    record.extras.guest_agent = Some(done);
    Ok(())
}

/// Where a file lies in the guest.
struct Place<'a> {
    /// Path of the folder on the volume.
    folder: &'a str,
    name: &'a str,
    /// Name of its log in the same folder.
    log: &'a str,
}

impl Place<'_> {
    /// A file of the folder, as a command spells it.
    fn spelled(&self, name: &str) -> String {
        format!("%SystemDrive%{}\\{name}", self.folder.replace('/', "\\"))
    }
}

/// Writes the file and adds its step.
fn add(
    builder: &mut PlanBuilder<'_>,
    place: &Place<'_>,
    source: String,
    content: Content,
    run: RunStep,
    converted: Option<&'static str>,
) -> Result<ScriptRecord> {
    let destination = format!("{}/{}", place.folder, place.name);
    builder.ensure_folder(place.folder, &Access::Protected)?;
    let (size, sha256) = (content.size(), content.sha256());
    let hash = content.sha256_bytes();
    let action = builder.write_file_with(&destination, size, hash, &Access::Protected, || content)?;
    let file = FileRecord {
        name: place.name.to_owned(),
        action,
        reason: converted.map(str::to_owned),
        source,
        destination,
        size,
        sha256,
        service: None,
    };
    let log = format!("{}/{}", place.folder, place.log);
    let done = ScriptRecord { file, command: run.command.clone(), seconds: run.seconds, log };
    builder.add_job_step(Step::Run(run));
    Ok(done)
}

/// The step that runs a file. Output goes to the file's own log.
fn run_step(kind: ScriptKind, place: &Place<'_>, name: String, seconds: u32) -> RunStep {
    let (file, log) = (place.spelled(place.name), place.spelled(place.log));
    // The outer quotes are those that `cmd.exe /c` takes off.
    let logged = |command: &str| format!("%SystemRoot%\\System32\\cmd.exe /d /c \"{command} >\"{log}\" 2>&1\"");
    let command = match kind {
        ScriptKind::Batch => logged(&format!("\"{file}\"")),
        // Only `start /wait` waits for every kind of program.
        ScriptKind::Program => logged(&format!("start \"\" /b /wait \"{file}\"")),
        ScriptKind::PowerShell => {
            let powershell = "%SystemRoot%\\System32\\WindowsPowerShell\\v1.0\\powershell.exe";
            logged(&format!("{powershell} -NoProfile -NonInteractive -ExecutionPolicy Bypass -File \"{file}\""))
        }
        ScriptKind::Package => {
            format!("%SystemRoot%\\System32\\msiexec.exe /i \"{file}\" /qn /norestart /l*v \"{log}\"")
        }
    };
    match kind {
        ScriptKind::Package => RunStep::installer(name, seconds, command),
        _ => RunStep::optional(name, seconds, command),
    }
}

/// The name of a script in the guest: its number, and what of its name is the same in every code page.
fn stored_name(number: usize, path: &Path) -> String {
    let plain = |text: &std::ffi::OsStr| -> String {
        let letters = text.to_string_lossy();
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        letters.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
    };
    let mut stem = path.file_stem().map(plain).unwrap_or_default();
    stem.truncate(NAME_MAX);
    let ending = path.extension().map(plain).unwrap_or_default().to_ascii_lowercase();
    format!("{number:02}-{stem}.{ending}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ntfs::name::problem_with;

    #[test]
    fn commands_quote_the_file_and_its_log() {
        let place = Place { folder: FIRSTBOOT_SCRIPTS, name: "01-a.cmd", log: "01-a.cmd.log" };
        let command = |kind| run_step(kind, &place, "a".to_owned(), 60).command;
        assert_eq!(
            command(ScriptKind::Batch),
            r#"%SystemRoot%\System32\cmd.exe /d /c ""%SystemDrive%\hyper2kvm\firstboot.d\01-a.cmd" >"%SystemDrive%\hyper2kvm\firstboot.d\01-a.cmd.log" 2>&1""#
        );
        assert_eq!(
            command(ScriptKind::Package),
            r#"%SystemRoot%\System32\msiexec.exe /i "%SystemDrive%\hyper2kvm\firstboot.d\01-a.cmd" /qn /norestart /l*v "%SystemDrive%\hyper2kvm\firstboot.d\01-a.cmd.log""#
        );
        assert!(command(ScriptKind::PowerShell).contains("powershell.exe -NoProfile"));
        assert!(command(ScriptKind::Program).contains(r#"/c "start "" /b /wait ""#));
        let step = run_step(ScriptKind::Package, &place, "a".to_owned(), 60);
        assert_eq!(
            (step.ok_codes, step.retry_codes, step.retries, step.pause),
            (vec![0, 3010, 1641], vec![1618], 10, 60)
        );
        assert!(!step.required);
    }

    proptest! {
        /// Whatever a script is called: its name in the guest is one that Windows takes, and that needs no quoting.
        #[test]
        fn names_are_plain(number in 1..=99_usize, stem in "\\PC{1,300}") {
            let name = stored_name(number, Path::new(&format!("{}.CMD", stem.replace('/', "_"))));
            prop_assert!(problem_with(&name.as_str().into()).is_none(), "{}", name);
            prop_assert!(name.len() <= 3 + NAME_MAX + 4 && name.ends_with(".cmd"));
            prop_assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter)));
        }
    }
}
