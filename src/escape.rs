//! Text of guests, media and hosts inside our own lines: the one place that makes control characters visible.
//!
//! A string of an image must neither begin a line of its own in an answer, a log or a report, nor steer a terminal, nor
//! reverse what is read. JSON keeps every string as it is: there, [`json`] escapes in JSON's own way.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// The text in one line: line breaks, other control characters (C0, DEL, C1), characters that change the direction of
/// writing, and code points that are no characters become `\u{…}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_steering) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_steering(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// The text with at most `length` characters: the end of a longer one becomes `…`.
#[must_use]
pub fn shorten(text: &str, length: usize) -> Cow<'_, str> {
    match text.char_indices().nth(length) {
        None => Cow::Borrowed(text),
        Some(_) => Cow::Owned(text.chars().take(length.saturating_sub(1)).chain(['…']).collect()),
    }
}

/// The text as one word of a POSIX shell, quoted if need be; `None` for one that cannot be pasted.
#[must_use]
pub fn shell_word(text: &str) -> Option<String> {
    if escape(text) != text {
        return None;
    }
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return Some(text.to_owned());
    }
    Some(format!("'{}'", text.replace('\'', "'\\''")))
}

/// The path as an argument of a command in a POSIX shell: one word, and never taken for an option; `None` for one that
/// cannot be pasted.
#[must_use]
pub fn shell_path(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    if text.starts_with('-') { shell_word(&format!("./{text}")) } else { shell_word(text) }
}

/// The path as an argument of a command in a hint; `placeholder` for one that cannot be pasted.
#[must_use]
pub fn shell_argument(path: &Path, placeholder: &str) -> String {
    shell_path(path).unwrap_or_else(|| placeholder.to_owned())
}

/// The option with each of these paths, as they stand in a command in a hint: ` --drivers a --drivers 'b c'`.
#[must_use]
pub fn shell_options<'a>(option: &str, paths: impl Iterator<Item = &'a PathBuf>) -> String {
    paths.map(|path| format!(" {option} {}", shell_argument(path, "PATH"))).collect()
}

/// The text in one line of Markdown, without mark-up. It may not stand at the beginning of a line.
#[must_use]
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '|' | '<' | '>' | '[' | ']' | '&') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The text in one line of HTML, between tags or in a quoted attribute.
#[must_use]
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The text in one line of XML 1.0, between tags or in a quoted attribute: what XML forbids is escaped as in other lines.
#[must_use]
pub fn xml(text: &str) -> String {
    // `html` uses no entity that XML does not have, and leaves no character that XML forbids.
    html(text)
}

/// A JSON document with the same characters written as `\uXXXX`; line breaks between its tokens stay. (In a document
/// they can stand inside strings only.)
#[must_use]
pub fn json(document: String) -> String {
    use fmt::Write as _;
    let is_special = |c: char| is_steering(c) && c != '\n';
    // Documents are long, and almost all of their bytes are plain.
    let is_plain = |byte: u8| matches!(byte, b'\n' | b' '..=b'~');
    let char_at = |at: usize| document.get(at..)?.chars().next();
    let mut others = document.bytes().enumerate().filter(|(_, byte)| !is_plain(*byte));
    if others.all(|(at, _)| char_at(at).is_none_or(|c| !is_special(c))) {
        return document;
    }
    let mut out = String::with_capacity(document.len() + 64);
    for c in document.chars() {
        if is_special(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character breaks a line, steers a terminal or changes the direction of writing (Unicode 15, section 23.2
/// and UAX 9), or is invisible and belongs to none of the scripts; or whether it is a noncharacter (section 23.7), of which
/// YAML and XML forbid some.
fn is_steering(c: char) -> bool {
    c.is_control()
        || u32::from(c) & 0xfffe == 0xfffe
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A writer of lines: what one `write!` or `writeln!` writes stays in one line, whatever strings it is made of. Only a
/// line break at the very end is one.
///
/// ```
/// use std::fmt::Write as _;
/// let mut page = String::new();
/// let mut lines = winject::internals::escape::EscapedLines::new(&mut page);
/// writeln!(lines, "Label: {}", "a\nState: clean")?;
/// assert_eq!(page, "Label: a\\u{a}State: clean\n");
/// # Ok::<(), std::fmt::Error>(())
/// ```
#[derive(Debug)]
pub struct EscapedLines<W>(W);

impl<W: fmt::Write> EscapedLines<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self(out)
    }

    /// What was written to, or its copy.
    pub fn into_inner(self) -> W {
        self.0
    }
}

impl<W: fmt::Write> fmt::Write for EscapedLines<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.strip_suffix('\n') {
            Some(line) => self.0.write_str(&escape(line)).and_then(|()| self.0.write_char('\n')),
            None => self.0.write_str(&escape(text)),
        }
    }

    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> fmt::Result {
        // Whole, because a line break at the end of one argument is not at the end of the line.
        self.write_str(&arguments.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fmt::Write as _;

    #[test]
    fn what_steers_is_made_visible() {
        assert_eq!(escape("a\u{1b}[2Jb\r\n\tc\u{7f}\u{9b}d"), "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9}c\\u{7f}\\u{9b}d");
        assert_eq!(escape("exe.\u{202e}fdp\u{2066}\u{61c}"), "exe.\\u{202e}fdp\\u{2066}\\u{61c}");
        assert_eq!(escape("a\u{2028}b\u{2029}c\u{85}"), "a\\u{2028}b\\u{2029}c\\u{85}");
        assert_eq!(
            escape("\u{fffd}a\u{fffe}\u{ffff}b\u{fdd0}\u{1fffe}"),
            "\u{fffd}a\\u{fffe}\\u{ffff}b\\u{fdd0}\\u{1fffe}"
        );
        assert!(matches!(escape("Grüße, 你好, שלום, می\u{200c}خواهم"), Cow::Borrowed(_)));
        assert_eq!(escape(&escape("a\nb")), escape("a\nb"), "twice is once");
    }

    #[test]
    fn a_long_text_ends_with_an_ellipsis() {
        for (text, short) in [("", ""), ("Bür", "Bür"), ("Büro", "Bü…")] {
            assert_eq!(shorten(text, 3), short);
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in [
            ("/a/i-1.raw", Some("/a/i-1.raw")),
            ("-i.raw", Some("./-i.raw")),
            ("it's a disk", Some("'it'\\''s a disk'")),
            ("-a $b", Some("'./-a $b'")),
            ("~/i.raw", Some("'~/i.raw'")),
            ("a\nb", None),
        ] {
            assert_eq!(shell_path(Path::new(path)).as_deref(), word);
        }
    }

    #[test]
    fn json_gives_every_string_back() {
        let text: String = (0..0x300)
            .chain(0x2000..0x2070)
            .chain(0xfdc0..0xfe00)
            .chain(0xfef0..0x1_0001)
            .chain([0xe0041, 0x1_f600, 0x1_fffe, 0x10_ffff])
            .filter_map(char::from_u32)
            .collect();
        let document = json(serde_json::to_string_pretty(&[&text]).unwrap());
        assert!(!document.contains(|c: char| is_steering(c) && c != '\n'), "{document}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&document).unwrap()[0], text);
    }

    #[test]
    fn one_call_is_one_line() {
        let mut lines = EscapedLines::new(String::new());
        let (first, second) = ("a\n", "b\nc\n");
        writeln!(lines, "{first}{second}").unwrap();
        write!(lines, "d").unwrap();
        assert_eq!(lines.into_inner(), "a\\u{a}b\\u{a}c\\u{a}\nd");
    }
}
