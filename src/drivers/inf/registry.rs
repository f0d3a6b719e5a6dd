//! `AddReg` sections: registry values as bytes ("INF AddReg Directive").

use super::columns::add_reg;
use super::document::Inf;
use super::error::error_at;
use super::facts::{RegAction, RegRoot, RegValue};
use super::lex::Line;
use super::notes::Notes;
use super::number::parse_number;
use crate::error::Result;
use crate::hive::{RegistryData, ValueType};

const BINARY: u32 = 0x0000_0001;
const NO_CLOBBER: u32 = 0x0000_0002;
const DELETE_VALUE: u32 = 0x0000_0004;
const APPEND: u32 = 0x0000_0008;
const KEY_ONLY: u32 = 0x0000_0010;
const OVERWRITE_ONLY: u32 = 0x0000_0020;
const KEY_ONLY_COMMON: u32 = 0x0000_2000;
/// The bits that tell the type: the high word, and whether the data is given as bytes.
const TYPE: u32 = 0xFFFF_0001;

impl Inf {
    /// The values of `AddReg` sections, in order.
    pub(super) fn reg_values(&self, names: &[String], at: usize, notes: &mut Notes) -> Result<Vec<RegValue>> {
        let mut out = Vec::new();
        for name in names {
            let Some(section) = self.section(name) else {
                notes.warn(self.warning(at, format!("the section [{name}] of an AddReg is missing")));
                continue;
            };
            notes.spend(section.lines.len().saturating_add(1), self.file(), section.number)?;
            for line in &section.lines {
                match self.reg_value(line, notes)? {
                    Some(value) => out.push(value),
                    None => notes.warn(self.warning(line.number, "a registry line without a root is left out")),
                }
            }
        }
        Ok(out)
    }

    fn reg_value(&self, line: &Line, notes: &mut Notes) -> Result<Option<RegValue>> {
        let Some(root) = parse_root(&self.expand(line.field(add_reg::ROOT))).filter(|_| line.key.is_none()) else {
            return Ok(None);
        };
        let flags_text = self.expand(line.field(add_reg::FLAGS));
        // SetupAPI takes flags that it cannot read as a number (`REG_SZ`, a token without a string) as 0
        let flags = parse_number(&flags_text).unwrap_or_else(|| {
            if !flags_text.is_empty() {
                notes.warn(self.warning(line.number, format!("the flags {flags_text:?} are taken as 0 (REG_SZ)")));
            }
            0
        });
        let name = self.expand(line.field(add_reg::NAME));
        let nothing_to_set = name.is_empty() && line.fields.len() <= add_reg::FLAGS;
        let action = if flags & (KEY_ONLY | KEY_ONLY_COMMON) != 0 || nothing_to_set {
            RegAction::KeyOnly
        } else if flags & DELETE_VALUE != 0 {
            RegAction::Delete
        } else if flags & TYPE == 0x0001_0000 && flags & APPEND != 0 {
            RegAction::Append
        } else if flags & NO_CLOBBER != 0 {
            RegAction::SetIfAbsent
        } else if flags & OVERWRITE_ONLY != 0 {
            RegAction::OverwriteOnly
        } else {
            RegAction::Set
        };
        let data = match action {
            RegAction::KeyOnly | RegAction::Delete => RegistryData::none(),
            _ => self.reg_data(flags, line, notes)?,
        };
        let name = if action == RegAction::KeyOnly { String::new() } else { name };
        let subkey = self.expand(line.field(add_reg::SUBKEY)).trim_matches('\\').to_owned();
        let number = u32::try_from(line.number).unwrap_or(u32::MAX);
        Ok(Some(RegValue { root, subkey, name, action, data, line: number }))
    }

    fn reg_data(&self, flags: u32, line: &Line, notes: &mut Notes) -> Result<RegistryData> {
        let fields: Vec<String> = line.fields.iter().skip(add_reg::VALUE).map(|f| self.expand(f)).collect();
        let single = fields.first().map_or("", String::as_str);
        let bad = |what: &str| {
            error_at(
                &self.file,
                line.number,
                format!("the registry value {:?} is not a {what}", line.field(add_reg::NAME)),
            )
        };
        Ok(match flags & TYPE {
            0x0000_0000 => RegistryData::sz(single),
            0x0002_0000 => RegistryData::expand_sz(single),
            0x0001_0000 => multi_sz(&fields),
            0x0001_0001 if fields.len() == 4 => {
                RegistryData::new(ValueType::DWORD, bytes(&fields).ok_or_else(|| bad("list of bytes"))?)
            }
            0x0001_0001 => {
                // SetupAPI takes data that it cannot read as a number as 0
                let data = parse_number(single).unwrap_or_else(|| {
                    if !single.is_empty() {
                        let name = line.field(add_reg::NAME);
                        let text = format!("the DWORD {name:?} is not a number: {single:?} is taken as 0");
                        notes.warn(self.warning(line.number, text));
                    }
                    0
                });
                RegistryData::dword(data)
            }
            0x0002_0001 => RegistryData::new(ValueType::NONE, bytes(&fields).ok_or_else(|| bad("list of bytes"))?),
            BINARY => RegistryData::new(ValueType::BINARY, bytes(&fields).ok_or_else(|| bad("list of bytes"))?),
            other if other & BINARY != 0 => {
                let kind = ValueType(other >> 16);
                let number = if kind == ValueType::QWORD && fields.len() == 1 { qword(single) } else { None };
                RegistryData::new(kind, number.or_else(|| bytes(&fields)).ok_or_else(|| bad("list of bytes"))?)
            }
            other => {
                return Err(error_at(
                    &self.file,
                    line.number,
                    format!("unknown type of a registry value: flags {other:#010x}"),
                ));
            }
        })
    }
}

