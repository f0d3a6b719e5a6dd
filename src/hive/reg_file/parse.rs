//! Reading `.reg` files.

use std::io::Read;

use super::document::{Document, Section};
use super::path::KeyPath;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hive::{Name, RegistryData, ValueType};

const TOO_LONG: &str = "the data of the value are too long for a hive";

const HEADER: &str = "Windows Registry Editor Version 5.00";

/// Bytes that are read from the file at once.
const CHUNK: usize = 64 << 10;

/// Longest line of a key, in code units: 512 levels of 255 units, and what stands for the root.
const KEY_LINE_MAX: usize = 256 << 10;

/// Longest name of a value, in code units: what a cell can say.
const NAME_MAX: usize = 0x7FFF;

/// Longest data of a value, in bytes: more than big data of 65,535 segments can hold.
const DATA_MAX: usize = 1 << 30;

/// A line of a `.reg` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegEntry {
    /// `[Key]`, or `[-Key]` with `delete`. The path is that from the root of the hive.
    Key {
        /// From the root of the hive.
        path: KeyPath,
        /// The key is to be deleted.
        delete: bool,
    },
    /// A value of the last key: what it is set to, or `None` when it is to be deleted.
    Value(Name, Option<RegistryData>),
}

impl Document {
    /// Reads a file: UTF-16 with a byte order mark, or UTF-8.
    ///
    /// # Errors
    /// A usage error with the number of the line that makes no sense; a key that is not below `prefix`.
    pub fn parse(mut bytes: &[u8], prefix: &KeyPath) -> Result<Self> {
        let mut parser = Parser::new(&mut bytes, prefix)?;
        let mut sections: Vec<Section> = Vec::new();
        while let Some(entry) = parser.next_entry()? {
            match entry {
                RegEntry::Key { path, delete } => sections.push(Section { path, delete, values: Vec::new() }),
                RegEntry::Value(name, data) => {
                    if let Some(section) = sections.last_mut() {
                        section.values.push((name, data));
                    }
                }
            }
        }
        Ok(Self { sections })
    }
}

/// How a file is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

/// The code units of a file, read and decoded chunk by chunk.
struct Units<'r> {
    input: &'r mut dyn Read,
    encoding: Encoding,
    /// What was read, but not decoded yet: less than a character, except at the beginning.
    raw: Vec<u8>,
    decoded: Vec<u16>,
    /// How much of `decoded` was taken.
    at: usize,
    /// Line breaks that were decoded.
    breaks: usize,
    is_ended: bool,
    /// What ended the file too early.
    failure: Option<Error>,
}

impl<'r> Units<'r> {
    fn new(input: &'r mut dyn Read) -> Self {
        let mut units = Self {
            input,
            encoding: Encoding::Utf8,
            raw: Vec::new(),
            decoded: Vec::new(),
            at: 0,
            breaks: 0,
            is_ended: false,
            failure: None,
        };
        while units.raw.len() < 3 && units.read() {}
        let (encoding, mark) = match units.raw.as_slice() {
            [0xFF, 0xFE, ..] => (Encoding::Utf16Le, 2),
            [0xFE, 0xFF, ..] => (Encoding::Utf16Be, 2),
            [b'W', 0, ..] => (Encoding::Utf16Le, 0),
            [0xEF, 0xBB, 0xBF, ..] => (Encoding::Utf8, 3),
            _ => (Encoding::Utf8, 0),
        };
        units.encoding = encoding;
        units.raw.drain(..mark);
        units.decode();
        units
    }

    /// Reads a chunk; false at the end.
    fn read(&mut self) -> bool {
        let read = self.input.take(CHUNK as u64).read_to_end(&mut self.raw);
        match read {
            Ok(0) => self.is_ended = true,
            Ok(_) => {}
            Err(error) => {
                self.is_ended = true;
                self.failure = Some(Error::io(Layer::Host, "cannot read the .reg file", error));
            }
        }
        !self.is_ended
    }

    fn decode(&mut self) {
        let used = match self.encoding {
            Encoding::Utf16Le => self.decode_pairs(u16::from_le_bytes),
            Encoding::Utf16Be => self.decode_pairs(u16::from_be_bytes),
            Encoding::Utf8 => self.decode_utf8(),
        };
        self.raw.drain(..used.min(self.raw.len()));
    }

    fn decode_pairs(&mut self, unit: fn([u8; 2]) -> u16) -> usize {
        let pairs = self.raw.as_chunks::<2>().0;
        self.decoded.extend(pairs.iter().map(|&pair| unit(pair)));
        2 * pairs.len()
    }

