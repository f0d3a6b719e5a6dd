//! `setup.cmd`, which installs everything when a person runs it.

use std::fmt::Write as _;

use super::description::{JobDescription, Step};
use super::text::{crlf, spell};
use crate::windows::guest_paths;

/// The file's bytes. It installs packages, and says what else the job does. Packages whose names cannot stand in a batch file are left out.
#[must_use]
pub fn print(job: &JobDescription) -> Vec<u8> {
    let mut out = String::from(
        "@echo off\n\
         rem Installs the staged driver packages. Run it as administrator.\n\
         setlocal EnableExtensions DisableDelayedExpansion\n\
         set \"SYS=%SystemRoot%\\System32\"\n\
         if exist \"%SystemRoot%\\Sysnative\\cmd.exe\" set \"SYS=%SystemRoot%\\Sysnative\"\n",
    );
    match job.pnputil {
        Some(form) => {
            let (before, after) = form.arguments();
            for step in &job.steps {
                if let Step::Package(package) = step
                    && let Some(path) = spell(&package.path)
                {
                    let stage = guest_paths::STAGE_IN_SCRIPT;
                    let _ = writeln!(out, "\"%SYS%\\pnputil.exe\" {before} \"{stage}\\{path}\"{after}");
                }
            }
        }
        None => out.push_str(
            "echo This Windows has no pnputil: it finds the drivers through the registry value DevicePath.\n\
             echo Open the device manager and look for changed hardware.\n",
        ),
    }
    if job.steps.iter().any(|step| matches!(step, Step::Network(_))) {
        out.push_str(
            "echo The former network settings are given by the automatic installation alone, not by this script.\n",
        );
    }
    let _ = writeln!(out, "echo Log of the automatic installation: %SystemRoot%\\{}", guest_paths::LOG_BELOW_WINDOWS);
    crlf(&out)
}
