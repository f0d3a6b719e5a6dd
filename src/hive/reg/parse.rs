//! Reading `.reg` files.

use super::{Document, KeyPath, Section};
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::{Data, Name, ValueType};

const HEADER: &str = "Windows Registry Editor Version 5.00";

pub(super) fn parse(bytes: &[u8], prefix: &KeyPath) -> Result<Document> {
    let units = decode(bytes)?;
    let mut parser = Parser { units: &units, at: 0, line: 1 };
    parser.header()?;
    let mut sections: Vec<Section> = Vec::new();
    while let Some(unit) = parser.next_content() {
        match u8::try_from(unit) {
            Ok(b'[') => sections.push(parser.section(prefix)?),
            Ok(b'"' | b'@') => {
                let value = parser.value()?;
                match sections.last_mut() {
                    Some(section) if !section.delete => section.values.push(value),
                    Some(_) => return Err(parser.error("a value below a key that is deleted")),
                    None => return Err(parser.error("a value before the first key")),
                }
            }
            _ => return Err(parser.error("neither a key nor a value begins here")),
        }
        parser.end_of_line()?;
    }
    Ok(Document { sections })
}

fn decode(bytes: &[u8]) -> Result<Vec<u16>> {
    let wide = |bytes: &[u8], number: fn([u8; 2]) -> u16| bytes.chunks_exact(2).map(|p| number([p[0], p[1]])).collect();
    match bytes {
        [0xFF, 0xFE, rest @ ..] => Ok(wide(rest, u16::from_le_bytes)),
        [0xFE, 0xFF, rest @ ..] => Ok(wide(rest, u16::from_be_bytes)),
        [b'W', 0, ..] => Ok(wide(bytes, u16::from_le_bytes)),
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<Vec<u16>> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes.iter().take(e.valid_up_to()).filter(|&&b| b == b'\n').count();
        usage(line, "not valid UTF-8").hint("save the file as UTF-8 or UTF-16 with a byte order mark")
    })?;
    let mut units = Vec::with_capacity(text.len()); // never more, so it does not grow
    text.chars().for_each(|c| units.extend_from_slice(c.encode_utf16(&mut [0; 2])));
    Ok(units)
}

/// Without the blanks around it.
fn trim(mut line: &[u16]) -> &[u16] {
    const BLANKS: [u16; 2] = [b' ' as u16, b'\t' as u16];
    while let [first, rest @ ..] = line
        && BLANKS.contains(first)
    {
        line = rest;
    }
    while let [rest @ .., last] = line
        && BLANKS.contains(last)
    {
        line = rest;
    }
    line
}

fn usage(line: usize, what: &str) -> Error {
    Error::new(Kind::Usage, Layer::Hive, format!("line {line} of the .reg file: {what}"))
}

