//! The command line of a worker: the single command with the options that the batch was given.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args as _, Command};

use super::job::JobKind;
use crate::cli::{check, convert, inject, inspect};
use crate::error::{Error, Kind, Layer, Result};
use crate::fleet::item::safe_name;

/// Options whose value names a file that the job writes: `{name}` and `{id}` in it stand for the item's.
const OUTPUTS: [&str; 5] = ["output", "overlay", "report", "machine_output", "junit"];

/// An option of the job as it was given, for the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// The id of the option: `output`, `in_place` …
    pub(super) id: String,
    /// `--output`; `-c` for an option with a short name only.
    flag: String,
    value: Option<OsString>,
}

impl Given {
    pub(super) fn new(id: &str, flag: String, value: Option<OsString>) -> Self {
        Self { id: id.to_owned(), flag, value }
    }

    /// Whether it names a file that the job writes.
    pub(super) fn is_output(&self) -> bool {
        OUTPUTS.contains(&self.id.as_str())
    }

    /// Its value with `{name}` and `{id}` filled in.
    ///
    /// # Errors
    /// [`Kind::Usage`] for another placeholder.
    pub(super) fn filled(&self, id: &str, image: &Path) -> Result<Option<OsString>> {
        self.value.as_deref().map(|value| fill(value, id, image)).transpose()
    }

    /// The argument with this value.
    pub(super) fn argument(&self, value: Option<&OsStr>) -> OsString {
        let mut argument = OsString::from(&self.flag);
        if let Some(value) = value {
            argument.push("=");
            argument.push(value);
        }
        argument
    }

    pub(super) fn value(&self) -> Option<&OsStr> {
        self.value.as_deref()
    }
}

/// The definition of the job's command alone.
pub(super) fn job_command(job: JobKind) -> Command {
    let command = Command::new(job.name());
    match job {
        JobKind::Inspect => inspect::Args::augment_args(command),
        JobKind::Check => check::Args::augment_args(command),
        JobKind::Inject => inject::Args::augment_args(command),
        JobKind::Convert => convert::Args::augment_args(command),
    }
}

/// The options of the job that were given on the command line of the batch.
pub(super) fn given(job: JobKind, batch_job: &Command, matches: &ArgMatches) -> Vec<Given> {
    let of_job: BTreeSet<String> =
        job_command(job).get_arguments().map(|argument| argument.get_id().to_string()).collect();
    let mut found = Vec::new();
    for argument in batch_job.get_arguments().filter(|argument| of_job.contains(argument.get_id().as_str())) {
        let id = argument.get_id().as_str();
        if argument.is_positional() || matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let flag = match (argument.get_long(), argument.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => continue,
        };
        if matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse | ArgAction::Count) {
            found.push(Given::new(id, flag, None));
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            found.push(Given::new(id, flag.clone(), Some(value.to_owned())));
        }
    }
    found
}

/// Fills `{name}` and `{id}` in.
fn fill(template: &OsStr, id: &str, image: &Path) -> Result<OsString> {
    let mut filled = Vec::new();
    let mut rest = template.as_bytes();
    while let Some(open) = rest.iter().position(|byte| *byte == b'{') {
        let (before, after) = rest.split_at(open);
        let Some(close) = after.iter().position(|byte| *byte == b'}') else { break };
        filled.extend_from_slice(before);
        let (placeholder, behind) = after.split_at(close + 1);
        match placeholder {
            b"{name}" => filled.extend_from_slice(image.file_stem().unwrap_or_default().as_bytes()),
            b"{id}" => filled.extend_from_slice(file_name_of_id(id).as_bytes()),
            other => {
                let message = format!("{} in the name of an output is unknown", String::from_utf8_lossy(other));
                return Err(Error::new(Kind::Usage, Layer::Cli, message)
                    .path(PathBuf::from(template).display().to_string())
                    .hint("use {name} for the image's name without its ending, or {id} for the item's id"));
            }
        }
        rest = behind;
    }
    filled.extend_from_slice(rest);
    Ok(OsString::from_vec(filled))
}

/// An id as a part of a file name: itself if it can be one, else a safe form of it.
fn file_name_of_id(id: &str) -> String {
    let is_plain =
        id.len() <= 100 && !id.starts_with('.') && id.chars().all(|c| c.is_alphanumeric() || "-_.+ ".contains(c));
    if is_plain { id.to_owned() } else { safe_name(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled() {
        let image = Path::new("/vms/a.b.vmdk");
        let filled =
            |template: &str, id: &str| fill(OsStr::new(template), id, image).map(|name| name.into_string().unwrap());
        assert_eq!(filled("o/{name}.qcow2", "x").unwrap(), "o/a.b.qcow2");
        assert_eq!(filled("{id}/{name}", "vm 1").unwrap(), "vm 1/a.b");
        assert_eq!(filled("x{", "x").unwrap(), "x{");
        assert!(!filled("{id}", "../x").unwrap().contains('/'));
        assert!(filled("{stem}.qcow2", "x").unwrap_err().hint_text().unwrap().contains("{name}"));
    }
}
