//! `%strings%` and their language sections.

use std::collections::BTreeMap;

use super::error::error_at;
use super::lex::{Section, Sections};
use crate::error::Result;

/// Longest string after expansion (`MAX_INF_STRING_LENGTH`).
const STRING_MAX: usize = 4096;
/// Deepest nesting of strings that use other strings.
const DEPTH_MAX: usize = 16;

/// The strings of an INF for one language, by lower-case name, with the strings that they use expanded.
#[derive(Debug, Clone, Default)]
pub(super) struct Strings(BTreeMap<String, String>);

impl Strings {
    /// `[Strings]`, then the primary language's section over it, then the language's own.
    pub(super) fn read(sections: &Sections, language: u16, file: &str) -> Result<Self> {
        let names =
            ["strings".to_owned(), format!("strings.{:04x}", language & 0x3FF), format!("strings.{language:04x}")];
        let mut raw: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for section in names.iter().filter_map(|name| sections.get(name)) {
            raw.extend(entries(section));
        }
        let mut out = BTreeMap::new();
        for (name, (line, value)) in &raw {
            let resolved = resolve(value, &raw).ok_or_else(|| {
                error_at(file, *line, format!("the string %{name}% contains itself, or is far too long"))
            })?;
            out.insert(name.clone(), resolved.replace("%%", "%"));
        }
        Ok(Self(out))
    }

    pub(super) fn resolved(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub(super) fn expand(&self, text: &str) -> String {
        if !text.contains('%') {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Percent => out.push('%'),
                Piece::Token(name) => match self.0.get(&name.to_lowercase()) {
                    Some(value) => out.push_str(value),
                    None => out.extend(["%", name, "%"]),
                },
            }
        }
        out
    }

    /// The names in a text that are neither strings nor directory ids.
    pub(super) fn unknown<'a>(&self, text: &'a str) -> Vec<&'a str> {
        pieces(text)
            .filter_map(|piece| match piece {
                Piece::Token(name) if name.parse::<u32>().is_err() && !self.0.contains_key(&name.to_lowercase()) => {
                    Some(name)
                }
                _ => None,
            })
            .collect()
    }
}

fn entries(section: &Section) -> impl Iterator<Item = (String, (usize, String))> {
    section.lines.iter().filter_map(|line| {
        let key = line.key.as_ref()?.to_lowercase();
        // a value with commas that are not quoted keeps them
        Some((key, (line.number, line.fields.join(","))))
    })
}

/// Expands a string until it uses no other; `None` if strings use each other in a loop.
fn resolve(value: &str, raw: &BTreeMap<String, (usize, String)>) -> Option<String> {
    let mut current = value.to_owned();
    for _ in 0..DEPTH_MAX {
        let mut next = String::with_capacity(current.len());
        let mut changed = false;
        for piece in pieces(&current) {
            match piece {
                Piece::Text(text) => next.push_str(text),
                Piece::Percent => next.push_str("%%"),
                Piece::Token(name) => match raw.get(&name.to_lowercase()) {
                    Some((_, value)) => {
                        next.push_str(value);
                        changed = true;
                    }
                    None => next.extend(["%", name, "%"]),
                },
            }
            if changed && next.len() > STRING_MAX {
                return None;
            }
        }
        if !changed {
            return Some(next);
        }
        current = next;
    }
    None
}

enum Piece<'a> {
    Text(&'a str),
    /// `%%`, which stands for a percent sign.
    Percent,
    Token(&'a str),
}

/// Splits a text at its percent signs. A single one without a partner is text.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(inner) = rest.strip_prefix('%') else {
            let (text, after) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
            rest = after;
            return Some(Piece::Text(text));
        };
        match inner.find('%') {
            Some(0) => {
                rest = &inner[1..];
                Some(Piece::Percent)
            }
            Some(end) => {
                rest = &inner[end + 1..];
                Some(Piece::Token(&inner[..end]))
            }
            None => Some(Piece::Text(std::mem::take(&mut rest))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::lex;
    use super::*;

    fn strings(text: &str, language: u16) -> Result<Strings> {
        Strings::read(&lex::sections(text, "x.inf")?, language, "x.inf")
    }

    #[test]
    fn expansion() {
        let strings = strings("[Strings]\nVendor = \"Red Hat, Inc.\"\nnested = \"by %vendor%\"\n", 0x409).unwrap();
        assert_eq!(strings.expand("%VENDOR%!"), "Red Hat, Inc.!");
        assert_eq!(strings.expand("%nested%"), "by Red Hat, Inc.");
        assert_eq!(strings.expand("%%SystemRoot%%\\x"), "%SystemRoot%\\x");
        assert_eq!(strings.expand("%12%\\x.sys"), "%12%\\x.sys");
        assert_eq!(strings.expand("%what% 50%"), "%what% 50%");
        assert_eq!(strings.unknown("%what% %12% %vendor% %%x%%"), ["what"]);
    }

    #[test]
    fn languages() {
        let text = "[Strings]\na=base\nb=base\nc=base\n[Strings.0007]\nb=german\nc=german\n[Strings.0407]\nc=germany\n";
        let german = strings(text, 0x0407).unwrap();
        assert_eq!(["%a%", "%b%", "%c%"].map(|t| german.expand(t)), ["base", "german", "germany"]);
        assert_eq!(strings(text, 0x0409).unwrap().expand("%c%"), "base");
    }

    #[test]
    fn cycles_and_bombs_are_errors_with_their_line() {
        let error = strings("[Strings]\na=%b%\nb=%a%\n", 0x409).unwrap_err().to_string();
        assert!(error.contains("x.inf:2") && error.contains("contains itself"), "{error}");
        let mut bomb = "[Strings]\ns0 = aaaaaaaaaaaaaaaa\n".to_owned();
        for level in 1..30 {
            bomb += &format!("s{level} = {}\n", format!("%s{}%", level - 1).repeat(16));
        }
        assert!(strings(&bomb, 0x409).is_err());
    }
}
