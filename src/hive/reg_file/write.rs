//! Writing `.reg` files.

use super::document::{Document, RegSink};
use super::path::KeyPath;
use crate::error::{Error, Layer, Result};
use crate::field::utf16_units;
use crate::hive::{Name, RegistryData, ValueType};

/// Where the registry editor breaks lines of bytes.
const COLUMNS: usize = 77;

/// Code units that are gathered before they are handed on.
const CHUNK: usize = 32 << 10;

/// Writes a `.reg` file while it is being made: a [`RegSink`] that hands its text on in chunks of some 64 KiB, of which
/// none ends within a character or a line break.
pub struct Writer<'w> {
    chunk: Vec<u16>,
    /// Code units that were handed on.
    passed: usize,
    prefix: &'w KeyPath,
    is_ascii: bool,
    is_shown: bool,
    has_full_paths: bool,
    is_in_section: bool,
    put: &'w mut dyn FnMut(&[u16]) -> Result<()>,
}

impl<'w> Writer<'w> {
    /// Begins a file. `prefix` stands for the root of the hive; with `is_ascii`, texts that are not ASCII are written as
    /// bytes. `put` takes the text: UTF-16 code units without a byte order mark.
    #[must_use]
    pub fn new(prefix: &'w KeyPath, is_ascii: bool, put: &'w mut dyn FnMut(&[u16]) -> Result<()>) -> Self {
        let chunk = "Windows Registry Editor Version 5.00\r\n\r\n".encode_utf16().collect();
        Self { chunk, passed: 0, prefix, is_ascii, is_shown: false, has_full_paths: false, is_in_section: false, put }
    }

    /// For paths that begin with a root key of the registry and take no prefix, where a file holds keys of several hives.
    #[must_use]
    pub fn with_full_paths(mut self, has_full_paths: bool) -> Self {
        self.has_full_paths = has_full_paths;
        self
    }

    /// For a reader on a terminal, not for a file: a line break in the name of a value becomes `\u{…}`, so that it
    /// begins no line.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.is_shown = true;
        self
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn finish(mut self) -> Result<()> {
        self.end_section();
        (self.put)(&self.chunk)
    }

    fn end_section(&mut self) {
        if self.is_in_section {
            self.text("\r\n");
        }
        self.is_in_section = false;
    }

    fn text(&mut self, text: &str) {
        self.chunk.extend(text.encode_utf16());
    }

    fn pass_on(&mut self) -> Result<()> {
        let is_within = |unit: &u16| *unit == u16::from(b'\r') || (0xD800..0xDC00).contains(unit);
        if self.chunk.len() >= CHUNK && !self.chunk.last().is_some_and(is_within) {
            (self.put)(&self.chunk)?;
            self.passed += self.chunk.len();
            self.chunk.clear();
        }
        Ok(())
    }

    fn quoted(&mut self, units: impl Iterator<Item = u16>) -> Result<()> {
        self.text("\"");
        for unit in units {
            if unit == u16::from(b'"') || unit == u16::from(b'\\') {
                self.text("\\");
            }
            if self.is_shown && (unit == u16::from(b'\r') || unit == u16::from(b'\n')) {
                self.text(&format!("\\u{{{unit:x}}}"));
            } else {
                self.chunk.push(unit);
            }
            self.pass_on()?;
        }
        self.text("\"");
        Ok(())
    }

    /// Bytes, on a line that began after `start` code units of the file.
    fn hex(&mut self, start: usize, kind: ValueType, data: &[u8]) -> Result<()> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map_or(0, u16::from);
        if kind == ValueType::BINARY {
            self.text("hex:");
        } else {
            self.text(&format!("hex({:x}):", kind.0));
        }
        let mut column = self.passed + self.chunk.len() - start;
        for (i, byte) in data.iter().enumerate() {
            if i > 0 {
                self.chunk.push(b','.into());
                column += 1;
                if column >= COLUMNS {
                    self.text("\\\r\n  ");
                    column = 2;
                    self.pass_on()?;
                }
            }
            self.chunk.extend([digit(byte >> 4), digit(byte & 15)]);
            column += 2;
        }
        Ok(())
    }
}