struct Parser<'a> {
    units: &'a [u16],
    at: usize,
    line: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, what: &str) -> Error {
        usage(self.line, what).hint("compare with a file that the registry editor exported")
    }

    fn peek(&self) -> Option<u16> {
        self.units.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u16> {
        let unit = self.peek()?;
        self.at += 1;
        if unit == u16::from(b'\n') {
            self.line += 1;
        }
        Some(unit)
    }

    fn take(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte.into());
        if hit {
            self.next();
        }
        hit
    }

    fn take_word(&mut self, word: &str) -> bool {
        let rest = self.units.get(self.at..).unwrap_or_default();
        let lower = |u: u16| u8::try_from(u).map_or(0, |b| b.to_ascii_lowercase());
        let hit = rest.len() >= word.len() && rest.iter().zip(word.bytes()).all(|(&u, b)| lower(u) == b);
        if hit {
            self.at += word.len();
        }
        hit
    }

    fn skip_blanks(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }

    fn header(&mut self) -> Result<()> {
        let end = self.units.iter().position(|&u| u == u16::from(b'\n') || u == u16::from(b'\r'));
        let end = end.unwrap_or(self.units.len());
        self.at = end;
        let first = trim(self.units.get(..end).unwrap_or_default());
        let is = |text: &str| first.iter().copied().eq(text.bytes().map(u16::from));
        if is(HEADER) {
            return Ok(());
        }
        Err(if is("REGEDIT4") {
            usage(1, "version 4 of the format is not read").hint("export it again as version 5")
        } else {
            usage(1, &format!("must be \"{HEADER}\""))
        })
    }

    /// Skips empty lines and comments.
    fn next_content(&mut self) -> Option<u16> {
        loop {
            let unit = self.peek()?;
            match u8::try_from(unit) {
                Ok(b' ' | b'\t' | b'\r' | b'\n') => {
                    self.next();
                }
                Ok(b';') => self.skip_line(),
                _ => return Some(unit),
            }
        }
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|u| u != u16::from(b'\n')) {}
    }

    fn end_of_line(&mut self) -> Result<()> {
        self.skip_blanks();
        match self.peek().map(u8::try_from) {
            None | Some(Ok(b'\r' | b'\n')) => Ok(()),
            Some(Ok(b';')) => {
                self.skip_line();
                Ok(())
            }
            Some(_) => Err(self.error("something follows that does not belong there")),
        }
    }

    /// `[Key]` or `[-Key]`; the name ends at the last bracket of its line.
    fn section(&mut self, prefix: &KeyPath) -> Result<Section> {
        self.next();
        let delete = self.take(b'-');
        let rest = self.units.get(self.at..).unwrap_or_default();
        let line = rest.split(|&u| u == u16::from(b'\n')).next().unwrap_or_default();
        let Some(end) = line.iter().rposition(|&u| u == u16::from(b']')) else {
            return Err(self.error("the key's closing bracket is missing"));
        };
        let full = KeyPath::from_units(line.get(..end).unwrap_or_default());
        self.at += end + 1;
        let path = full.below(prefix).ok_or_else(|| {
            let error = usage(self.line, &format!("the key {full} is not below {prefix}"));
            error.hint("--prefix names the part of the keys that stands for the root of the hive")
        })?;
        Ok(Section { path, delete, values: Vec::new() })
    }

    fn value(&mut self) -> Result<(Name, Option<Data>)> {
        let name = if self.take(b'@') { Name::default() } else { Name::from_units(self.quoted()?) };
        self.skip_blanks();
        if !self.take(b'=') {
            return Err(self.error("a value's name is not followed by ="));
        }
        self.skip_blanks();
        if self.take(b'-') {
            return Ok((name, None));
        }
        Ok((name, Some(self.data()?)))
    }

    /// A text in quotes with its escapes; it may hold line breaks.
    fn quoted(&mut self) -> Result<Vec<u16>> {
        let line = self.line;
        let open = || usage(line, "the closing quote is missing").hint("write \\\" for a quote inside");
        if !self.take(b'"') {
            return Err(self.error("a quote was expected"));
        }
        let mut text = Vec::new();
        loop {
            match self.next().ok_or_else(open)? {
                0x22 => return Ok(text),
                0x5C => text.push(self.next().ok_or_else(open)?),
                unit => text.push(unit),
            }
        }
    }

    fn data(&mut self) -> Result<Data> {
        if self.peek() == Some(b'"'.into()) {
            return self.text_data(ValueType::SZ);
        }
        if self.take_word("dword:") {
            let number = self.hex_number().ok_or_else(|| self.error("dword: needs one to eight hexadecimal digits"))?;
            return Ok(Data::dword(number));
        }
        let is_text = self.take_word("str");
        if !is_text && !self.take_word("hex") {
            return Err(self.error("the data are neither text nor dword: nor hex:"));
        }
        let mut kind = if is_text { ValueType::SZ } else { ValueType::BINARY };
        if self.take(b'(') {
            let number = self.hex_number().filter(|_| self.take(b')'));
            kind = ValueType(number.ok_or_else(|| self.error("the type in brackets makes no sense"))?);
        }
        if !self.take(b':') {
            return Err(self.error("a colon is missing"));
        }
        if is_text { self.text_data(kind) } else { Ok(Data { kind, bytes: self.hex_bytes()? }) }
    }

    fn text_data(&mut self, kind: ValueType) -> Result<Data> {
        let text = self.quoted()?;
        Ok(Data { kind, bytes: text.into_iter().chain([0]).flat_map(u16::to_le_bytes).collect() })
    }

    fn digit(&mut self) -> Option<u32> {
        let digit = u8::try_from(self.peek()?).ok().and_then(|b| char::from(b).to_digit(16))?;
        self.next();
        Some(digit)
    }

    fn hex_number(&mut self) -> Option<u32> {
        let mut number = self.digit()?;
        for _ in 1..8 {
            let Some(digit) = self.digit() else { break };
            number = number << 4 | digit;
        }
        Some(number)
    }

    /// Bytes, separated by commas; a backslash at the end of a line continues on the next.
    fn hex_bytes(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.continuation();
        while let Some(high) = self.digit() {
            let byte = self.digit().map_or(high, |low| high << 4 | low);
            bytes.push(u8::try_from(byte).unwrap_or(0));
            self.continuation();
            if !self.take(b',') {
                break;
            }
            self.continuation();
        }
        Ok(bytes)
    }

    fn continuation(&mut self) {
        loop {
            self.skip_blanks();
            if !self.take(b'\\') {
                return;
            }
            self.skip_blanks();
            self.take(b'\r');
            self.take(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Document> {
        parse(format!("{HEADER}\r\n\r\n{body}").as_bytes(), &KeyPath::from("HKLM"))
    }

    #[test]
    fn every_notation() {
        let text = "; comment\r\n[HKEY_LOCAL_MACHINE\\A\\[b]]\r\n@=\"de\\\"fault\\\\\" ; more\r\n\
            \"d\"=dword:0000001f\r\n\"h\" = hex:01,2,\\\r\n  ff\r\n\"e\"=hex(2):\r\n\"x\"=hex(ffff0012):aa,\\\r\n  bb\r\n\
            \"s\"=str(2):\"%a%\"\r\n\"gone\"=-\r\n\r\n[-HKLM\\C]\r\n";
        let document = read(text).unwrap();
        let [first, second] = &document.sections[..] else { panic!("{document:?}") };
        assert_eq!(first.path.to_string(), "A\\[b]");
        let values: Vec<(String, Option<Data>)> =
            first.values.iter().map(|(n, d)| (n.to_string(), d.clone())).collect();
        let expected = [
            ("", Some(Data::sz("de\"fault\\"))),
            ("d", Some(Data::dword(31))),
            ("h", Some(Data::binary(&[1, 2, 255]))),
            ("e", Some(Data { kind: ValueType::EXPAND_SZ, bytes: vec![] })),
            ("x", Some(Data { kind: ValueType(0xFFFF_0012), bytes: vec![0xAA, 0xBB] })),
            ("s", Some(Data::expand_sz("%a%"))),
            ("gone", None),
        ];
        assert_eq!(values, expected.map(|(n, d)| (n.to_owned(), d)));
        assert!(second.delete && second.path.to_string() == "C");
    }

    #[test]
    fn every_encoding() {
        let text = format!("{HEADER}\n[HKLM\\Ω]\n");
        let units: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = [0xFF, 0xFE].into_iter().chain(units.iter().flat_map(|u| u.to_le_bytes())).collect();
        let big: Vec<u8> = [0xFE, 0xFF].into_iter().chain(units.iter().flat_map(|u| u.to_be_bytes())).collect();
        let marked = [&[0xEF, 0xBB, 0xBF], text.as_bytes()].concat();
        for bytes in [text.as_bytes(), &little, &little[2..], &big, &marked] {
            let document = parse(bytes, &KeyPath::from("HKLM")).unwrap();
            assert_eq!(document.sections[0].path.to_string(), "Ω");
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (body, line) in [
            ("\"a\"=1", 3),
            ("[HKLM\\A]\r\n\"a\"=1", 4),
            ("[HKLM\\A]\r\n\"a=1", 4),
            ("[HKLM\\A\r\n", 3),
            ("[HKCU\\A]\r\n", 3),
            ("[HKLM\\A]\r\n\"a\"=hex(:1", 4),
            ("[HKLM\\A]\r\n\"a\"=dword:1 2", 4),
            ("[-HKLM\\A]\r\n\"a\"=\"\"", 4),
            ("rubbish", 3),
        ] {
            let error = read(body).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(&format!("line {line}")), "{body:?}: {error}");
        }
        assert!(parse(b"REGEDIT4\n", &KeyPath::default()).is_err());
        assert!(parse(b"\xFF\xFF", &KeyPath::default()).is_err());
    }
}
