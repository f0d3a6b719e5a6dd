//! Reading a mapping by a table of its keys.

use std::path::{Path, PathBuf};

use super::fault::describe;
use super::spelling::nearest;
use super::value::{Entry, Map, Value};
use crate::error::{Error, Kind, Layer, Result};

/// A document that is being read: its name for messages, and the warnings so far.
#[derive(Debug)]
pub struct Document {
    name: String,
    layer: Layer,
    folder: PathBuf,
    is_case_ignored: bool,
    warnings: Vec<String>,
}

/// A key of a mapping that is read into a `T`: its spellings, and the function that reads its value.
pub struct Key<T> {
    names: &'static [&'static str],
    read: fn(&mut T, &mut Field<'_>) -> Result<()>,
}

impl<T> Key<T> {
    /// A key with all its spellings, the preferred one first.
    #[must_use]
    pub const fn new(names: &'static [&'static str], read: fn(&mut T, &mut Field<'_>) -> Result<()>) -> Self {
        Self { names, read }
    }

    /// A key of other programs: known, but only answered with a warning.
    #[must_use]
    pub const fn without_effect(names: &'static [&'static str]) -> Self {
        Self::new(names, |_, field| {
            let message = format!("`{}` has no effect here", field.key());
            field.warn(message);
            Ok(())
        })
    }

    /// Its spellings, the preferred one first.
    #[must_use]
    pub const fn names(&self) -> &'static [&'static str] {
        self.names
    }
}

impl Document {
    /// A document; `name` is for messages, `layer` for errors. Its paths are relative to the working directory.
    #[must_use]
    pub fn new(name: &str, layer: Layer) -> Self {
        Self { name: name.to_owned(), layer, folder: PathBuf::new(), is_case_ignored: false, warnings: Vec::new() }
    }

    /// Makes the paths in it relative to a folder.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Takes keys in any case, and `-` for `_`.
    #[must_use]
    pub fn ignoring_case(mut self) -> Self {
        self.is_case_ignored = true;
        self
    }

    /// The text in the bytes of a document. `what` it should be (`the configuration`) and `hint` are for the error.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the place, when the bytes are not text.
    pub fn text_of(&self, bytes: Vec<u8>, what: &str, hint: &str) -> Result<String> {
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let message = format!("cannot read {what}: not text in UTF-8 from byte {valid} on");
            Error::new(Kind::Usage, self.layer, message).path(&self.name).hint(hint)
        })
    }

    /// Parses the text of the document. `what` it should be (`a configuration`) and `hint` are for the error.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the line, when the text is not YAML or not a mapping.
    pub fn parse(&self, text: &str, what: &str, hint: &str) -> Result<Map> {
        Map::parse(text).map_err(|error| {
            let place = error.location().map_or(self.name.clone(), |at| format!("{}:{}", self.name, at.line()));
            let why = describe(&error);
            Error::new(Kind::Usage, self.layer, format!("not {what}: {why}")).path(place).hint(hint)
        })
    }

    /// Reads every entry of a mapping by the table of its keys. An unknown key is a warning.
    ///
    /// # Errors
    /// The first of a key's reader.
    pub fn read<T>(&mut self, map: &Map, keys: &[Key<T>], target: &mut T) -> Result<()> {
        for entry in &map.0 {
            let name =
                if self.is_case_ignored { entry.key.to_lowercase().replace('-', "_") } else { entry.key.clone() };
            if let Some(key) = keys.iter().find(|key| key.names.contains(&name.as_str())) {
                (key.read)(target, &mut Field { entry, document: self })?;
                continue;
            }
            let meant = nearest(&name, keys.iter().flat_map(|key| key.names).copied());
            let meant = meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            self.warn(entry.line, format!("unknown key `{}`{meant}", entry.key));
        }
        Ok(())
    }

    /// A line of the document for messages: `run.yaml:7`.
    #[must_use]
    pub fn place(&self, line: u64) -> String {
        format!("{}:{line}", self.name)
    }

    /// Its name, as messages give it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An error about a line.
    #[must_use]
    pub fn error(&self, line: u64, message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::new(Kind::Usage, self.layer, message).path(self.place(line)).hint(hint)
    }

    /// Notes a warning about a line.
    pub fn warn(&mut self, line: u64, message: impl std::fmt::Display) {
        self.warnings.push(format!("{}: {message}", self.place(line)));
    }

    /// The warnings so far, each with its line.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The warnings, when reading is over.
    #[must_use]
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings
    }
}