fn parse_root(text: &str) -> Option<RegRoot> {
    Some(match text.to_ascii_uppercase().as_str() {
        "HKCR" => RegRoot::ClassesRoot,
        "HKCU" => RegRoot::CurrentUser,
        "HKLM" => RegRoot::LocalMachine,
        "HKU" => RegRoot::Users,
        "HKR" => RegRoot::Relative,
        _ => return None,
    })
}

/// `REG_MULTI_SZ` of these texts without the empty ones, which would end the list.
fn multi_sz(texts: &[String]) -> RegistryData {
    let texts: Vec<&String> = texts.iter().filter(|text| !text.is_empty()).collect();
    RegistryData::multi_sz(&texts)
}

fn qword(text: &str) -> Option<Vec<u8>> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok()?,
        Some(_) => return None,
        None => text.parse().ok()?,
    };
    Some(number.to_le_bytes().to_vec())
}

/// Hexadecimal bytes, one in each field.
fn bytes(fields: &[String]) -> Option<Vec<u8>> {
    if let [one] = fields
        && one.is_empty()
    {
        return Some(Vec::new());
    }
    fields
        .iter()
        .map(|field| {
            let digits = field.trim();
            let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
            if digits.is_empty() {
                return Some(0); // a comma after the last byte
            }
            digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
        })
        .collect()
}

impl RegValue {
    /// The value with its directory ids (`%11%\x.dll`) replaced; `directory` gives the path of an id.
    #[must_use]
    pub fn with_directories(&self, directory: impl Fn(u32) -> Option<String>) -> Self {
        let mut out = self.clone();
        if let Some(text) = self.data.as_text().filter(|t| t.contains('%')) {
            let replaced = replace_directories(&text, directory);
            if replaced != text {
                out.data = RegistryData::text(self.data.kind, &replaced);
            }
        }
        out
    }
}

