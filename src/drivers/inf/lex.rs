//! Lines, fields and sections of an INF.
//!
//! Rules ("General syntax rules for INF files"): a `;` outside quotes starts a comment; a `\` at the end of a line joins
//! the next line; `"` quotes, and `""` inside quotes is one quote; a section of the same name continues the former one;
//! names are compared without case; the text before the first `=` is the key unless a comma comes first.

use std::collections::HashMap;

use super::error::error_at;
use crate::error::Result;

/// Most lines of an INF, far above any real one.
const LINES_MAX: usize = 400_000;
/// Most fields in a line: the longest real ones are binary values of a few hundred bytes.
const FIELDS_MAX: usize = 8192;
/// Longest section name (`MAX_SECT_NAME_LEN`).
const SECTION_NAME_MAX: usize = 255;

/// One entry of a section. Fields are without quotes, with their `%strings%` still as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of its first line in the file, from 1.
    pub number: usize,
    /// The text before the `=`.
    pub key: Option<String>,
    /// The text after the key (of a line without a key: the whole line), split at commas.
    pub fields: Vec<String>,
}

impl Line {
    /// A field by its position, empty if it is missing.
    #[must_use]
    pub fn field(&self, column: usize) -> &str {
        self.fields.get(column).map_or("", String::as_str)
    }

    /// The first field: the value of an entry that has only one.
    #[must_use]
    pub fn value(&self) -> &str {
        self.field(0)
    }

    /// Whether the entry has a key, without regard to case.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.key.as_deref().is_some_and(|k| k.eq_ignore_ascii_case(key))
    }
}

/// All lines of all sections of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name in the spelling of its first header.
    pub name: String,
    /// Line of its first header.
    pub number: usize,
    /// Entries in the order of the file, those of later sections of the same name last.
    pub lines: Vec<Line>,
}

/// The sections of an INF in order, found by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Sections {
    list: Vec<Section>,
    by_name: HashMap<String, usize>,
}

impl Sections {
    pub(super) fn get(&self, name: &str) -> Option<&Section> {
        self.by_name.get(&name.to_lowercase()).and_then(|&i| self.list.get(i))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Section> {
        self.list.iter()
    }

    fn open(&mut self, name: &str, number: usize) -> usize {
        let list = &mut self.list;
        *self.by_name.entry(name.to_lowercase()).or_insert_with(|| {
            list.push(Section { name: name.to_owned(), number, lines: Vec::new() });
            list.len() - 1
        })
    }
}

/// Splits a text into sections.
pub(super) fn sections(text: &str, file: &str) -> Result<Sections> {
    let mut out = Sections::default();
    let mut current = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        if number > LINES_MAX {
            return Err(error_at(file, number, format!("the INF has more than {LINES_MAX} lines")));
        }
        let line = line.trim_matches(is_blank);
        if let Some(rest) = line.strip_prefix('[') {
            current = Some(out.open(section_name(rest, file, number)?, number));
            continue;
        }
        let mut entry = Entry::default();
        entry.feed(line);
        while entry.continues {
            let Some((_, next)) = lines.next() else { break };
            entry.feed(next.trim_matches(is_blank));
            if entry.fields.len() > FIELDS_MAX {
                return Err(error_at(file, number, format!("an entry has more than {FIELDS_MAX} fields")));
            }
        }
        let Some(line) = entry.finish(number) else { continue };
        if line.fields.len() > FIELDS_MAX {
            return Err(error_at(file, number, format!("an entry has more than {FIELDS_MAX} fields")));
        }
        match current.and_then(|i: usize| out.list.get_mut(i)) {
            Some(section) => section.lines.push(line),
            None => return Err(error_at(file, number, "an entry before the first section")),
        }
    }
    Ok(out)
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{1A}' || c == '\0' || c == '\u{FEFF}'
}

fn section_name<'a>(rest: &'a str, file: &str, number: usize) -> Result<&'a str> {
    let end = rest.find(']').ok_or_else(|| error_at(file, number, "a section header without its closing bracket"))?;
    let name = rest[..end].trim_matches(is_blank).trim_matches('"');
    if name.chars().count() > SECTION_NAME_MAX {
        return Err(error_at(file, number, format!("a section name longer than {SECTION_NAME_MAX} characters")));
    }
    Ok(name)
}

/// An entry while its physical lines are read.
#[derive(Default)]
struct Entry {
    key: Option<String>,
    fields: Vec<String>,
    field: String,
    /// Length of `field` up to its last quoted character: blanks before it are not trimmed.
    keep: usize,
    any: bool,
    continues: bool,
}

