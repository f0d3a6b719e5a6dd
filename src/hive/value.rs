//! A value as the caller sees it: name, type, bytes.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Name;
use crate::field::{utf16_from_le, utf16_units};
use crate::hex;

/// The type of a registry value: any 32-bit number. The constants are those of [MS-RRP] 3.1.1.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueType(pub u32);

impl ValueType {
    /// `REG_NONE`: data without a defined type.
    pub const NONE: Self = Self(0);
    /// `REG_SZ`: text in UTF-16LE with a terminating NUL.
    pub const SZ: Self = Self(1);
    /// `REG_EXPAND_SZ`: text with `%VARIABLES%` that the reader expands.
    pub const EXPAND_SZ: Self = Self(2);
    /// `REG_BINARY`: bytes of any meaning.
    pub const BINARY: Self = Self(3);
    /// `REG_DWORD`: a 32-bit number, little-endian.
    pub const DWORD: Self = Self(4);
    /// `REG_DWORD_BIG_ENDIAN`: a 32-bit number, big-endian.
    pub const DWORD_BIG_ENDIAN: Self = Self(5);
    /// `REG_LINK`: the target of a symbolic link, in UTF-16LE without a terminator.
    pub const LINK: Self = Self(6);
    /// `REG_MULTI_SZ`: texts, each with a terminating NUL, and one more NUL at the end.
    pub const MULTI_SZ: Self = Self(7);
    /// `REG_QWORD`: a 64-bit number, little-endian.
    pub const QWORD: Self = Self(11);
}

/// Names of the types from 0 on.
const NAMES: [&str; 12] = [
    "REG_NONE",
    "REG_SZ",
    "REG_EXPAND_SZ",
    "REG_BINARY",
    "REG_DWORD",
    "REG_DWORD_BIG_ENDIAN",
    "REG_LINK",
    "REG_MULTI_SZ",
    "REG_RESOURCE_LIST",
    "REG_FULL_RESOURCE_DESCRIPTOR",
    "REG_RESOURCE_REQUIREMENTS_LIST",
    "REG_QWORD",
];

impl ValueType {
    /// The type whose text form this is: a name, or `0x` and lower-case digits for a number without a name.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let named = NAMES.iter().position(|name| *name == text).and_then(|number| u32::try_from(number).ok());
        let number = named.or_else(|| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()).map(Self)?;
        (number.to_string() == text).then_some(number)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|n| NAMES.get(n)) {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// A value that was read from a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryValue {
    /// Its name as stored; empty for the default value.
    pub name: Name,
    /// Its type and bytes.
    pub data: RegistryData,
}

/// Type and bytes of a registry value, as a hive stores them.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryData {
    /// The type, which need not fit the bytes: the registry compares neither.
    pub kind: ValueType,
    /// The bytes: numbers little-endian, texts in UTF-16LE with their terminators.
    pub bytes: Vec<u8>,
}

impl RegistryData {
    /// Any type and bytes.
    #[must_use]
    pub fn new(kind: ValueType, bytes: impl Into<Vec<u8>>) -> Self {
        Self { kind, bytes: bytes.into() }
    }

    /// A text of the given type, with its terminator.
    #[must_use]
    pub fn text(kind: ValueType, text: &str) -> Self {
        Self { kind, bytes: text_bytes(text) }
    }

    /// A `REG_SZ`, with a terminating NUL.
    #[must_use]
    pub fn sz(text: &str) -> Self {
        Self::text(ValueType::SZ, text)
    }

    /// A `REG_EXPAND_SZ`, with a terminating NUL.
    #[must_use]
    pub fn expand_sz(text: &str) -> Self {
        Self::text(ValueType::EXPAND_SZ, text)
    }

    /// A `REG_MULTI_SZ`: each text with a terminating NUL, and a final NUL.
    #[must_use]
    pub fn multi_sz<T: AsRef<str>>(texts: &[T]) -> Self {
        let mut bytes: Vec<u8> = texts.iter().flat_map(|t| text_bytes(t.as_ref())).collect();
        bytes.extend([0, 0]);
        Self { kind: ValueType::MULTI_SZ, bytes }
    }

