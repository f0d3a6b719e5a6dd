//! A parsed INF: sections, strings, and the check that it is one of Windows.

use super::error::error_at;
use super::facts::Text;
use super::lex::{self, Line, Section, Sections};
use super::strings::Strings;
use super::text;
use crate::error::Result;

/// US English: the language whose strings are used, as the guest's own cannot be known from its registry alone.
pub const LANGUAGE_DEFAULT: u16 = 0x0409;

/// A parsed INF: its sections, and the strings of one language. What it says to a guest is in [`facts`](Self::facts).
#[derive(Debug, Clone)]
pub struct Inf {
    pub(super) file: String,
    sections: Sections,
    pub(super) strings: Strings,
}

impl Inf {
    /// Parses an INF; `file` is its name, for messages.
    ///
    /// # Errors
    /// [`Kind::Drivers`](crate::error::Kind::Drivers) with file and line: not text, too large, a malformed line, strings that contain each other, no
    /// `[Version]` of a Windows INF.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self> {
        Self::parse_in(bytes, file, LANGUAGE_DEFAULT)
    }

    /// Like [`parse`](Self::parse) for another language than US English.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
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

    /// Expands the strings in a text: `%VENDOR%` → `Red Hat, Inc.`, `%%` → `%`. Directory ids (`%12%`) and unknown names
    /// stay as they are.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        self.strings.expand(text)
    }

    /// A text as written and expanded.
    pub(super) fn text(&self, raw: &str) -> Text {
        Text { raw: raw.to_owned(), resolved: self.expand(raw) }
    }

    /// The text of a warning about a line.
    pub(super) fn warning(&self, line: usize, text: impl std::fmt::Display) -> String {
        format!("{}:{line}: {text}", self.file)
    }

    /// The value of a `[Version]` entry.
    pub(super) fn version_line(&self, key: &str) -> Option<&Line> {
        let section = self.section("Version")?;
        section.lines.iter().rfind(|line| line.has_key(key))
    }

    fn check_signature(&self) -> Result<()> {
        let Some(version) = self.section("Version") else {
            return Err(error_at(&self.file, 0, "there is no [Version] section: not an INF for Windows"));
        };
        let Some(line) = self.version_line("Signature") else {
            return Err(error_at(&self.file, version.number, "[Version] has no Signature"));
        };
        let signature = self.expand(line.value());
        if ["$windows nt$", "$chicago$", "$windows 95$"].contains(&signature.to_ascii_lowercase().as_str()) {
            return Ok(());
        }
        Err(error_at(&self.file, line.number, "the Signature is not one of a Windows INF")
            .expected_found("$Windows NT$", signature))
    }
}