fn replace_directories(text: &str, directory: impl Fn(u32) -> Option<String>) -> String {
    let mut out = String::new();
    let mut parts = text.split('%');
    out.extend(parts.next());
    // parts alternate: inside and outside of percent signs, as long as the inside is a known number
    while let Some(inside) = parts.next() {
        match inside.parse().ok().and_then(&directory) {
            Some(path) if parts.clone().next().is_some() => {
                out += &path;
                out.extend(parts.next());
            }
            _ => {
                out.push('%');
                out += inside;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(lines: &str) -> Result<Vec<RegValue>> {
        let text = format!("[Version]\nSignature=\"$Windows NT$\"\n[add]\n{lines}\n[Strings]\nDW = 0x00010001\n");
        Inf::parse(text.as_bytes(), "x.inf")?.reg_values(&["add".to_owned()], 0, &mut Notes::default())
    }

    #[track_caller]
    fn one(line: &str, action: RegAction, kind: ValueType, data: &[u8]) -> RegValue {
        let value = values(line).unwrap().remove(0);
        assert_eq!((value.action, value.data.kind, value.data.bytes.as_slice()), (action, kind, data), "{line}");
        value
    }

    #[test]
    fn every_flag_type() {
        use RegAction::*;
        one("HKR,,a,,x", Set, ValueType::SZ, b"x\0\0\0");
        one("HKR,,a,0x00000000,\"x\"", Set, ValueType::SZ, b"x\0\0\0");
        one("HKR,,a,0x00020000,%%S%%", Set, ValueType::EXPAND_SZ, b"%\0S\0%\0\0\0");
        one("HKR,,a,0x00010000,x,y", Set, ValueType::MULTI_SZ, b"x\0\0\0y\0\0\0\0\0");
        one("HKR,,a,0x00010000", Set, ValueType::MULTI_SZ, b"\0\0");
        one("HKR,,a,0x00010008,x", Append, ValueType::MULTI_SZ, b"x\0\0\0\0\0");
        one("HKR,,a,%DW%,0x0000000A", Set, ValueType::DWORD, &[10, 0, 0, 0]);
        one("HKR,,a,0x00010001,257", Set, ValueType::DWORD, &[1, 1, 0, 0]);
        one("HKR,,a,0x00010001,-1", Set, ValueType::DWORD, &[255; 4]);
        one("HKR,,a,0x00010001,01,02,03,04", Set, ValueType::DWORD, &[1, 2, 3, 4]);
        one("HKR,,a,0x00010001", Set, ValueType::DWORD, &[0; 4]);
        one("HKR,,a,0x00010003,5", SetIfAbsent, ValueType::DWORD, &[5, 0, 0, 0]);
        one("HKR,,a,0x00000020,x", OverwriteOnly, ValueType::SZ, b"x\0\0\0");
        one("HKR,,a,1,00,fF,0x10", Set, ValueType::BINARY, &[0, 255, 16]);
        one("HKR,,a,1", Set, ValueType::BINARY, &[]);
        one("HKR,,a,0x00020001", Set, ValueType::NONE, &[]);
        one("HKR,,a,0x000B0001,0x123456789", Set, ValueType::QWORD, &[0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0]);
        one("HKR,,a,0x000B0001,1,2,3,4,5,6,7,8", Set, ValueType::QWORD, &[1, 2, 3, 4, 5, 6, 7, 8]);
        one("HKR,,a,0x00100001,aa", Set, ValueType(16), &[0xAA]);
        one("HKR,,a,4", Delete, ValueType::NONE, &[]);
        let key = one("HKR,\"Interrupt Management\\\",, 0x00000010", KeyOnly, ValueType::NONE, &[]);
        assert_eq!((key.subkey.as_str(), key.name.as_str(), key.root), ("Interrupt Management", "", RegRoot::Relative));
        one("HKLM,Software\\x", KeyOnly, ValueType::NONE, &[]);
        one("HKLM,Software\\x,,,text", Set, ValueType::SZ, b"t\0e\0x\0t\0\0\0");
    }

    #[test]
    fn what_is_not_a_number_counts_as_zero() {
        use RegAction::*;
        let notes = |line: &str| {
            let text = format!("[Version]\nSignature=\"$Windows NT$\"\n[add]\n{line}\n");
            let mut notes = Notes::default();
            Inf::parse(text.as_bytes(), "x.inf").unwrap().reg_values(&["add".to_owned()], 0, &mut notes).unwrap();
            notes.warnings.join("\n")
        };
        for flags in ["REG_SZ", "\"REG_SZ\"", "%FLG_ADDREG_TYPE_DWORD%", "what", "0x1_0", "0x100000000"] {
            one(&format!("HKR,,a,{flags},7"), Set, ValueType::SZ, b"7\0\0\0");
        }
        assert!(notes("HKR,,a,REG_SZ,x").contains("x.inf:4: the flags \"REG_SZ\" are taken as 0"));
        assert_eq!(notes("HKR,,a,,x"), "");
        for (data, number) in [
            ("\"5\"", 5u32),
            ("\"0x10\"", 16),
            ("+7", 7),
            ("-0x1", u32::MAX),
            ("0x", 0),
            ("4294967295", u32::MAX),
            ("4294967296", 0),
            ("0x1FFFFFFFF", 0),
            ("FF", 0),
            ("0FFh", 0),
            ("5,6", 5),
            ("5,", 5),
            ("x", 0),
        ] {
            one(&format!("HKR,,a,0x00010001,{data}"), Set, ValueType::DWORD, &number.to_le_bytes());
        }
        assert!(notes("HKR,,a,0x00010001,FF").contains("x.inf:4: the DWORD \"a\" is not a number: \"FF\""));
        one("HKR,,a,1,01,02,", Set, ValueType::BINARY, &[1, 2, 0]);
    }

    #[test]
    fn errors_name_the_line() {
        for line in ["HKR,,a,0x00010001,1,2,3,x", "HKR,,a,1,100", "HKR,,a,1,x", "HKR,,a,0x00040000,x"] {
            let error = values(line).unwrap_err().to_string();
            assert!(error.contains("x.inf:4:"), "{error}");
        }
    }

    #[test]
    fn directories() {
        let value = one(
            "HKR,,a,0x00020000,\"%11%\\x.dll,%%A%%,%99%\"",
            RegAction::Set,
            ValueType::EXPAND_SZ,
            &RegistryData::sz("%11%\\x.dll,%A%,%99%").bytes,
        );
        let with = value.with_directories(|id| (id == 11).then(|| "C:\\Windows\\System32".to_owned()));
        assert_eq!(with.data.as_text().unwrap(), "C:\\Windows\\System32\\x.dll,%A%,%99%");
    }
}
