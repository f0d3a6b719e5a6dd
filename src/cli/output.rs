//! Printing: results to standard output, everything else to the error output.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::path::Path;

use super::envelope::Envelope;
use super::progress::{Progress, ProgressMode};
use super::{environment, worker};
use crate::error::Error;
use crate::error_code::explain_command;
use crate::escape::{self, escape};
pub(super) use crate::units::size_text as size;

/// Prints to the terminal. All text passes through [`escape`](mod@escape): a string of an image can neither steer a
/// terminal nor begin a line of its own.
///
/// A reader that closes the pipe early (`winject drivers list … | head`) does not disturb the job: what can no longer
/// be printed is dropped. Any other failure of standard output lets the job run to its end, too, and is the command's
/// error then, see [`finish`](Self::finish).
#[derive(Debug)]
pub struct Ui {
    /// The first failure of standard output.
    failed: RefCell<Option<std::io::Error>>,
    quiet: bool,
    verbose: u8,
    /// Whether the answer is one JSON document: standard output holds nothing else then.
    json: bool,
    /// Whether the JSON document has been begun.
    has_answered: Cell<bool>,
    /// Whether standard output is kept for a [document](Self::document).
    is_kept: Cell<bool>,
    colour_out: bool,
    colour_err: bool,
    progress: ProgressMode,
    /// Completes the commands in messages, as soon as it is known what was typed.
    commands: Option<Box<dyn CompleteCommands>>,
}

/// Completes the commands in texts for people, so that they work as they are printed.
pub(super) trait CompleteCommands: std::fmt::Debug {
    /// The text with the commands in it completed. A completed text stays as it is.
    fn complete<'t>(&self, text: &'t str) -> Cow<'t, str>;

    /// Notes the only image of the command, which has an effect if none was typed.
    fn name_image(&self, image: &Path);
}

/// Colours in use, all of the basic eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Red,
    Yellow,
    Cyan,
    Bold,
}

impl Ui {
    /// Output for the flags `--quiet` and `--verbose`; asks the environment whether colours are wanted.
    #[must_use]
    pub fn new(quiet: bool, verbose: u8) -> Self {
        let failed = RefCell::new(None);
        Self {
            failed,
            quiet,
            verbose,
            json: false,
            has_answered: Cell::new(false),
            is_kept: Cell::new(false),
            colour_out: environment::stdout_colours(),
            colour_err: environment::stderr_colours(),
            progress: ProgressMode::None,
            commands: None,
        }
    }

    /// The same output with the answer as one JSON document, if `--json` was given.
    #[must_use]
    pub fn with_json(self, json: bool) -> Self {
        Self { json, ..self }
    }

    /// The same output with progress in this form.
    #[must_use]
    pub fn with_progress(self, progress: ProgressMode) -> Self {
        Self { progress, ..self }
    }

    /// The same output with the commands in errors, warnings and notes completed.
    #[must_use]
    pub(super) fn with_commands(self, commands: impl CompleteCommands + 'static) -> Self {
        Self { commands: Some(Box::new(commands)), ..self }
    }

    /// Notes the only image of the command, if it was not typed: messages name it.
    pub(super) fn name_image(&self, image: &Path) {
        self.commands.iter().for_each(|commands| commands.name_image(image));
    }

