//! The parts of the script that differ from job to job.

use std::fmt::Write as _;

use super::shared::{polls, unspellable};
use super::{network, parts};
use crate::windows::first_boot::description::{JobDescription, PackageStep, RunStep, Step};
use crate::windows::first_boot::text::{spell, spell_in_json};

/// The packages of the manifest; the required ones are tried again within this start.
pub(super) fn add_packages(out: &mut String, job: &JobDescription) -> Result<(), String> {
    for step in &job.steps {
        if let Step::WaitForDevices { seconds } = step {
            // A script cannot ask whether device installation is idle.
            let seconds = (*seconds).min(16);
            let _ = writeln!(out, "rem device installation is busy right after the start");
            let _ = writeln!(out, "set \"COUNT={}\"\ncall :wait", polls(seconds));
        }
    }
    out.push_str("set \"ROUND=0\"\n:round\nset \"OPEN=\"\n");
    for (at, step) in job.numbered() {
        if let Step::Package(package) = step {
            add_package(out, at, package)?;
        }
    }
    out.push_str("if not defined OPEN goto packages_end\nset /a ROUND=ROUND+1\nset \"COUNT=\"\n");
    for (index, pause) in job.repeat.iter().enumerate() {
        let _ = writeln!(out, "if \"%ROUND%\"==\"{}\" set \"COUNT={}\"", index + 1, polls(*pause));
    }
    out.push_str(
        "if not defined COUNT goto packages_end\ncall :log \"required packages failed; they are tried again\"\n\
         call :wait\ngoto round\n:packages_end\n",
    );
    Ok(())
}

fn add_package(out: &mut String, at: usize, step: &PackageStep) -> Result<(), String> {
    let path = spell(&step.path).ok_or_else(|| unspellable(&step.path))?;
    let skip = if step.required { 'S' } else { 'D' };
    let _ = writeln!(
        out,
        "if defined {skip}{at} goto package_{at}\nset \"ITEM=%STAGE%\\{path}\"\nset \"POLLS_MAX={}\"\ncall :install",
        polls(step.seconds)
    );
    let _ = writeln!(out, "set \"R{at}=%RESULT%\"\nset \"C{at}=%CODE%\"\nset \"S{at}=%OK%\"\nset \"D{at}=1\"");
    if step.required {
        out.push_str("if not defined OK set \"OPEN=1\"\n");
    }
    let _ = writeln!(out, ":package_{at}");
    Ok(())
}

/// All other steps, and the count of failures.
pub(super) fn add_others(out: &mut String, job: &JobDescription, id: &str) -> Result<(), String> {
    for (at, step) in job.numbered() {
        match step {
            Step::WaitForDevices { .. } | Step::Package(_) => {}
            Step::Refused { path } => {
                let path = spell(path).ok_or_else(|| unspellable(path))?;
                let _ = writeln!(out, ">>\"%LOG%\" echo %DATE% %TIME% refused \"{path}\"");
                let _ = writeln!(out, "set \"R{at}=refused\"\nset \"S{at}=1\"");
            }
            Step::OtherPackages { .. } => out.push_str(
                "for /f \"delims=\" %%I in ('dir /b /s \"%STAGE%\\*.inf\" 2^>nul') do (\nset \"ITEM=%%I\"\n\
                 call :other\n)\n",
            ),
            Step::Scan => out.push_str("\"%SYS%\\pnputil.exe\" /scan-devices >>\"%LOG%\" 2>&1\n"),
            Step::Network(step) => network::add(out, at, step)?,
            Step::Run(step) => add_run(out, at, step, id)?,
            Step::Release(_) => {
                let _ = writeln!(out, "set \"S{at}=1\"");
            }
        }
    }
    for (at, step) in job.numbered().filter(|(_, step)| step.has_result()) {
        let count = if step.is_required() { "RF" } else { "OF" };
        let _ = writeln!(out, "if not defined S{at} set /a {count}={count}+1");
    }
    Ok(())
}

fn add_run(out: &mut String, at: usize, step: &RunStep, id: &str) -> Result<(), String> {
    let name = spell(&step.name).ok_or_else(|| unspellable(&step.name))?;
    let list = |codes: &[i64]| codes.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    let retry = if step.retry_codes.is_empty() { "-".to_owned() } else { list(&step.retry_codes) };
    let values = [
        ("NAME", name),
        ("STEP", at.to_string()),
        ("POLLS_MAX", polls(step.seconds).to_string()),
        ("OK_CODES", list(&step.ok_codes)),
        ("RETRY_CODES", retry),
        ("RETRIES", step.retries.to_string()),
        ("PAUSES", polls(step.pause).to_string()),
    ];
    let _ = writeln!(out, "if defined S{at} set \"R{at}=ok\"\nif defined S{at} goto run_{at}");
    for (name, value) in values {
        let _ = writeln!(out, "set \"{name}={value}\"");
    }
    let _ = writeln!(out, "call :execute\nset \"R{at}=%RESULT%\"\nset \"C{at}=%CODE%\"\nset \"S{at}=%OK%\"");
    let _ = writeln!(out, "if defined OK >>\"%BASE%\\firstboot.progress\" echo {id} {at}\n:run_{at}");
    Ok(())
}

/// The subroutine for packages that the job does not know; empty if none are looked for.
pub(super) fn add_sweep(out: &mut String, job: &JobDescription) -> Result<(), String> {
    let sweep = job.steps.iter().find_map(|step| match step {
        Step::OtherPackages { seconds } => Some(*seconds),
        _ => None,
    });
    let Some(seconds) = sweep else { return Ok(()) };
    let mut known = String::new();
    for step in &job.steps {
        if let Step::Package(PackageStep { path, .. }) | Step::Refused { path } = step {
            let path = spell(path).ok_or_else(|| unspellable(path))?;
            let _ = writeln!(known, "if /i \"%ITEM%\"==\"%STAGE%\\{path}\" goto :eof");
        }
    }
    out.push_str(&parts::OTHERS.replace("@KNOWN@", &known).replace("@POLLS@", &polls(seconds).to_string()));
    Ok(())
}

/// The lines that write the results of the steps.
pub(super) fn results(job: &JobDescription) -> Result<String, String> {
    let mut out = String::new();
    let mut comma = "";
    for (at, step) in job.numbered().filter(|(_, step)| step.has_result()) {
        let name = spell_in_json(step.name()).ok_or_else(|| unspellable(step.name()))?;
        let (kind, required) = (step.kind(), step.is_required());
        let _ = writeln!(
            out,
            ">>\"%BASE%\\firstboot.new\" echo {comma}{{\"kind\":\"{kind}\",\"name\":\"{name}\",\"required\":{required},\
             \"result\":\"%R{at}%\",\"code\":%C{at}%,\"detail\":\"\"}}"
        );
        comma = ",";
    }
    Ok(out)
}
