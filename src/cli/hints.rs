//! Commands in messages that work as they are printed: they name the image, and repeat the options that say how it is read.
//!
//! The layers that give a hint, a warning or a note know neither the options of the command line nor, some of them, the image.
//! So these texts are completed when they are printed or written into a report.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};

use super::look;
use super::output::CompleteCommands;
use super::repeat::command_line;
use super::typed::{TypedCommand, TypedOption};
use crate::escape::shell_path;

/// Options that say how the file of an image is read.
const OF_FILES: [&str; 3] = ["format", "allow_path", "disk"];

/// Options that say how the guest's volume is read.
const OF_VOLUMES: [&str; 6] = [
    "partition",
    "no_replay",
    "bitlocker_recovery_key",
    "bitlocker_password",
    "bitlocker_startup_key",
    "bitlocker_volume_key",
];

/// Arguments whose values are images.
const IMAGES: [&str; 6] = ["image", "images", "input", "target", "old", "new"];

/// What a command begins with.
const NAME: &str = "winject ";

/// What stands for the image in a text that does not know it.
const PLACEHOLDER: &str = "IMAGE";

/// What a command line says of its images.
#[derive(Debug, Default)]
pub(super) struct Typed {
    images: Vec<PathBuf>,
    options: Vec<TypedOption>,
    /// All of it, as it can be typed again.
    line: Option<String>,
    /// The image of a command that names it otherwise: in a saved plan, or in a document.
    named_elsewhere: OnceCell<PathBuf>,
    /// Makes the command line, whose definitions say which options a command has.
    root: Option<fn() -> Command>,
}

/// How a hint begins to say which option the same command needs; the option ends the hint.
const ADD_OPTION: &str = "add --allow-path ";

impl Typed {
    /// What was typed for the command that `matches` leads to; `make` makes the command line.
    pub(super) fn of(root: &Command, matches: &ArgMatches, make: fn() -> Command) -> Self {
        let command = TypedCommand::of(root, matches);
        let mut typed = Self { line: command_line(root, matches), root: Some(make), ..Self::default() };
        for (argument, values) in command.arguments() {
            let id = argument.get_id().as_str();
            if IMAGES.contains(&id) {
                // `IMAGE PATH…` are texts, of which the first names the image.
                match command.matches.try_get_many::<OsString>(id) {
                    Ok(Some(texts)) => typed.images.extend(look::image_of(&texts.cloned().collect::<Vec<_>>())),
                    _ => typed.images.extend(values.into_iter().map(PathBuf::from)),
                }
            } else if OF_FILES.contains(&id) || OF_VOLUMES.contains(&id) {
                let texts = values.iter().filter_map(|value| value.to_str()).collect::<Vec<_>>();
                typed.options.extend(TypedOption::of(argument, &texts));
            }
        }
        typed
    }

    fn images(&self) -> &[PathBuf] {
        match self.named_elsewhere.get() {
            Some(image) if self.images.is_empty() => std::slice::from_ref(image),
            _ => &self.images,
        }
    }

    fn complete_commands(&self, text: &str, root: &Command) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(NAME) {
            let (before, after) = rest.split_at(at);
            // A word of its own, and no part of a path.
            let is_command = before.chars().last().is_none_or(|last| last.is_whitespace() || "`(".contains(last));
            out += before;
            out += NAME;
            rest = after.get(NAME.len()..).unwrap_or_default();
            let end = rest.find([';', '\n', '`']).unwrap_or(rest.len()).min(rest.find(NAME).unwrap_or(rest.len()));
            let (command, more) = rest.split_at(end);
            out += &if is_command { self.complete_command(command, root) } else { command.to_owned() };
            rest = more;
        }
        out + rest
    }

    /// Completes a command and the text after it; options stand before the operands, so that its end need not be known.
    fn complete_command(&self, text: &str, root: &Command) -> String {
        let Verb { command, length } = Verb::read(text, root);
        if length == 0 {
            return text.to_owned();
        }
        let (verb, operands) = text.split_at(length);
        let operands = match self.images() {
            // The name of an image can begin with the placeholder.
            [only] if !names(operands, only) => {
                shell_path(only).map_or_else(|| operands.to_owned(), |path| fill_in(operands, &path))
            }
            _ => operands.to_owned(),
        };
        let names_image = self.images().is_empty() || self.images().iter().any(|image| names(&operands, image));
        let needs_volume = command.get_name() != "convert" || operands.contains(" --drivers ");
        let is_missing = |option: &&TypedOption| {
            let is_known = command.get_arguments().any(|argument| argument.get_id() == option.id.as_str());
            let is_meant = needs_volume || OF_FILES.contains(&option.id.as_str());
            is_known
                && is_meant
                && !operands.contains(&option.flag)
                && !(option.id == "format" && operands.contains(" -f "))
        };
        let options = self.options.iter().filter(|_| names_image).filter(is_missing);
        let options: String = options.map(|option| format!(" {}", option.words)).collect();
        format!("{verb}{options}{operands}")
    }
}