/// One key with its value, for the reader of that key.
///
/// Readers of single values come in two forms: those that take an empty value (`key:`) for "not given", and those that
/// refuse it.
pub struct Field<'a> {
    entry: &'a Entry,
    document: &'a mut Document,
}

impl<'a> Field<'a> {
    /// A field of its own, for an entry of an inner mapping whose keys are not known beforehand.
    pub fn new(entry: &'a Entry, document: &'a mut Document) -> Self {
        Self { entry, document }
    }

    /// The key as written.
    #[must_use]
    pub fn key(&self) -> &'a str {
        &self.entry.key
    }

    /// Line of the key.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.entry.line
    }

    /// The value as it was parsed.
    #[must_use]
    pub fn value(&self) -> &'a Value {
        &self.entry.value
    }

    /// The document, for readers of inner mappings.
    pub fn document(&mut self) -> &mut Document {
        self.document
    }

    /// An error about this key: `` `key`: message ``.
    #[must_use]
    pub fn error(&self, message: impl std::fmt::Display, hint: impl Into<String>) -> Error {
        self.document.error(self.line(), format!("`{}`: {message}", self.key()), hint)
    }

    /// Notes a warning with the line of this key.
    pub fn warn(&mut self, message: impl std::fmt::Display) {
        self.document.warn(self.entry.line, message);
    }

    /// The folder that paths of the document are relative to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.document.folder
    }

    /// A mapping; an empty value is an empty one.
    ///
    /// # Errors
    /// When the value is anything else.
    pub fn map(&self) -> Result<&'a Map> {
        const EMPTY: &Map = &Map(Vec::new());
        match self.value() {
            Value::Map(map) => Ok(map),
            Value::Null => Ok(EMPTY),
            _ => Err(self.error("a mapping is expected", "write \"key: value\" lines, indented, below it")),
        }
    }

    /// A single value as text, if there is one.
    ///
    /// # Errors
    /// When the value is a list or a mapping.
    pub fn optional_text(&self) -> Result<Option<String>> {
        match self.value() {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Bool(value) => Ok(Some(value.to_string())),
            Value::List(_) | Value::Map(_) => Err(self.error("one value is expected", "write it on one line")),
        }
    }

    /// A single value as text.
    ///
    /// # Errors
    /// When there is none, or it is a list or a mapping.
    pub fn text(&self) -> Result<String> {
        self.optional_text()?.ok_or_else(|| self.error("a value is expected", "write one after the colon"))
    }

    /// One text or a list of them; an empty value is an empty list.
    ///
    /// # Errors
    /// When the value or an item is anything else.
    pub fn texts(&self) -> Result<Vec<String>> {
        let Value::List(values) = self.value() else { return Ok(self.optional_text()?.into_iter().collect()) };
        let texts = values.iter().map(|value| match value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(self.error("a list of texts is expected", "write one value in each item")),
        });
        texts.collect()
    }

    /// A path, relative to the document's folder, if there is one.
    ///
    /// # Errors
    /// When the value is a list or a mapping.
    pub fn path(&self) -> Result<Option<PathBuf>> {
        if let Value::Map(_) = self.value() {
            let hint = "put it into a file of its own and name that";
            return Err(self.error("a path is expected, not the content itself", hint));
        }
        Ok(self.optional_text()?.filter(|text| !text.is_empty()).map(|text| self.resolve(&text)))
    }

    /// The path that a text stands for: relative to the document's folder, unless it is a URI.
    fn resolve(&self, text: &str) -> PathBuf {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_uri = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
        if is_uri { PathBuf::from(text) } else { self.document.folder.join(text) }
    }

    /// One path or a list of them, relative to the document's folder.
    ///
    /// # Errors
    /// When the value or an item is anything else.
    pub fn paths(&self) -> Result<Vec<PathBuf>> {
        let Value::List(values) = self.value() else { return Ok(self.path()?.into_iter().collect()) };
        let paths = values.iter().map(|value| match value {
            Value::Text(text) => Ok(self.resolve(text)),
            _ => Err(self.error("a list of paths is expected", "write one path on each line")),
        });
        paths.collect()
    }

    /// Yes or no.
    ///
    /// # Errors
    /// When the value is anything else, or empty.
    pub fn boolean(&self) -> Result<bool> {
        let text = match self.value() {
            Value::Bool(value) => return Ok(*value),
            Value::Text(text) => text.to_lowercase(),
            _ => String::new(),
        };
        match text.as_str() {
            "yes" | "on" | "1" | "true" => Ok(true),
            "no" | "off" | "0" | "false" => Ok(false),
            _ => Err(self.error("yes or no is expected", "write true or false")),
        }
    }

    /// Like [`boolean`](Self::boolean); an empty value is no.
    ///
    /// # Errors
    /// When the value is anything else.
    pub fn flag(&self) -> Result<bool> {
        if *self.value() == Value::Null { Ok(false) } else { self.boolean() }
    }

    /// A number, if there is one.
    ///
    /// # Errors
    /// When the value is anything else, or does not fit.
    pub fn number<N: std::str::FromStr>(&self) -> Result<Option<N>> {
        let Some(text) = self.optional_text()? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.error("a number is expected", "write digits only"))
    }

    /// The number of one of several words, or that number itself.
    ///
    /// # Errors
    /// When the value is anything else; the hint lists the words.
    pub fn choice(&self, words: &[(&str, u32)]) -> Result<u32> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim())).map(|(_, number)| *number);
        let number = || text.trim().parse().ok().filter(|n| words.iter().any(|(_, known)| known == n));
        found.or_else(number).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(format_args!("{text:?} is unknown"), format!("write one of: {}", known.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Run {
        threads: Option<u32>,
        disks: Vec<PathBuf>,
        is_dry: bool,
        start: u32,
    }

    const KEYS: &[Key<Run>] = &[
        Key::new(&["threads"], |run, field| field.number().map(|threads| run.threads = threads)),
        Key::new(&["disks", "disk"], |run, field| field.paths().map(|disks| run.disks = disks)),
        Key::new(&["dry_run"], |run, field| field.flag().map(|is_dry| run.is_dry = is_dry)),
        Key::new(&["start"], |run, field| field.choice(&[("boot", 0), ("auto", 2)]).map(|start| run.start = start)),
        Key::without_effect(&["verbose"]),
    ];

    fn read(text: &str) -> Result<(Run, Vec<String>)> {
        let mut document = Document::new("run.yaml", Layer::Cli).in_folder(Path::new("/etc")).ignoring_case();
        let map = document.parse(text, "a configuration", "write lines of the form `key: value`")?;
        let mut run = Run::default();
        document.read(&map, KEYS, &mut run)?;
        Ok((run, document.into_warnings()))
    }

    #[test]
    fn every_spelling_of_a_key_reads_the_same() {
        for text in ["disk: a\nDry-Run: on\nstart: 2\n", "disks: [a]\ndry_run: true\nstart: AUTO\nthreads:\n"] {
            let (run, warnings) = read(text).unwrap();
            assert_eq!(run.disks, [Path::new("/etc/a")]);
            assert_eq!((run.is_dry, run.start, run.threads, warnings.len()), (true, 2, None, 0));
        }
    }

    #[test]
    fn the_table_is_what_a_misspelt_key_is_compared_with() {
        let (_, warnings) = read("thread: 1\nverbose: 1\nfoo: 1\n").unwrap();
        assert_eq!(
            warnings,
            [
                "run.yaml:1: unknown key `thread`; did you mean `threads`?",
                "run.yaml:2: `verbose` has no effect here",
                "run.yaml:3: unknown key `foo`",
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_with_its_line() {
        for (text, place, message) in [
            ("\nthreads: two\n", "run.yaml:2", "`threads`: a number is expected"),
            ("disks: [[a]]\n", "run.yaml:1", "a list of paths is expected"),
            ("dry_run: perhaps\n", "run.yaml:1", "yes or no is expected"),
            ("start:\n", "run.yaml:1", "a value is expected"),
            ("start: late\n", "run.yaml:1", "\"late\" is unknown"),
            ("- a\n", "run.yaml:1", "not a configuration"),
            ("disk: {a: 1}\n", "run.yaml:1", "not the content itself"),
        ] {
            let error = read(text).map(|_| ()).unwrap_err();
            let shown = error.to_string();
            assert!(shown.contains(place) && shown.contains(message), "{shown}");
            assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{shown}");
        }
    }
}