impl Entry {
    fn feed(&mut self, line: &str) {
        self.continues = false;
        let mut chars = line.char_indices().peekable();
        let mut quoted = false;
        while let Some((at, c)) = chars.next() {
            match c {
                '"' if quoted && chars.peek().is_some_and(|&(_, next)| next == '"') => {
                    chars.next();
                    self.push_quoted('"');
                }
                '"' => {
                    quoted = !quoted;
                    self.any = true;
                    self.keep = self.field.len();
                }
                _ if quoted => self.push_quoted(c),
                ';' => break,
                '\\' if ends(&line[at + 1..]) => {
                    self.continues = true;
                    break;
                }
                '=' if self.key.is_none() && self.fields.is_empty() => {
                    let key = self.take();
                    self.key = Some(key);
                    self.any = true;
                }
                ',' => {
                    let field = self.take();
                    self.fields.push(field);
                    self.any = true;
                }
                _ if is_blank(c) && self.field.is_empty() => {}
                _ => {
                    self.field.push(c);
                    self.any = true;
                }
            }
        }
        // a quotation ends with its line
        if quoted {
            self.keep = self.field.len();
        }
    }

    fn push_quoted(&mut self, c: char) {
        self.field.push(c);
        self.keep = self.field.len();
    }

    fn take(&mut self) -> String {
        let mut field = std::mem::take(&mut self.field);
        let length = field.trim_end_matches(is_blank).len().max(self.keep);
        field.truncate(length);
        self.keep = 0;
        field
    }

    fn finish(mut self, number: usize) -> Option<Line> {
        if !self.any {
            return None;
        }
        let last = self.take();
        if !(last.is_empty() && self.fields.is_empty() && self.key.is_some()) {
            self.fields.push(last);
        }
        Some(Line { number, key: self.key, fields: self.fields })
    }
}

/// Whether nothing but blanks or a comment follows a backslash.
fn ends(rest: &str) -> bool {
    let rest = rest.trim_start_matches(is_blank);
    rest.is_empty() || rest.starts_with(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(Option<String>, Vec<String>)> {
        let sections = sections(&format!("[s]\n{text}"), "x.inf").unwrap();
        sections.get("S").unwrap().lines.iter().map(|l| (l.key.clone(), l.fields.clone())).collect()
    }

    #[track_caller]
    fn one(text: &str, key: Option<&str>, fields: &[&str]) {
        let expected = (key.map(str::to_owned), fields.iter().map(|f| (*f).to_owned()).collect());
        assert_eq!(lines(text), vec![expected], "{text}");
    }

    #[test]
    fn fields_and_keys() {
        one("a = b, c ,d ; comment", Some("a"), &["b", "c", "d"]);
        one("HKR,,Name,,\"x=1;2\"", None, &["HKR", "", "Name", "", "x=1;2"]);
        one("HKR,,Name,,x=1", None, &["HKR", "", "Name", "", "x=1"]);
        one("viostor.sys,,,2", None, &["viostor.sys", "", "", "2"]);
        one("a =", Some("a"), &[]);
        one("a = ,2", Some("a"), &["", "2"]);
        one("1 = %Disk%,,,\"\"", Some("1"), &["%Disk%", "", "", ""]);
        one("alone", None, &["alone"]);
        assert!(lines(" \t ; nothing\n\n").is_empty());
    }

    #[test]
    fn quotes() {
        one(r#"a = "say ""hi"", ok""#, Some("a"), &[r#"say "hi", ok"#]);
        one(r#"a = " blanks ""#, Some("a"), &[" blanks "]);
        one(r#"a = "open, end"#, Some("a"), &["open, end"]);
        one(r#"a = pre" mid "post"#, Some("a"), &["pre mid post"]);
        one(r#"Tx = "Tx Enabled";"#, Some("Tx"), &["Tx Enabled"]);
    }

    #[test]
    fn continuation() {
        one("a = b, \\\n   c, \\ ; why\n d", Some("a"), &["b", "c", "d"]);
        one("a = \"x\\\"", Some("a"), &["x\\"]);
        one("HKR,Ndi\\Params\\x,y", None, &["HKR", "Ndi\\Params\\x", "y"]);
        one("a = b \\", Some("a"), &["b"]);
    }

    #[test]
    fn sections_of_one_name_are_joined_and_named_without_case() {
        let found = sections("[One]\na=1\n[two]\n[ONE]\nb=2\n", "x.inf").unwrap();
        assert_eq!(found.get("one").unwrap().lines.len(), 2);
        assert_eq!(found.get("one").unwrap().lines[1].number, 5);
        assert_eq!(found.iter().count(), 2);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [("[a\n", 1), ("\nb = 1\n[a]\n", 2)] {
            let error = sections(text, "x.inf").err().unwrap().to_string();
            assert!(error.contains(&format!("x.inf:{line}:")), "{error}");
        }
    }
}