impl CompleteCommands for Typed {
    fn complete<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if let (true, Some(line)) = (text.contains(ADD_OPTION), &self.line) {
            return Cow::Owned(text.replacen(ADD_OPTION, &format!("run: {line} --allow-path "), 1));
        }
        let is_needless = self.images().is_empty() && self.options.is_empty();
        let Some(root) = self.root.filter(|_| !is_needless && text.contains(NAME)) else { return Cow::Borrowed(text) };
        // Commands are built when they are typed; a text may name any of them.
        let mut root = root();
        root.build();
        Cow::Owned(self.complete_commands(text, &root))
    }

    fn name_image(&self, image: &Path) {
        // The first one stays.
        let _ = self.named_elsewhere.set(image.to_owned());
    }
}

/// The words of a text that name a command.
struct Verb<'c> {
    command: &'c Command,
    /// Their length in bytes; 0 if there are none.
    length: usize,
}

impl<'c> Verb<'c> {
    fn read(text: &str, root: &'c Command) -> Self {
        let mut verb = Self { command: root, length: 0 };
        loop {
            let rest = text.get(verb.length..).unwrap_or_default();
            let word = rest.trim_start_matches(' ');
            let blanks = rest.len() - word.len();
            let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(word.len());
            match word.get(..end).and_then(|word| verb.command.find_subcommand(word)) {
                Some(command) => verb = Self { command, length: verb.length + blanks + end },
                None => return verb,
            }
        }
    }
}

/// Whether the words name this image.
fn names(words: &str, image: &Path) -> bool {
    shell_path(image).is_some_and(|path| places_of(words, &path).next().is_some())
}

/// The words with the image in place of the placeholder.
fn fill_in(words: &str, image: &str) -> String {
    match places_of(words, PLACEHOLDER).next() {
        Some(at) => {
            let (before, after) = words.split_at(at);
            format!("{before}{image}{}", after.get(PLACEHOLDER.len()..).unwrap_or_default())
        }
        None => words.to_owned(),
    }
}

