//! The job as a script for `cmd.exe`, as far as `cmd.exe` can do it: it ends no process tree but that of `pnputil`, and
//! leaves the invented records of `DriverDatabase` alone.

mod network;
mod parts;
mod shared;
mod steps;

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use shared::unspellable;

use super::description::{ATTEMPTS_MAX, BEGUN_MAX, JobDescription, Pnputil, Reboot, Step};
use super::job_file;
use super::text::crlf;
use crate::hex;

/// `firstboot.cmd`: the job that the service starts.
///
/// # Errors
/// Why this job cannot be written as a script: `cmd.exe` reads ASCII only.
pub fn print(job: &JobDescription) -> Result<Vec<u8>, String> {
    let mut out = String::from(parts::HEAD);
    let id = job_id(job)?;
    for at in job.results() {
        let _ = writeln!(out, "set \"R{at}=skipped\"\nset \"C{at}=0\"\nset \"S{at}=\"\nset \"D{at}=\"");
    }
    let _ = writeln!(out, "if %N% GTR {ATTEMPTS_MAX} goto give_up\nif %BEGUN% GTR {BEGUN_MAX} goto give_up");
    out.push_str(&parts::BEGIN.replace("@ATTEMPTS@", &ATTEMPTS_MAX.to_string()));
    let _ = writeln!(out, "set \"COMMA={}\"", if job.results().next().is_some() { "," } else { "" });
    if job.pnputil.is_none() {
        out.push_str("call :log \"no pnputil in this Windows: DevicePath leads to the drivers\"\n");
    }
    // Commands that an earlier attempt of this very job has finished are not run again.
    let _ = writeln!(
        out,
        "if exist \"%BASE%\\firstboot.progress\" for /f \"usebackq tokens=1,2\" %%J in (\"%BASE%\\firstboot.progress\") do \
         if \"%%J\"==\"{id}\" set \"S%%K=1\""
    );
    steps::add_packages(&mut out, job)?;
    steps::add_others(&mut out, job, &id)?;
    let reboot = match job.reboot {
        Reboot::Never => "",
        Reboot::IfNeeded => "if \"%STATE%%RESTART%\"==\"done1\" \"%SYS%\\shutdown.exe\" /r /t 30\n",
    };
    out.push_str(&parts::TAIL.replace("@ATTEMPTS@", &ATTEMPTS_MAX.to_string()).replace("@REBOOT@", reboot));
    add_children(&mut out, job)?;
    steps::add_sweep(&mut out, job)?;
    out.push_str(&parts::STATUS.replace("@STEPS@", &steps::results(job)?));
    Ok(crlf(&out))
}

/// Names this job: another one has another name.
fn job_id(job: &JobDescription) -> Result<String, String> {
    let hash = Sha256::digest(job_file::print(job)?);
    Ok(hex::encode(hash.get(..8).unwrap_or_default()))
}

/// The parts that run in a process of their own.
fn add_children(out: &mut String, job: &JobDescription) -> Result<(), String> {
    if let Some((before, after)) = job.pnputil.map(Pnputil::arguments) {
        let _ = writeln!(
            out,
            "\n:do_install\n\"%SYS%\\pnputil.exe\" {before} \"%ITEM%\"{after} >\"%BASE%\\firstboot.out\" 2>&1\ngoto do_end"
        );
    }
    for (at, step) in job.numbered() {
        if let Step::Run(run) = step {
            let command = super::text::spell_command(&run.command).ok_or_else(|| unspellable(&run.name))?;
            let _ = writeln!(out, "\n:do_{at}\n{command} >\"%BASE%\\firstboot.out\" 2>&1\ngoto do_end");
        }
    }
    Ok(())
}

impl JobDescription {
    /// The steps with their numbers, which name the variables of the script.
    fn numbered(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().map(|(index, step)| (index + 1, step))
    }

    /// The numbers of the steps that have a result.
    fn results(&self) -> impl Iterator<Item = usize> {
        self.numbered().filter(|(_, step)| step.has_result()).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests;