impl RegSink for Writer<'_> {
    fn key(&mut self, path: &KeyPath, delete: bool) -> Result<()> {
        self.end_section();
        self.is_in_section = true;
        self.text(if delete { "[-" } else { "[" });
        if self.prefix.names().is_empty() && !self.has_full_paths {
            self.text("\\");
        }
        for (i, name) in self.prefix.names().iter().chain(path.names()).enumerate() {
            if i > 0 {
                self.text("\\");
            }
            if name.units().iter().any(|&u| u == 0 || u == u16::from(b'\r') || u == u16::from(b'\n')) {
                let error =
                    Error::unsupported(Layer::Hive, "a key's name that holds a line break cannot be written as .reg");
                let full = self.prefix.concat(path);
                return Err(error.path(full.to_string()).hint("export its sibling keys one by one"));
            }
            self.chunk.extend(name.units());
        }
        self.text("]\r\n");
        self.pass_on()
    }

    fn value(&mut self, name: &Name, data: Option<&RegistryData>) -> Result<()> {
        let start = self.passed + self.chunk.len();
        if name.is_empty() {
            self.text("@=");
        } else {
            self.quoted(name.units().iter().copied())?;
            self.text("=");
        }
        match data {
            None => self.text("-"),
            Some(data) => match (plain_text(data.kind, &data.bytes, self.is_ascii), data.as_u32()) {
                (Some(text), _) => self.quoted(utf16_units(text))?,
                (None, Some(number)) => self.text(&format!("dword:{number:08x}")),
                (None, None) => self.hex(start, data.kind, &data.bytes)?,
            },
        }
        self.text("\r\n");
        self.pass_on()
    }
}

impl Document {
    /// The file as the registry editor writes it: UTF-16LE with a byte order mark, lines ending in CR LF.
    ///
    /// # Errors
    /// A key whose name holds a line break cannot be written.
    pub fn to_bytes(&self, prefix: &KeyPath) -> Result<Vec<u8>> {
        let units = write(self, prefix, false)?;
        Ok(std::iter::once(0xFEFF).chain(units).flat_map(u16::to_le_bytes).collect())
    }

    /// The same in UTF-8 without a byte order mark, for `hivexregedit --merge`, which reads nothing else and takes texts
    /// for bytes: so data that are not ASCII are written as `hex(1):`. In names, invalid UTF-16 is replaced.
    ///
    /// # Errors
    /// Like [`to_bytes`](Self::to_bytes).
    pub fn to_text(&self, prefix: &KeyPath) -> Result<String> {
        Ok(String::from_utf16_lossy(&write(self, prefix, true)?))
    }
}

/// With `is_ascii`, texts that are not ASCII are written as bytes.
fn write(document: &Document, prefix: &KeyPath, is_ascii: bool) -> Result<Vec<u16>> {
    let mut out = Vec::new();
    let mut put = |units: &[u16]| {
        out.extend_from_slice(units);
        Ok(())
    };
    let mut writer = Writer::new(prefix, is_ascii, &mut put);
    for section in &document.sections {
        writer.key(&section.path, section.delete)?;
        for (name, data) in &section.values {
            writer.value(name, data.as_ref())?;
        }
    }
    writer.finish()?;
    Ok(out)
}