/// Where `word` stands in the words as one of them.
fn places_of<'a>(words: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_end = |c: char| c.is_whitespace() || ",:.)".contains(c);
    words.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let (before, after) = words.split_at(*at);
        let after = after.get(word.len()..).unwrap_or_default();
        before.ends_with(' ') && after.chars().next().is_none_or(is_end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// The text, completed for this command line.
    fn completed(line: &str, hint: &str) -> String {
        let mut root = Cli::command();
        let matches = root.try_get_matches_from_mut(["winject"].into_iter().chain(line.split(' '))).unwrap();
        let typed = Typed::of(&root, &matches, Cli::command);
        let text = typed.complete(hint);
        assert_eq!(typed.complete(&text), text, "a completed text stays as it is");
        text.into_owned()
    }

    #[test]
    fn options_and_image_are_repeated() {
        for (line, hint, expected) in [
            (
                "inspect a.vmdk -f vmdk --disk x",
                "winject fsck IMAGE lists all faults",
                "winject fsck --format vmdk --disk x a.vmdk lists all faults",
            ),
            (
                "fsck --partition 2 a.img",
                "look: winject ls a.img /Windows; or winject inspect a.img",
                "look: winject ls --partition 2 a.img /Windows; or winject inspect a.img",
            ),
            (
                "ls --partition 2 --no-replay a.img /x",
                "winject reg query a.img SYSTEM",
                "winject reg query --partition 2 --no-replay a.img SYSTEM",
            ),
            ("check --partition 2 a.img", "winject check IMAGE --partition 3", "winject check a.img --partition 3"),
            ("check --partition 2 a.img", "winject explain no-windows", "winject explain no-windows"),
            ("check --partition 2 a.img", "winject check other.img", "winject check other.img"),
            ("check a.img b.img --partition 2", "winject check IMAGE", "winject check IMAGE"),
            ("check --partition 2 a.img", "see /x/winject check IMAGE", "see /x/winject check IMAGE"),
            (
                "inject --drivers d --in-place --partition 2 -f raw a.img",
                "winject convert IMAGE NEW.qcow2",
                "winject convert --format raw a.img NEW.qcow2",
            ),
            (
                "apply p.json -n --bitlocker-password env:KEY --bitlocker-password -",
                "winject plan a.img --drivers DRIVERS",
                "winject plan --bitlocker-password env:KEY --bitlocker-password - a.img --drivers DRIVERS",
            ),
            (
                "check --allow-path b --allow-path c' a.img",
                "winject undo a.img",
                r"winject undo --allow-path b --allow-path 'c'\''' a.img",
            ),
            ("check -f raw a.img", "winject --config IMAGE", "winject --config IMAGE"),
            (
                "inject --in-place a.img --drivers d' --partition 2 --bitlocker-password hunter2",
                "if you trust it, add --allow-path 'nbd://h/?'",
                r"if you trust it, run: winject inject --in-place --partition 2 --drivers 'd'\''' a.img --allow-path 'nbd://h/?'",
            ),
            (
                "-v --json reg query a.img HKLM --allow-path b",
                "add --allow-path /c",
                "run: winject reg query --allow-path b a.img HKLM --allow-path /c",
            ),
            ("--config a.yaml", "add --allow-path /c", "add --allow-path /c"),
            (
                "check IMAGE.img",
                "winject undo IMAGE.img; or winject check IMAGE",
                "winject undo IMAGE.img; or winject check IMAGE.img",
            ),
            // Of a warning, which is prose.
            (
                "inject --drivers d -n --partition 2 a.img",
                "the first-boot job failed in this guest: x (5); winject inspect IMAGE shows its result",
                "the first-boot job failed in this guest: x (5); winject inspect a.img shows its result",
            ),
            (
                "check --partition 2 a.img",
                "the guest's own, and winject remove leaves it",
                "the guest's own, and winject remove leaves it",
            ),
            (
                "remove -n --partition 2 a.img",
                "it may have been trusted before; winject reg delete IMAGE KEY --in-place removes it",
                "it may have been trusted before; winject reg delete --partition 2 a.img KEY --in-place removes it",
            ),
        ] {
            assert_eq!(completed(line, hint), expected, "{line}");
        }
    }

    /// A plan or a document names the image: the options that were typed hold for it.
    #[test]
    fn an_image_that_is_named_elsewhere_is_filled_in() {
        let mut root = Cli::command();
        let matches = root.try_get_matches_from_mut(["winject", "apply", "p.json", "-n", "-f", "raw"]).unwrap();
        let typed = Typed::of(&root, &matches, Cli::command);
        let text = "winject check IMAGE shows more; and winject remove leaves it";
        assert_eq!(typed.complete("winject check IMAGE"), "winject check --format raw IMAGE");
        typed.name_image(Path::new("a b.img"));
        assert_eq!(
            typed.complete(text),
            "winject check --format raw 'a b.img' shows more; and winject remove leaves it"
        );
        // A typed one comes first.
        let mut root = Cli::command();
        let matches = root.try_get_matches_from_mut(["winject", "inspect", "c.img"]).unwrap();
        let typed = Typed::of(&root, &matches, Cli::command);
        typed.name_image(Path::new("a.img"));
        assert_eq!(typed.complete("winject check IMAGE"), "winject check c.img");
    }

    /// Sooner or later the key itself is typed there.
    #[test]
    fn a_key_in_place_of_its_file_is_not_repeated() {
        let hint = completed("inspect a.img --bitlocker-password hunter2", "winject check IMAGE");
        assert_eq!(hint, "winject check a.img");
    }
}
