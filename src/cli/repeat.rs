//! The command line that was typed, for a hint that adds something to it.

use std::path::Path;

use clap::{ArgAction, ArgMatches, Command};

use super::typed::{TypedCommand, TypedOption};
use crate::escape::shell_path;

/// Options that say how winject prints, which a command in a hint leaves out, and those of the workers of a batch.
const NOT_REPEATED: [&str; 6] = ["quiet", "verbose", "json", "progress", "worker", "worker_memory"];

/// The command as it can be typed again, its operands last; a key that stands in place of its file is left out. `None` where no
/// command was typed (a document says what to do), a batch typed it, or a part of it cannot be pasted.
pub(super) fn command_line(root: &Command, matches: &ArgMatches) -> Option<String> {
    let typed = TypedCommand::of(root, matches);
    if typed.names.is_empty() || typed.arguments().any(|(argument, _)| argument.get_id() == "worker") {
        return None;
    }
    let (mut options, mut operands) = (String::new(), String::new());
    for (argument, values) in typed.arguments() {
        if NOT_REPEATED.contains(&argument.get_id().as_str()) || matches!(argument.get_action(), ArgAction::Count) {
            continue;
        }
        if argument.is_positional() {
            for value in values {
                operands += &format!(" {}", shell_path(Path::new(value))?);
            }
            continue;
        }
        let texts: Option<Vec<&str>> = values.iter().map(|value| value.to_str()).collect();
        options.extend(TypedOption::of(argument, &texts?).map(|option| format!(" {}", option.words)));
    }
    Some(format!("winject {}{options}{operands}", typed.names.join(" ")))
}