/// The text of a `REG_SZ` without its terminator, if it reads back as the same bytes.
fn plain_text(kind: ValueType, bytes: &[u8], is_ascii: bool) -> Option<&[u8]> {
    if kind != ValueType::SZ || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let text = bytes.strip_suffix(&[0, 0])?;
    let is_plain = char::decode_utf16(utf16_units(text)).all(|c| c.is_ok_and(|c| !c.is_control()));
    (is_plain && (!is_ascii || utf16_units(text).all(|unit| unit < 0x80))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hive::RegistryData;
    use crate::hive::reg_file::document::Section;

    #[test]
    fn looks_like_the_registry_editors() {
        let values = vec![
            (Name::default(), Some(RegistryData::sz("C:\\a \"b\""))),
            (Name::from("Start"), Some(RegistryData::dword(3))),
            (Name::from("Path"), Some(RegistryData::expand_sz("%a%"))),
            (Name::from("odd"), Some(RegistryData { kind: ValueType::SZ, bytes: vec![65] })),
            (Name::from("lines"), Some(RegistryData::sz("a\nb"))),
            (Name::from("gone"), None),
        ];
        let sections = vec![
            Section { path: KeyPath::from("A\\B"), delete: false, values },
            Section { path: KeyPath::from("C"), delete: true, values: vec![] },
        ];
        let document = Document { sections };
        let text = document.to_text(&KeyPath::from(r"HKLM\SYSTEM")).unwrap();
        assert_eq!(
            text.replace("\r\n", "\n"),
            r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SYSTEM\A\B]
@="C:\\a \"b\""
"Start"=dword:00000003
"Path"=hex(2):25,00,61,00,25,00,00,00
"odd"=hex(1):41
"lines"=hex(1):61,00,0a,00,62,00,00,00
"gone"=-

[-HKEY_LOCAL_MACHINE\SYSTEM\C]

"#
        );
        let again = Document::parse(&document.to_bytes(&KeyPath::default()).unwrap(), &KeyPath::default()).unwrap();
        assert_eq!(again, document);
    }

    /// A line break in the name of a value: as it is in a file, made visible on a terminal.
    #[test]
    fn a_shown_name_stays_in_its_line() {
        let text = |is_shown: bool| {
            let mut out = Vec::new();
            let mut put = |units: &[u16]| {
                out.extend_from_slice(units);
                Ok(())
            };
            let prefix = KeyPath::default();
            let mut writer = Writer::new(&prefix, false, &mut put);
            if is_shown {
                writer = writer.shown();
            }
            writer.key(&KeyPath::from("A"), false).unwrap();
            writer.value(&Name::from("a\r\n[-B]"), Some(&RegistryData::dword(1))).unwrap();
            writer.finish().unwrap();
            String::from_utf16(&out).unwrap()
        };
        assert!(text(false).contains("\"a\r\n[-B]\"=dword:00000001\r\n"));
        assert!(text(true).contains("\"a\\u{d}\\u{a}[-B]\"=dword:00000001\r\n"), "{}", text(true));
        assert!(!text(true).contains("\n[-B]"));
    }

    /// What is handed on at once is bounded, and no character or line break is cut in two.
    #[test]
    fn chunks_are_small_and_whole() {
        let long: String = "a𝄞".repeat(50_000);
        let values = vec![
            (Name::from("text"), Some(RegistryData::sz(&long))),
            (Name::from("bytes"), Some(RegistryData::binary([7; 200_000]))),
        ];
        let sections = vec![Section { path: KeyPath::from("A"), delete: false, values }];
        let document = Document { sections };
        let (mut chunks, root) = (Vec::new(), KeyPath::default());
        let mut put = |units: &[u16]| {
            chunks.push(units.to_vec());
            Ok(())
        };
        let mut writer = Writer::new(&root, false, &mut put);
        for section in &document.sections {
            writer.key(&section.path, section.delete).unwrap();
            for (name, data) in &section.values {
                writer.value(name, data.as_ref()).unwrap();
            }
        }
        writer.finish().unwrap();
        assert!(chunks.len() > 20 && chunks.iter().all(|chunk| chunk.len() < 2 * CHUNK));
        let parts: String = chunks.iter().map(|chunk| String::from_utf16(chunk).unwrap()).collect();
        assert_eq!(Document::parse(parts.as_bytes(), &root).unwrap(), document);
        assert!(chunks.iter().all(|chunk| chunk.last() != Some(&13)));
    }

    #[test]
    fn long_data_are_continued() {
        let data = RegistryData::binary([7; 100]);
        let sections =
            vec![Section { path: KeyPath::default(), delete: false, values: vec![(Name::from("Long"), Some(data))] }];
        let document = Document { sections };
        let text = document.to_text(&KeyPath::default()).unwrap();
        assert!(text.starts_with("Windows Registry Editor Version 5.00\r\n\r\n[\\]\r\n\"Long\"=hex:07,"));
        assert!(text.lines().all(|l| l.len() <= 80), "{text}");
        assert_eq!(Document::parse(text.as_bytes(), &KeyPath::default()).unwrap(), document);
    }
}
