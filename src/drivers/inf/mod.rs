//! Setup information files (INF): what a driver package tells Windows about itself.
//!
//! [`Inf::parse`] reads the text into sections; [`Inf::facts`] answers what it says to one guest. Format: "INF file
//! sections and directives" of Microsoft's driver documentation.

pub mod facts;
mod install;
mod lex;
mod models;
mod registry;
mod strings;
mod target;
mod text;
mod version;

pub use facts::{
    Companions, CopyFile, DirPath, EventLogFacts, Facts, Guid, Install, Model, RegAction, RegRoot, RegValue,
    ServiceFacts, Text,
};
pub use lex::{Line, Section};
pub use target::{Misfit, TargetOs};
pub use text::SIZE_MAX;

use super::guest::GuestTarget;
use crate::error::{Error, Kind, Layer, Result};
use lex::Sections;
use strings::Strings;

/// US English: the language whose strings are put in, as the guest's own cannot be known from its registry alone.
pub const LANGUAGE_DEFAULT: u16 = 0x0409;

/// A parsed INF.
#[derive(Debug, Clone)]
pub struct Inf {
    file: String,
    sections: Sections,
    strings: Strings,
}

impl Inf {
    /// Parses an INF; `file` is its name, for messages.
    ///
    /// # Errors
    /// [`Kind::Drivers`] with file and line: not text, too large, a malformed line, strings that contain each other, no
    /// `[Version]` of a Windows INF.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self> {
        Self::parse_in(bytes, file, LANGUAGE_DEFAULT)
    }

    /// Like [`parse`](Self::parse) for another language than US English.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_in(bytes: &[u8], file: &str, language: u16) -> Result<Self> {
        let text = text::decode(bytes, file)?;
        let sections = lex::sections(&text, file)?;
        let strings = Strings::read(&sections, language, file)?;
        let inf = Self { file: file.to_owned(), sections, strings };
        inf.check_signature()?;
        Ok(inf)
    }

    /// The name given to [`parse`](Self::parse).
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// A section by its name, without regard to case.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.get(name)
    }

    /// All sections in the order of their first header.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter()
    }

    /// Puts the strings into a text: `%VENDOR%` → `Red Hat, Inc.`, `%%` → `%`. Directory ids (`%12%`) and unknown names
    /// stay as they are.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        self.strings.expand(text)
    }

    fn text(&self, raw: &str) -> Text {
        Text { raw: raw.to_owned(), resolved: self.expand(raw) }
    }

    /// The decorations of all models sections, with those sections' base names.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetOs> {
        let mut out: Vec<TargetOs> = Vec::new();
        for maker in self.makers(&mut Notes::default()) {
            for target in maker.targets {
                if !out.contains(&target) {
                    out.push(target);
                }
            }
        }
        out
    }

    /// Why the INF is not for a guest, in words; `None` if it is.
    #[must_use]
    pub fn misfit(&self, guest: &GuestTarget) -> Option<(Misfit, String)> {
        let targets = self.targets();
        if targets.is_empty() {
            return Some((Misfit::Product, "it has no models section".to_owned()));
        }
        let reason = targets.iter().map(|t| t.fits(guest)).try_fold(Misfit::Cpu, |worst, fit| match fit {
            Ok(()) => None,
            Err(misfit) => Some(worst.min(misfit)),
        })?;
        let wanted: Vec<String> = targets.iter().take(8).map(TargetOs::describe).collect();
        Some((reason, format!("its INF is for {}", wanted.join("; "))))
    }

    /// Everything that the INF says to a guest. Without models for that guest, `models` and `installs` are empty.
    ///
    /// # Errors
    /// [`Kind::Drivers`] with file and line for what Windows would refuse to install: no class, a service without its
    /// section or binary, a registry value that is no number.
    pub fn facts(&self, guest: &GuestTarget) -> Result<Facts> {
        let mut warnings = Notes::default();
        let mut facts = self.version_facts(guest, &mut warnings)?;
        facts.models = self.models_for(guest, &mut warnings)?;
        self.install_facts(guest, &mut facts, &mut warnings)?;
        facts.source_files = self.source_files(guest);
        facts.strings = self.strings.resolved().clone();
        self.warn_unknown_strings(&mut warnings);
        facts.warnings = warnings.list;
        Ok(facts)
    }

    fn warning(&self, line: usize, text: impl std::fmt::Display) -> String {
        format!("{}:{line}: {text}", self.file)
    }
}

/// Most warnings about one INF.
const WARNINGS_MAX: usize = 100;
/// How much reading an INF may cost, in lines: sections count as often as they are used. The largest known INFs need
/// about a third.
const COST_MAX: usize = 600_000;

/// What is noted while the facts are gathered: warnings, and the cost so far, so that a small file whose sections name
/// each other a thousand times is not read for ever.
#[derive(Default)]
struct Notes {
    list: Vec<String>,
    cost: usize,
}

impl Notes {
    fn push(&mut self, warning: String) {
        if self.list.len() < WARNINGS_MAX {
            self.list.push(warning);
        }
    }

    fn spend(&mut self, lines: usize, file: &str, at: usize) -> Result<()> {
        self.cost = self.cost.saturating_add(lines);
        if self.cost > COST_MAX {
            return Err(broken(file, at, "the sections of the INF use each other far too often"));
        }
        Ok(())
    }
}

/// An error about a line of an INF. Line 0: about the whole file.
fn broken(file: &str, line: usize, message: impl Into<String>) -> Error {
    let place = if line == 0 { file.to_owned() } else { format!("{file}:{line}") };
    Error::new(Kind::Drivers, Layer::Drivers, message)
        .path(place)
        .hint("the driver package is broken; take it from its maker again")
}

/// A number as `SetupGetIntField` reads it: decimal or, after `0x`, hexadecimal; with a sign. `0x` alone is 0.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        if hex.is_empty() { 0 } else { u32::from_str_radix(hex, 16).ok()? }
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse::<u32>().ok()?
    } else {
        return None;
    };
    match is_negative {
        false => Some(value),
        // the least number of 32 bits with a sign is the furthest below zero
        true => (value <= 1 << 31).then(|| value.wrapping_neg()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("0x0000000A"), Some(10));
        assert_eq!(number("-1"), Some(u32::MAX));
        assert_eq!(number(" 257 "), Some(257));
        for (text, value) in [("+5", 5), ("-0x1", u32::MAX), ("-2147483648", 1 << 31), ("0x", 0), ("0XfF", 255)] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        for bad in ["", "+", "x", "0x1_0", "4294967296", "-4294967295", "1.0", "FF", "10h", "--1"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
