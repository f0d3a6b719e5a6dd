//! The reference page: every command, option and exit code, in Markdown, from the definitions that parse them.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::cli::exit_codes;

const INTRODUCTION: &str = "\
# Reference

All commands, options and [exit codes](#exit-codes) of `winject`. `winject manual` prints this page; a test compares it with the file.
";

/// The commands below this one that have a page of their own.
pub(super) fn documented(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// The page for a command that is built with all below it.
pub(super) fn page(root: &Command) -> String {
    let mut page = INTRODUCTION.to_owned();
    write_command(&mut page, root, "##");
    for command in documented(root) {
        write_tree(&mut page, command, "##");
    }
    page + &exit_codes::section()
}

fn write_tree(page: &mut String, command: &Command, heading: &str) {
    write_command(page, command, heading);
    for command in documented(command) {
        write_tree(page, command, "###");
    }
}

fn write_command(page: &mut String, command: &Command, heading: &str) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    put(page, &format!("\n{heading} {name}\n"));
    let about = command.get_long_about().or_else(|| command.get_about());
    about.iter().for_each(|about| put(page, &format!("\n{}\n", escape(&about.to_string()))));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    put(page, &format!("\n```text\n{}\n```\n", usage.trim()));
    write_arguments(page, command);
    if let Some(more) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        put(page, &format!("\n```text\n{}\n```\n", more.to_string().trim_end()));
    }
}

/// The arguments under the headings of the help, in its order. Those that every command has stand at the root alone.
fn write_arguments(page: &mut String, command: &Command) {
    let is_root = !command.get_bin_name().is_some_and(|name| name.contains(' '));
    let is_shown = |arg: &&Arg| {
        let is_built_in = matches!(arg.get_id().as_str(), "help" | "version");
        !arg.is_hide_set() && (is_root || !(arg.is_global_set() || is_built_in))
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(is_shown).collect();
    let mut headings: Vec<Option<&str>> = vec![None];
    for heading in arguments.iter().map(|arg| arg.get_help_heading()) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let positional_first = |arg: &&&Arg| !arg.is_positional();
        let mut listed: Vec<&&Arg> = arguments.iter().filter(|arg| arg.get_help_heading() == heading).collect();
        listed.sort_by_key(positional_first);
        if listed.is_empty() {
            continue;
        }
        put(page, "\n");
        heading.iter().for_each(|heading| put(page, &format!("{heading}:\n\n")));
        listed.into_iter().for_each(|arg| write_argument(page, arg));
    }
}

fn write_argument(page: &mut String, arg: &Arg) {
    // The form with its values; the default form of the display has both names of an option already.
    let name = arg.to_string();
    let short = arg.get_short().filter(|_| arg.get_long().is_some());
    let name = short.map_or_else(|| name.clone(), |short| format!("-{short}, {name}"));
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    put(page, &format!("- `{name}`: {}", escape(&help).replace("\n\n", "\n\n  ")));
    let aliases: Vec<_> = arg.get_visible_aliases().unwrap_or_default();
    if !aliases.is_empty() {
        put(page, &format!(" \\[also: `--{}`\\]", aliases.join("`, `--")));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let takes_value = arg.get_num_args().is_some_and(|range| range.takes_values());
    if takes_value && !defaults.is_empty() && defaults.iter().any(|value| !value.is_empty()) {
        put(page, &format!(" \\[default: `{}`\\]", defaults.join("`, `")));
    }
    put(page, "\n");
    if takes_value && !arg.is_hide_possible_values_set() {
        for value in arg.get_possible_values().iter().filter(|value| !value.is_hide_set()) {
            let help = value.get_help().map(|help| format!(": {}", escape(&help.to_string()))).unwrap_or_default();
            put(page, &format!("  - `{}`{help}\n", value.get_name()));
        }
    }
}

/// Appends text; a string takes all that is written to it.
fn put(page: &mut String, text: &str) {
    let _ = page.write_str(text);
}

/// Text of a help as Markdown: nothing in it is markup, but for code in backticks.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut is_code = false;
    for character in text.chars() {
        is_code ^= character == '`';
        if !is_code && matches!(character, '\\' | '*' | '_' | '<' | '>' | '[' | ']' | '|' | '#') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
