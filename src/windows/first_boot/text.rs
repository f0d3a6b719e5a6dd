//! How text stands in a batch file.
//!
//! `cmd.exe` reads batch files in the OEM code page: plain ASCII, CR LF, no byte-order mark.

/// Lines with CR LF.
pub(super) fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// A text as it stands between quotes in a batch file; `None` when it cannot.
pub(super) fn spell(text: &str) -> Option<String> {
    let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"');
    is_plain.then(|| text.replace('%', "%%"))
}

/// A text as it stands in a JSON string that a batch file writes; `None` when it cannot.
pub(super) fn spell_in_json(text: &str) -> Option<String> {
    spell(text).map(|text| text.replace('\\', "\\\\"))
}

/// A command line as it stands in a batch file, where variables are expanded as in the command line itself; `None` when it
/// cannot.
pub(super) fn spell_command(command: &str) -> Option<String> {
    let mut out = String::new();
    let mut is_quoted = false;
    for letter in command.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ' '..='~' => {}
            _ => return None,
        }
        if !is_quoted && "&|<>^()".contains(letter) {
            out.push('^');
        }
        out.push(letter);
    }
    (!is_quoted).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_cmd_is_spelled_so_that_it_means_nothing() {
        assert_eq!(spell("a b%1&.inf").as_deref(), Some("a b%%1&.inf"));
        assert_eq!(spell("\u{e4}.inf"), None);
        assert_eq!(spell("a\"b"), None);
        assert_eq!(spell_in_json("a\\b.inf").as_deref(), Some("a\\\\b.inf"));
        assert_eq!(spell_command("a.exe \"b & c\" & d %X%").as_deref(), Some("a.exe \"b & c\" ^& d %X%"));
        assert_eq!(spell_command("a.exe \"b"), None);
        assert_eq!(spell_command("a.exe \u{e4}"), None);
    }
}
