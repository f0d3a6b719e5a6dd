//! Printing: results to standard output, everything else to the error output.

use std::cell::RefCell;
use std::io::Write;

use super::environment;
use super::progress::Progress;
use crate::error::Error;
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
    colour_out: bool,
    colour_err: bool,
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
            colour_out: environment::stdout_colours(),
            colour_err: environment::stderr_colours(),
        }
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
    pub fn answer(&self, text: &str) {
        self.write_out(&escape_lines(text));
    }

    /// Prints a part of an answer: like [`answer`](Self::answer), without adding a line break.
    pub fn answer_part(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        self.note_failure(out.write_all(escape_lines(text).as_bytes()).and_then(|()| out.flush()));
    }

    /// Prints an answer in JSON: every string arrives unchanged, and none can steer a terminal.
    ///
    /// # Errors
    /// [`crate::Kind::Bug`] when the value has no JSON form.
    pub fn json(&self, value: &impl serde::Serialize) -> crate::Result<()> {
        self.write_out(&escaped_json(serde_json::to_string_pretty(value))?);
        Ok(())
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

    /// Prints what was done to standard output, except with `--quiet`.
    pub fn done(&self, text: &str) {
        if !self.quiet {
            self.write_out(&escape(text));
        }
    }

    /// Prints a heading above an answer, except with `--quiet`.
    pub fn heading(&self, text: &str) {
        if !self.quiet {
            self.write_out_painted(text, Colour::Bold);
        }
    }

    /// Prints a note to the error output, except with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.write_err("Note", Colour::Cyan, text);
        }
    }

    /// Prints a warning to the error output, except with `--quiet`.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            self.write_err("Warning", Colour::Yellow, text);
        }
    }

    /// Prints `Error: …` and `Hint: …` to the error output, always.
    pub fn error(&self, error: &Error) {
        self.write_err("Error", Colour::Red, &error.to_string());
        if let Some(hint) = error.hint_text() {
            self.write_err("Hint", Colour::Cyan, hint);
        }
    }

    /// Shows a spinner on the error output while something long runs, or a bar once its length is set. Only a terminal shows it,
    /// and not with `--quiet`.
    #[must_use]
    pub fn progress(&self, title: &str) -> Progress {
        if self.quiet || !self.colour_err {
            return Progress::hidden();
        }
        Progress::start(title)
    }

    fn write_out(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        // The job goes on: its outcome matters more than the text. `finish` reports the failure.
        self.note_failure(write!(out, "{text}{end}").and_then(|()| out.flush()));
    }

    fn write_out_painted(&self, text: &str, colour: Colour) {
        let mut out = std::io::stdout().lock();
        let text = paint(&escape(text), colour, self.colour_out);
        self.note_failure(writeln!(out, "{text}").and_then(|()| out.flush()));
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

/// A value as JSON in one line, for an answer that is printed in parts; see [`Ui::json`].
///
/// # Errors
/// [`crate::Kind::Bug`] when the value has no JSON form.
pub(super) fn json_line(value: &impl serde::Serialize) -> crate::Result<String> {
    escaped_json(serde_json::to_string(value))
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