    /// A `REG_DWORD`, four bytes in little-endian order.
    #[must_use]
    pub fn dword(number: u32) -> Self {
        Self { kind: ValueType::DWORD, bytes: number.to_le_bytes().to_vec() }
    }

    /// A `REG_QWORD`, eight bytes in little-endian order.
    #[must_use]
    pub fn qword(number: u64) -> Self {
        Self { kind: ValueType::QWORD, bytes: number.to_le_bytes().to_vec() }
    }

    /// A `REG_BINARY` with these bytes.
    #[must_use]
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Self {
        Self { kind: ValueType::BINARY, bytes: bytes.into() }
    }

    /// A `REG_NONE` without bytes.
    #[must_use]
    pub fn none() -> Self {
        Self { kind: ValueType::NONE, bytes: Vec::new() }
    }

    /// The number, if this is a `REG_DWORD` of four bytes.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        let bytes = self.bytes.as_slice().try_into().ok()?;
        (self.kind == ValueType::DWORD).then(|| u32::from_le_bytes(bytes))
    }

    /// The number, if this is a `REG_QWORD` of eight bytes.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        let bytes = self.bytes.as_slice().try_into().ok()?;
        (self.kind == ValueType::QWORD).then(|| u64::from_le_bytes(bytes))
    }

    /// The text up to the first NUL (which may be missing), if this is a `REG_SZ`, `REG_EXPAND_SZ` or `REG_LINK`.
    /// Invalid UTF-16 is replaced.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        if ![ValueType::SZ, ValueType::EXPAND_SZ, ValueType::LINK].contains(&self.kind) {
            return None;
        }
        let units: Vec<u16> = utf16_units(&self.bytes).take_while(|&u| u != 0).collect();
        Some(String::from_utf16_lossy(&units))
    }

    /// The texts up to the first empty one, where Windows stops too, if this is a `REG_MULTI_SZ`.
    #[must_use]
    pub fn as_texts(&self) -> Option<Vec<String>> {
        if self.kind != ValueType::MULTI_SZ {
            return None;
        }
        let units = utf16_from_le(&self.bytes);
        let parts = units.split(|&u| u == 0).take_while(|part| !part.is_empty());
        Some(parts.map(String::from_utf16_lossy).collect())
    }

    /// The texts of a `REG_MULTI_SZ`, or the one of a `REG_SZ` or its kin unless it is empty; none for any other type.
    #[must_use]
    pub fn to_texts(&self) -> Vec<String> {
        self.as_texts().unwrap_or_else(|| self.as_text().filter(|text| !text.is_empty()).into_iter().collect())
    }

    /// The bytes for a reader: texts as they are, numbers in hexadecimal, anything else as pairs of digits.
    #[must_use]
    pub fn to_readable(&self) -> String {
        if let Some(text) = self.as_text() {
            return text;
        }
        if let Some(texts) = self.as_texts() {
            return texts.join(" | ");
        }
        if let Some(number) = self.as_u32() {
            return format!("{number:#x}");
        }
        self.bytes.iter().map(|byte| hex::encode(&[*byte])).collect::<Vec<_>>().join(" ")
    }
}

/// The type's name and the bytes for a reader, such as `REG_DWORD 0x3`.
impl fmt::Display for RegistryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.to_readable())
    }
}

impl fmt::Debug for RegistryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RegistryData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("RegistryData", 3)?;
        out.serialize_field("type", &self.kind.to_string())?;
        out.serialize_field("text", &self.to_readable())?;
        out.serialize_field("hex", &hex::encode(&self.bytes))?;
        out.end()
    }
}

crate::schema::json_schema_object!(
    RegistryData,
    "RegistryData",
    "type": "string" = "Name of the type, such as `REG_SZ`, or its number.",
    "text": "string" = "The data for a reader.",
    "hex": "string" = "The bytes, in hexadecimal.",
);