    fn decode_utf8(&mut self) -> usize {
        let (text, is_invalid) = match std::str::from_utf8(&self.raw) {
            Ok(text) => (text, false),
            Err(error) => {
                let valid = self.raw.get(..error.valid_up_to()).unwrap_or_default();
                let is_invalid = error.error_len().is_some() || self.is_ended;
                (std::str::from_utf8(valid).unwrap_or_default(), is_invalid)
            }
        };
        self.decoded.extend(text.encode_utf16());
        self.breaks += text.bytes().filter(|&b| b == b'\n').count();
        if is_invalid && self.failure.is_none() {
            let error = usage(1 + self.breaks, "not valid UTF-8");
            self.failure = Some(error.hint("save the file as UTF-8 or UTF-16 with a byte order mark"));
        }
        self.is_ended |= is_invalid;
        text.len()
    }

    /// The next units, as many as `wanted` if the file has them.
    fn ahead(&mut self, wanted: usize) -> &[u16] {
        while self.decoded.len() - self.at < wanted && !self.is_ended {
            self.decoded.drain(..self.at);
            self.at = 0;
            self.read();
            self.decode();
        }
        self.decoded.get(self.at..).unwrap_or_default()
    }

    fn peek(&mut self) -> Option<u16> {
        match self.decoded.get(self.at) {
            Some(&unit) => Some(unit),
            None => self.ahead(1).first().copied(),
        }
    }
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
    Error::new(Kind::Usage, Layer::Hive, format!("line {line} of the .reg file: {what}")).with_code(ErrorCode::RegFile)
}

/// Reads a `.reg` file piece by piece: UTF-16 with a byte order mark, or UTF-8.
pub struct Parser<'r> {
    units: Units<'r>,
    prefix: KeyPath,
    line: usize,
    /// Whether the last key is to be deleted; `None` before the first.
    is_deleted: Option<bool>,
}

impl<'r> Parser<'r> {
    /// Reads the header. Keys must be below `prefix`, which stands for the root of the hive.
    ///
    /// # Errors
    /// A usage error when it is not a `.reg` file of version 5; an I/O error.
    pub fn new(input: &'r mut dyn Read, prefix: &KeyPath) -> Result<Self> {
        let units = Units::new(input);
        let mut parser = Self { units, prefix: prefix.clone(), line: 1, is_deleted: None };
        let header = parser.header();
        parser.or_failure(header)?;
        Ok(parser)
    }

    /// The next key or value; `None` at the end of the file.
    ///
    /// # Errors
    /// A usage error with the number of the line that makes no sense; a key that is not below the prefix; an I/O error.
    pub fn next_entry(&mut self) -> Result<Option<RegEntry>> {
        let entry = self.entry();
        self.or_failure(entry)
    }

    /// Where the file ended too early, that is the error.
    fn or_failure<T>(&mut self, result: Result<T>) -> Result<T> {
        let is_at_end = self.units.at >= self.units.decoded.len();
        match self.units.failure.take_if(|_| result.is_err() || is_at_end) {
            Some(failure) => Err(failure),
            None => result,
        }
    }

    fn entry(&mut self) -> Result<Option<RegEntry>> {
        let Some(unit) = self.next_content() else { return Ok(None) };
        let entry = match (u8::try_from(unit), self.is_deleted) {
            (Ok(b'['), _) => self.section()?,
            (Ok(b'"' | b'@'), Some(false)) => self.value()?,
            (Ok(b'"' | b'@'), Some(true)) => return Err(self.error("a value below a key that is deleted")),
            (Ok(b'"' | b'@'), None) => return Err(self.error("a value before the first key")),
            _ => return Err(self.error("neither a key nor a value begins here")),
        };
        self.end_of_line()?;
        Ok(Some(entry))
    }

    fn error(&self, what: &str) -> Error {
        usage(self.line, what).hint("compare with a file that the registry editor exported")
    }

    fn peek(&mut self) -> Option<u16> {
        self.units.peek()
    }

    fn next(&mut self) -> Option<u16> {
        let unit = self.peek()?;
        self.units.at += 1;
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
        let rest = self.units.ahead(word.len());
        let lower = |u: u16| u8::try_from(u).map_or(0, |b| b.to_ascii_lowercase());
        let hit = rest.len() >= word.len() && rest.iter().zip(word.bytes()).all(|(&u, b)| lower(u) == b);
        if hit {
            self.units.at += word.len();
        }
        hit
    }

    fn skip_blanks(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }

