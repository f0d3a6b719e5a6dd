//! Writing `.reg` files.

use super::{Document, KeyPath, Section};
use crate::error::{Error, Layer, Result};
use crate::hive::{Data, Name, ValueType};

/// Where the registry editor breaks lines of bytes.
const COLUMNS: usize = 77;

/// With `ascii`, texts that are not ASCII are written as bytes.
pub(super) fn write(document: &Document, prefix: &KeyPath, ascii: bool) -> Result<Vec<u16>> {
    let mut out = Vec::new();
    text(&mut out, "Windows Registry Editor Version 5.00\r\n\r\n");
    for section in &document.sections {
        head(&mut out, section, prefix)?;
        for (name, data) in &section.values {
            value(&mut out, name, data.as_ref(), ascii);
        }
        text(&mut out, "\r\n");
    }
    Ok(out)
}

fn text(out: &mut Vec<u16>, text: &str) {
    out.extend(text.encode_utf16());
}

fn head(out: &mut Vec<u16>, section: &Section, prefix: &KeyPath) -> Result<()> {
    text(out, if section.delete { "[-" } else { "[" });
    let full = prefix.concat(&section.path);
    if prefix.names().is_empty() {
        text(out, "\\");
    }
    for (i, name) in full.names().iter().enumerate() {
        if i > 0 {
            text(out, "\\");
        }
        if name.units().iter().any(|&u| u == 0 || u == u16::from(b'\r') || u == u16::from(b'\n')) {
            let error =
                Error::unsupported(Layer::Hive, "a key's name that holds a line break cannot be written as .reg");
            return Err(error.path(full.to_string()).hint("export the keys beside it one by one"));
        }
        out.extend(name.units());
    }
    text(out, "]\r\n");
    Ok(())
}

fn value(out: &mut Vec<u16>, name: &Name, data: Option<&Data>, ascii: bool) {
    let start = out.len();
    if name.is_empty() {
        text(out, "@=");
    } else {
        quoted(out, name.units());
        text(out, "=");
    }
    match data {
        None => text(out, "-"),
        Some(data) => match plain_text(data).filter(|units| !ascii || units.iter().all(|&u| u < 0x80)) {
            Some(units) => quoted(out, &units),
            None if data.kind == ValueType::DWORD && data.bytes.len() == 4 => {
                let number = data.bytes.iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b));
                text(out, &format!("dword:{number:08x}"));
            }
            None => hex(out, start, data),
        },
    }
    text(out, "\r\n");
}

/// The text of a `REG_SZ`, if it reads back as the same bytes.
fn plain_text(data: &Data) -> Option<Vec<u16>> {
    if data.kind != ValueType::SZ || !data.bytes.len().is_multiple_of(2) {
        return None;
    }
    let mut units: Vec<u16> = data.bytes.chunks_exact(2).map(|p| u16::from_le_bytes([p[0], p[1]])).collect();
    let terminated = units.pop() == Some(0);
    let plain = terminated && char::decode_utf16(units.iter().copied()).all(|c| c.is_ok_and(|c| !c.is_control()));
    plain.then_some(units)
}

fn quoted(out: &mut Vec<u16>, units: &[u16]) {
    text(out, "\"");
    for &unit in units {
        if unit == u16::from(b'"') || unit == u16::from(b'\\') {
            text(out, "\\");
        }
        out.push(unit);
    }
    text(out, "\"");
}

fn hex(out: &mut Vec<u16>, start: usize, data: &Data) {
    if data.kind == ValueType::BINARY {
        text(out, "hex:");
    } else {
        text(out, &format!("hex({:x}):", data.kind.0));
    }
    let mut column = out.len() - start;
    for (i, byte) in data.bytes.iter().enumerate() {
        if i > 0 {
            text(out, ",");
            column += 1;
            if column >= COLUMNS {
                text(out, "\\\r\n  ");
                column = 2;
            }
        }
        text(out, &format!("{byte:02x}"));
        column += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_the_registry_editors() {
        let values = vec![
            (Name::default(), Some(Data::sz("C:\\a \"b\""))),
            (Name::from("Start"), Some(Data::dword(3))),
            (Name::from("Path"), Some(Data::expand_sz("%a%"))),
            (Name::from("odd"), Some(Data { kind: ValueType::SZ, bytes: vec![65] })),
            (Name::from("lines"), Some(Data::sz("a\nb"))),
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

    #[test]
    fn long_data_are_continued() {
        let data = Data::binary(&[7; 100]);
        let sections =
            vec![Section { path: KeyPath::default(), delete: false, values: vec![(Name::from("Long"), Some(data))] }];
        let document = Document { sections };
        let text = document.to_text(&KeyPath::default()).unwrap();
        assert!(text.starts_with("Windows Registry Editor Version 5.00\r\n\r\n[\\]\r\n\"Long\"=hex:07,"));
        assert!(text.lines().all(|l| l.len() <= 80), "{text}");
        assert_eq!(Document::parse(text.as_bytes(), &KeyPath::default()).unwrap(), document);
    }
}