    /// The text of a message with the commands in it completed, for an answer or a report: errors, warnings and notes that are
    /// printed are completed in any case.
    pub(super) fn complete<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.commands.as_ref().map_or(Cow::Borrowed(text), |commands| commands.complete(text))
    }

    /// The error with the commands in its hint completed.
    pub(super) fn complete_error(&self, error: Error) -> Error {
        match error.hint_text().map(|hint| self.complete(hint)) {
            Some(Cow::Owned(hint)) => error.replace_hint(hint),
            _ => error,
        }
    }

    /// Whether the answer is to be one JSON document, see [`json_answer`](Self::json_answer).
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the JSON document is printed already: then it says what failed, and standard output has no place for another.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.has_answered.get()
    }

    /// From now on answers and what was done go to the error output: standard output holds one [document](Self::document)
    /// for another program, which ends as a file or in a pipe.
    pub fn keep_output_for_document(&self) {
        self.is_kept.set(true);
    }

    /// Prints a document for another program (a script, a manifest) to standard output; escaped as an [answer](Self::answer).
    pub fn document(&self, text: &str) {
        self.write_out(&escape_lines(text));
    }

    /// Whether `--quiet` was given.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Number of times `--verbose` was given.
    #[must_use]
    pub fn verbosity(&self) -> u8 {
        self.verbose
    }

    /// Prints the answer that was asked for (a table, a page) to standard output, even with `--quiet`. A final line break is
    /// added if it is missing. Line breaks stay: strings of an image have to be escaped with [`escape::EscapedLines`] before.
    /// Not with `--json`, whose answer is [another](Self::json_answer).
    pub fn answer(&self, text: &str) {
        if !self.json {
            self.write_text(&escape_lines(text));
        }
    }

    /// Prints a part of an answer: like [`answer`](Self::answer), without adding a line break.
    pub fn answer_part(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        self.note_failure(out.write_all(escape_lines(text).as_bytes()).and_then(|()| out.flush()));
    }

    /// Prints the answer of a command with `--json`: the fields of `value`, an object, after the kind `winject/NAME` and the
    /// version of the document. Every string arrives unchanged, and none can steer a terminal.
    ///
    /// # Errors
    /// [`crate::Kind::Bug`] when the value has no JSON form.
    pub fn json_answer(&self, name: &str, value: &impl serde::Serialize) -> crate::Result<()> {
        self.json_document(&json_pretty(&Envelope::new(name, value))?);
        Ok(())
    }

    /// Prints a whole document that holds its kind and version already: a saved plan, a report, a schema.
    pub fn json_document(&self, text: &str) {
        self.has_answered.set(true);
        self.write_out(&escape::json(text.to_owned()));
    }

    /// Prints a part of a long JSON answer, see [`JsonList`].
    pub fn json_part(&self, text: &str) {
        self.has_answered.set(true);
        let mut out = std::io::stdout().lock();
        self.note_failure(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }

    /// Writes data unchanged to standard output, which is not a terminal (an export).
    ///
    /// # Errors
    /// When the output cannot be written for another reason than a reader that went away.
    pub fn raw(&self, data: &[u8]) -> crate::Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(data).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(cannot_write(error)),
            _ => Ok(()),
        }
    }

    /// Makes sure that everything printed so far has reached standard output.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when any of it could not be written, for another reason than a reader that went
    /// away.
    pub fn finish(&self) -> crate::Result<()> {
        self.note_failure(std::io::stdout().lock().flush());
        self.failed.take().map_or(Ok(()), |error| Err(cannot_write(error)))
    }

    fn note_failure(&self, result: std::io::Result<()>) {
        if let Err(error) = result
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            self.failed.borrow_mut().get_or_insert(error);
        }
    }

    /// Prints what was done to standard output (or the error output, if that is kept), except with `--quiet`; `--json` has it in its answer.
    pub fn done(&self, text: &str) {
        if !self.quiet && !self.json {
            self.write_text(&escape(text));
        }
    }

    /// Prints a heading above an answer, except with `--quiet` and `--json`.
    pub fn heading(&self, text: &str) {
        if !self.quiet && !self.json {
            let is_coloured = if self.is_kept.get() { self.colour_err } else { self.colour_out };
            self.write_text(&paint(&escape(text), Colour::Bold, is_coloured));
        }
    }

    /// Prints a note to the error output, except with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.write_err("Note", Colour::Cyan, &self.complete(text));
        }
    }

    /// Prints a warning to the error output, except with `--quiet`.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            self.write_err("Warning", Colour::Yellow, &self.complete(text));
        }
    }

    /// Prints `Error: …`, `Hint: …` and the command that explains the error to the error output, always.
    pub fn error(&self, error: &Error) {
        self.write_err("Error", Colour::Red, &error.to_string());
        if let Some(hint) = error.hint_text() {
            self.write_err("Hint", Colour::Cyan, &self.complete(hint));
        }
        self.write_err("More", Colour::Cyan, &explain_command(error.code().name()));
    }

    /// Shows on the error output how far the command is, until the value is dropped, in the form of `--progress`.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::start(self.progress, worker::is_worker())
    }

    /// Shows the progress of a command with one phase: its name for programs, and what people read.
    #[must_use]
    pub fn phase(&self, name: &str, title: &str) -> Progress {
        let progress = self.progress();
        progress.phase(name, title);
        progress
    }

    fn write_out(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        // The job goes on: its outcome matters more than the text. `finish` reports the failure.
        self.note_failure(write!(out, "{text}{end}").and_then(|()| out.flush()));
    }

    /// Writes text for people, which makes way for a document.
    fn write_text(&self, text: &str) {
        if !self.is_kept.get() {
            return self.write_out(text);
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let _ = write!(std::io::stderr().lock(), "{text}{end}");
    }

    fn write_err(&self, word: &str, colour: Colour, text: &str) {
        let word = paint(word, colour, self.colour_err);
        let _ = writeln!(std::io::stderr().lock(), "{word}: {}", escape(text));
    }
}