    fn header(&mut self) -> Result<()> {
        const LINE_MAX: usize = 4096;
        let ahead = self.units.ahead(LINE_MAX);
        let end = ahead.iter().take(LINE_MAX).position(|&u| u == u16::from(b'\n') || u == u16::from(b'\r'));
        let end = end.unwrap_or(ahead.len().min(LINE_MAX));
        let first = trim(ahead.get(..end).unwrap_or_default());
        let is = |text: &str| first.iter().copied().eq(text.bytes().map(u16::from));
        let (is_header, is_old) = (is(HEADER), is("REGEDIT4"));
        self.units.at += end;
        if is_header {
            return Ok(());
        }
        Err(if is_old {
            usage(1, "version 4 of the format (REGEDIT4) is not read").hint(format!(
                "on a Windows, `reg import OLD.reg` and then `reg export KEY NEW.reg` convert it; if it is all ASCII and has \
                 no hex(2) and hex(7) values, write \"{HEADER}\" in place of its first line"
            ))
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
    fn section(&mut self) -> Result<RegEntry> {
        self.next();
        let delete = self.take(b'-');
        let length = self.length_of_line();
        if length > KEY_LINE_MAX {
            return Err(self.error("the key is too long"));
        }
        let line = self.units.ahead(length);
        let end = line.get(..length).and_then(|line| line.iter().rposition(|&u| u == u16::from(b']')));
        let Some(end) = end else {
            return Err(self.error("the key's closing bracket is missing"));
        };
        let full = KeyPath::from_units(line.get(..end).unwrap_or_default());
        self.units.at += end + 1;
        let path = full.below(&self.prefix).ok_or_else(|| {
            let error = usage(self.line, &format!("the key {full} is not below {}", self.prefix));
            error.hint("--prefix names the part of the keys that stands for the root of the hive")
        })?;
        self.is_deleted = Some(delete);
        Ok(RegEntry::Key { path, delete })
    }

    /// Units up to the end of the line; more than [`KEY_LINE_MAX`] for one that is too long.
    fn length_of_line(&mut self) -> usize {
        let mut length = 0;
        loop {
            let ahead = self.units.ahead(length + 1);
            let rest = ahead.get(length..).unwrap_or_default();
            match rest.iter().position(|&u| u == u16::from(b'\n')) {
                Some(more) => return length + more,
                None if rest.is_empty() => return length,
                None if ahead.len() > KEY_LINE_MAX => return ahead.len(),
                None => length = ahead.len(),
            }
        }
    }

    fn value(&mut self) -> Result<RegEntry> {
        let name = if self.take(b'@') { Name::default() } else { self.name()? };
        self.skip_blanks();
        if !self.take(b'=') {
            return Err(self.error("a value's name is not followed by ="));
        }
        self.skip_blanks();
        if self.take(b'-') {
            return Ok(RegEntry::Value(name, None));
        }
        Ok(RegEntry::Value(name, Some(self.data()?)))
    }

    fn name(&mut self) -> Result<Name> {
        let mut units = Vec::new();
        let line = self.line;
        self.quoted(&mut |unit| {
            units.push(unit);
            if units.len() > NAME_MAX { Err(usage(line, "the name of the value is too long")) } else { Ok(()) }
        })?;
        Ok(Name::from_units(units))
    }

    /// A text in quotes with its escapes; it may hold line breaks.
    fn quoted(&mut self, put: &mut dyn FnMut(u16) -> Result<()>) -> Result<()> {
        let line = self.line;
        let open = || usage(line, "the closing quote is missing").hint("write \\\" for a quote inside");
        if !self.take(b'"') {
            return Err(self.error("a quote was expected"));
        }
        loop {
            match self.next().ok_or_else(open)? {
                0x22 => return Ok(()),
                0x5C => put(self.next().ok_or_else(open)?)?,
                unit => put(unit)?,
            }
        }
    }

    fn data(&mut self) -> Result<RegistryData> {
        if self.peek() == Some(b'"'.into()) {
            return self.text_data(ValueType::SZ);
        }
        if self.take_word("dword:") {
            let number = self.hex_number().ok_or_else(|| self.error("dword: needs one to eight hexadecimal digits"))?;
            return Ok(RegistryData::dword(number));
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
        if is_text { self.text_data(kind) } else { Ok(RegistryData { kind, bytes: self.hex_bytes()? }) }
    }

    fn text_data(&mut self, kind: ValueType) -> Result<RegistryData> {
        let mut bytes = Vec::new();
        let line = self.line;
        self.quoted(&mut |unit| {
            bytes.extend_from_slice(&unit.to_le_bytes());
            if bytes.len() > DATA_MAX { Err(usage(line, TOO_LONG)) } else { Ok(()) }
        })?;
        bytes.extend_from_slice(&[0, 0]);
        Ok(RegistryData { kind, bytes })
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
            if bytes.len() > DATA_MAX {
                return Err(self.error(TOO_LONG));
            }
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
        Document::parse(format!("{HEADER}\r\n\r\n{body}").as_bytes(), &KeyPath::from("HKLM"))
    }

    #[test]
    fn every_notation() {
        let text = "; comment\r\n[HKEY_LOCAL_MACHINE\\A\\[b]]\r\n@=\"de\\\"fault\\\\\" ; more\r\n\
            \"d\"=dword:0000001f\r\n\"h\" = hex:01,2,\\\r\n  ff\r\n\"e\"=hex(2):\r\n\"x\"=hex(ffff0012):aa,\\\r\n  bb\r\n\
            \"s\"=str(2):\"%a%\"\r\n\"gone\"=-\r\n\r\n[-HKLM\\C]\r\n";
        let document = read(text).unwrap();
        let [first, second] = &document.sections[..] else { panic!("{document:?}") };
        assert_eq!(first.path.to_string(), "A\\[b]");
        let values: Vec<(String, Option<RegistryData>)> =
            first.values.iter().map(|(n, d)| (n.to_string(), d.clone())).collect();
        let expected = [
            ("", Some(RegistryData::sz("de\"fault\\"))),
            ("d", Some(RegistryData::dword(31))),
            ("h", Some(RegistryData::binary([1, 2, 255]))),
            ("e", Some(RegistryData { kind: ValueType::EXPAND_SZ, bytes: vec![] })),
            ("x", Some(RegistryData { kind: ValueType(0xFFFF_0012), bytes: vec![0xAA, 0xBB] })),
            ("s", Some(RegistryData::expand_sz("%a%"))),
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
            let document = Document::parse(bytes, &KeyPath::from("HKLM")).unwrap();
            assert_eq!(document.sections[0].path.to_string(), "Ω");
        }
    }

    /// Gives one byte at a time.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let length = buf.len().min(1);
            self.0.read(buf.get_mut(..length).unwrap_or_default())
        }
    }

    /// Characters, words and lines lie across the borders of what is read at once.
    #[test]
    fn the_borders_of_chunks_do_not_matter() {
        let mut text = format!("{HEADER}\r\n\r\n");
        for i in 0..3000 {
            text += &format!(
                "[HKLM\\𝄞 key {i}]\r\n\"Ω{i}\"=dword:{i:08x}\r\n\"b\"=hex(7):01,02,\\\r\n  03\r\n@=\"𝄞\\\\\"\r\n"
            );
        }
        let wide: Vec<u8> = [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let prefix = KeyPath::from("HKLM");
        let mut sections = Vec::new();
        for bytes in [text.as_bytes(), &wide] {
            let document = Document::parse(bytes, &prefix).unwrap();
            assert_eq!(document.sections.len(), 3000);
            assert!(document.sections.iter().all(|section| section.values.len() == 3));
            let mut input = Slowly(bytes);
            let mut parser = Parser::new(&mut input, &prefix).unwrap();
            let mut entries = 0;
            while parser.next_entry().unwrap().is_some() {
                entries += 1;
            }
            assert_eq!(entries, 12_000);
            sections.push(document.sections);
        }
        assert_eq!(sections[0], sections[1]);
        let line = text.lines().count() + 1;
        let broken = [text.as_bytes(), b"[HKLM\\\xFF]\r\n"].concat();
        let error = Document::parse(&broken, &prefix).unwrap_err().to_string();
        assert!(error.contains(&format!("line {line}")) && error.contains("UTF-8"), "{error}");
    }

    /// What never ends is refused before it fills the memory.
    #[test]
    fn endless_lines_are_refused() {
        let begun = format!("{HEADER}\r\n[HKLM\\A]\r\n");
        for (start, what) in [
            (String::new(), "must be"),
            (format!("{begun}[HKLM\\"), "the key is too long"),
            (format!("{begun}\""), "the name of the value is too long"),
        ] {
            let mut input = start.as_bytes().chain(std::io::repeat(b'x'));
            let read = Parser::new(&mut input, &KeyPath::from("HKLM")).and_then(|mut parser| {
                while parser.next_entry()?.is_some() {}
                Ok(())
            });
            let error = read.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
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
        assert!(Document::parse(b"REGEDIT4\n", &KeyPath::default()).is_err());
        assert!(Document::parse(b"\xFF\xFF", &KeyPath::default()).is_err());
    }
}
