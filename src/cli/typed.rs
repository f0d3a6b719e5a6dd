//! What was typed, whatever the command: its arguments as the definitions know them.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::args::refuse_needless_requests;
use crate::error::Result;

/// The command that was typed, without those above it.
pub(super) struct TypedCommand<'a> {
    command: &'a Command,
    pub(super) matches: &'a ArgMatches,
}

impl<'a> TypedCommand<'a> {
    /// Finds it.
    pub(super) fn of(root: &'a Command, matches: &'a ArgMatches) -> Self {
        let (mut command, mut matches) = (root, matches);
        while let Some((name, below)) = matches.subcommand()
            && let Some(next) = command.find_subcommand(name)
        {
            (command, matches) = (next, below);
        }
        Self { command, matches }
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