/// Reads what [`Serialize`] writes: `text` is for people, and must say what `hex` says.
impl<'de> Deserialize<'de> for RegistryData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            r#type: String,
            text: String,
            hex: String,
        }
        let written = Written::deserialize(deserializer)?;
        let kind = ValueType::from_text(&written.r#type)
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&written.r#type), &"a type such as REG_SZ"))?;
        let bytes = hex::decode(&written.hex)
            .ok_or_else(|| de::Error::custom("`hex` of a registry value is not pairs of hexadecimal digits"))?;
        let data = Self { kind, bytes };
        if data.to_readable() != written.text {
            return Err(de::Error::custom("`text` of a registry value does not say what its `hex` says"));
        }
        Ok(data)
    }
}

fn text_bytes(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constructors_and_readers_agree() {
        assert_eq!(RegistryData::sz("vi€").as_text().as_deref(), Some("vi€"));
        assert_eq!(RegistryData::dword(7).as_u32(), Some(7));
        assert_eq!(RegistryData::qword(1 << 40).as_u64(), Some(1 << 40));
        assert_eq!(RegistryData::multi_sz(&["a", "bc"]).as_texts(), Some(vec!["a".into(), "bc".into()]));
        assert_eq!(RegistryData::multi_sz::<&str>(&[]).as_texts(), Some(vec![]));
        assert_eq!(RegistryData::binary(b"x").as_u32(), None);
        assert_eq!(RegistryData::binary([1, 0xff, 0, 0]).to_string(), "REG_BINARY 01 ff 00 00");
    }

    #[test]
    fn texts_carry_their_terminators() {
        assert_eq!(RegistryData::sz("ab").bytes, [0x61, 0, 0x62, 0, 0, 0]);
        assert_eq!(RegistryData::multi_sz(&["a"]).bytes, b"a\0\0\0\0\0");
        assert_eq!(RegistryData::multi_sz(&["a", "b"]).bytes, [0x61, 0, 0, 0, 0x62, 0, 0, 0, 0, 0]);
        assert_eq!(RegistryData::multi_sz::<&str>(&[]).bytes, [0, 0]);
    }

    #[test]
    fn text_without_terminator_is_text() {
        let odd = RegistryData::new(ValueType::SZ, b"a\0b\0c");
        assert_eq!(odd.as_text().as_deref(), Some("ab"));
    }

    #[test]
    fn types_have_names() {
        assert_eq!(ValueType::MULTI_SZ.to_string(), "REG_MULTI_SZ");
        assert_eq!(ValueType(0xFFFF_0012).to_string(), "0xffff0012");
    }

    #[test]
    fn serialises_with_type_text_and_bytes() {
        let json = serde_json::to_value(RegistryData::dword(1)).unwrap();
        assert_eq!(json, serde_json::json!({"type": "REG_DWORD", "text": "0x1", "hex": "01000000"}));
        for data in [
            RegistryData::sz("vi€"),
            RegistryData::multi_sz(&["a", "b"]),
            RegistryData::binary([0, 255]),
            RegistryData::new(ValueType::SZ, [0, 0xd8, 1]),
            RegistryData::new(ValueType(0xFFFF_0012), []),
        ] {
            let json = serde_json::to_string(&data).unwrap();
            assert_eq!(serde_json::from_str::<RegistryData>(&json).unwrap(), data, "{json}");
        }
        for lie in [
            r#"{"type": "REG_DWORD", "text": "0x2", "hex": "01000000"}"#,
            r#"{"type": "REG_SZ", "text": "0x1", "hex": "01000000"}"#,
            r#"{"type": "0x4", "text": "0x1", "hex": "01000000"}"#,
            r#"{"type": "REG_DWORD", "text": "0x1", "hex": "0100000"}"#,
            r#"{"type": "REG_DWORD", "text": "0x1", "hex": "01000000", "x": 1}"#,
        ] {
            assert!(serde_json::from_str::<RegistryData>(lie).is_err(), "{lie}");
        }
    }
}