/// The text with everything escaped but its line breaks.
fn escape_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escape).collect();
    lines.join("\n")
}

/// A JSON answer that ends with a list which can be too long to be held: it is made and printed in parts.
///
/// Nothing is printed before the first part is full, so that the answer of a command that fails early is its error.
pub(super) struct JsonList<'a> {
    ui: &'a Ui,
    /// What is not printed yet.
    text: String,
    is_empty: bool,
}

/// Bytes of an answer that are printed at once.
const PRINTED_AT_ONCE: usize = 64 << 10;

impl<'a> JsonList<'a> {
    /// Begins the answer `winject/NAME` with these fields, an object, and the list of this name.
    ///
    /// # Errors
    /// [`crate::Kind::Bug`] when the fields have no JSON form.
    pub(super) fn begin(ui: &'a Ui, name: &str, fields: &impl serde::Serialize, list: &str) -> crate::Result<Self> {
        let head = json_pretty(&Envelope::new(name, fields))?;
        let open = head.strip_suffix("\n}").unwrap_or(&head);
        Ok(Self { ui, text: format!("{open},\n  \"{list}\": ["), is_empty: true })
    }

    /// Adds an item, and prints what has come together if that is much.
    ///
    /// # Errors
    /// [`crate::Kind::Bug`] when the item has no JSON form.
    pub(super) fn push(&mut self, item: &impl serde::Serialize) -> crate::Result<()> {
        self.text.push_str(if self.is_empty { "\n    " } else { ",\n    " });
        self.text.push_str(&escaped_json(serde_json::to_string(item))?);
        self.is_empty = false;
        if self.text.len() >= PRINTED_AT_ONCE {
            self.ui.json_part(&std::mem::take(&mut self.text));
        }
        Ok(())
    }

    /// Ends the list, adds fields after it, and prints the rest.
    ///
    /// # Errors
    /// [`crate::Kind::Bug`] when the fields have no JSON form.
    pub(super) fn end_with(self, fields: &impl serde::Serialize) -> crate::Result<()> {
        let fields = json_pretty(fields)?;
        let end = if self.is_empty { "]" } else { "\n  ]" };
        self.ui.json_part(&format!("{}{end},{}\n", self.text, fields.strip_prefix('{').unwrap_or(&fields)));
        Ok(())
    }

    /// Ends list and answer, and prints the rest.
    pub(super) fn end(self) {
        let end = if self.is_empty { "]\n}\n" } else { "\n  ]\n}\n" };
        self.ui.json_part(&(self.text + end));
    }
}

fn json_pretty(value: &impl serde::Serialize) -> crate::Result<String> {
    escaped_json(serde_json::to_string_pretty(value))
}

fn escaped_json(text: serde_json::Result<String>) -> crate::Result<String> {
    let defect = |error| Error::bug(crate::Layer::Cli, "cannot write the answer as JSON").source_error(error);
    text.map(escape::json).map_err(defect)
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io(crate::Layer::Host, "cannot write to standard output", error)
        .hint("the command itself was carried out; make space where its output goes, or send it to another file")
}

fn paint(text: &str, colour: Colour, on: bool) -> String {
    let code = match colour {
        Colour::Red => 31,
        Colour::Yellow => 33,
        Colour::Cyan => 36,
        Colour::Bold => 1,
    };
    if on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
}
