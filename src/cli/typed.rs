//! What was typed, whatever the command: its arguments as the definitions know them.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::args::refuse_needless_requests;
use super::bitlocker_args::KeySource;
use crate::error::Result;
use crate::escape::shell_word;

/// The command that was typed, without those above it.
pub(super) struct TypedCommand<'a> {
    command: &'a Command,
    pub(super) matches: &'a ArgMatches,
    /// The words that name it.
    pub(super) names: Vec<&'a str>,
}

impl<'a> TypedCommand<'a> {
    /// Finds it.
    pub(super) fn of(root: &'a Command, matches: &'a ArgMatches) -> Self {
        let (mut command, mut matches, mut names) = (root, matches, Vec::new());
        while let Some((name, below)) = matches.subcommand()
            && let Some(next) = command.find_subcommand(name)
        {
            (command, matches) = (next, below);
            names.push(name);
        }
        Self { command, matches, names }
    }

    /// The arguments that were typed, each with its values.
    pub(super) fn arguments(&self) -> impl Iterator<Item = (&'a Arg, Vec<&'a std::ffi::OsStr>)> {
        let matches = self.matches;
        let is_typed = move |argument: &&Arg| {
            let id = argument.get_id().as_str();
            matches.ids().any(|known| known == id) && matches.value_source(id) == Some(ValueSource::CommandLine)
        };
        self.command.get_arguments().filter(is_typed).map(move |argument| {
            let values = matches.try_get_raw(argument.get_id().as_str()).ok().flatten();
            (argument, values.into_iter().flatten().collect())
        })
    }
}

/// An option that was typed.
#[derive(Debug)]
pub(super) struct TypedOption {
    pub(super) id: String,
    /// `--partition`.
    pub(super) flag: String,
    /// The words for a shell: `--partition 2`.
    pub(super) words: String,
}

impl TypedOption {
    /// The option with these values; `None` without any that can be repeated.
    pub(super) fn of(argument: &Arg, values: &[&str]) -> Option<Self> {
        let id = argument.get_id().to_string();
        let flag = format!("--{}", argument.get_long()?);
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            return Some(Self { id, words: flag.clone(), flag });
        }
        // A key that was typed in place of its file is not repeated.
        let is_key = id.starts_with("bitlocker_");
        let may_be_repeated =
            |value: &&&str| !is_key || KeySource::from(**value).file().is_none_or(|file| file.is_file());
        let words: Vec<String> = values
            .iter()
            .filter(may_be_repeated)
            .filter_map(|value| shell_word(value))
            .map(|value| {
                if value.starts_with('-') && value != "-" {
                    format!("{flag}={value}")
                } else {
                    format!("{flag} {value}")
                }
            })
            .collect();
        (!words.is_empty()).then(|| Self { id, words: words.join(" "), flag })
    }
}

/// Refuses options that have no effect on what was typed, as far as that holds for every command.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind::Usage) with the option.
pub(super) fn refuse_ineffective(root: &Command, matches: &ArgMatches) -> Result<()> {
    let typed = TypedCommand::of(root, matches);
    let requests = typed.matches.try_get_one::<usize>("nbd_requests").ok().flatten().copied();
    let values: Vec<_> = typed.arguments().flat_map(|(_, values)| values).collect();
    refuse_needless_requests(requests, values.into_iter().map(Path::new))
}
