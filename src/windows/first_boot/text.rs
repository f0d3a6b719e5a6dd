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

/// A text as it stands in a JSON string that a batch file writes; `None` when it cannot. JSON has escapes of ASCII for all
/// that a batch file cannot hold.
pub(super) fn spell_in_json(text: &str) -> Option<String> {
    let mut out = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ b' '..=b'~') if byte != b'"' && byte != b'\\' => out.push(char::from(byte)),
            Ok(b'\\') => out.push_str("\\\\"),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    spell(&out)
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
        assert_eq!(
            spell_in_json("B\u{fc}ro \"1\" \u{1f5a7}").as_deref(),
            Some("B\\u00fcro \\u00221\\u0022 \\ud83d\\udda7")
        );
        assert_eq!(spell_command("a.exe \"b & c\" & d %X%").as_deref(), Some("a.exe \"b & c\" ^& d %X%"));
        assert_eq!(spell_command("a.exe \"b"), None);
        assert_eq!(spell_command("a.exe \u{e4}"), None);
    }
}
