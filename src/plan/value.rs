//! The type and the bytes of a registry value, with the text forms that plans and reports show.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Type and data of a registry value, as they are in the hive (MS-RRP 3.1.1.5 names the types).
#[derive(Clone, PartialEq, Eq)]
pub struct RegData {
    /// The type number (`REG_SZ` is 1).
    pub kind: u32,
    /// The data, little-endian, strings in UTF-16 with their final zero.
    pub bytes: Vec<u8>,
}

/// `REG_NONE`: data without a type.
pub const NONE: u32 = 0;
/// `REG_SZ`: a string.
pub const SZ: u32 = 1;
/// `REG_EXPAND_SZ`: a string with references to environment variables.
pub const EXPAND_SZ: u32 = 2;
/// `REG_BINARY`: bytes.
pub const BINARY: u32 = 3;
/// `REG_DWORD`: 32 bits, little-endian.
pub const DWORD: u32 = 4;
/// `REG_MULTI_SZ`: a list of strings.
pub const MULTI_SZ: u32 = 7;
/// `REG_QWORD`: 64 bits, little-endian.
pub const QWORD: u32 = 11;

/// UTF-16LE without a final zero.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Text of UTF-16LE bytes (a stray last byte is ignored).
fn from_utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    String::from_utf16_lossy(&units)
}

impl RegData {
    /// Data of any type, as it is to be stored.
    #[must_use]
    pub fn new(kind: u32, bytes: Vec<u8>) -> Self {
        Self { kind, bytes }
    }

    /// A `REG_SZ`, with its final zero.
    #[must_use]
    pub fn sz(text: &str) -> Self {
        Self::string(SZ, text)
    }

    /// A `REG_EXPAND_SZ`, with its final zero.
    #[must_use]
    pub fn expand_sz(text: &str) -> Self {
        Self::string(EXPAND_SZ, text)
    }

    /// A string of the given type, zero-terminated.
    #[must_use]
    pub fn string(kind: u32, text: &str) -> Self {
        let mut bytes = utf16(text);
        bytes.extend([0, 0]);
        Self { kind, bytes }
    }

    /// `REG_MULTI_SZ`: each string zero-terminated and one more zero at the end.
    #[must_use]
    pub fn multi_sz<S: AsRef<str>>(strings: &[S]) -> Self {
        let mut bytes = Vec::new();
        for text in strings {
            bytes.extend(utf16(text.as_ref()));
            bytes.extend([0, 0]);
        }
        bytes.extend([0, 0]);
        Self { kind: MULTI_SZ, bytes }
    }

    /// A `REG_DWORD` of this number.
    #[must_use]
    pub fn dword(number: u32) -> Self {
        Self { kind: DWORD, bytes: number.to_le_bytes().to_vec() }
    }

    /// A `REG_BINARY` of these bytes.
    #[must_use]
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Self {
        Self { kind: BINARY, bytes: bytes.into() }
    }

    /// A `REG_NONE` without any data.
    #[must_use]
    pub fn none() -> Self {
        Self { kind: NONE, bytes: Vec::new() }
    }

    /// The number of a `REG_DWORD`.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        let bytes: [u8; 4] = self.bytes.as_slice().try_into().ok()?;
        (self.kind == DWORD).then(|| u32::from_le_bytes(bytes))
    }

    /// The text of a `REG_SZ` or `REG_EXPAND_SZ`, up to the first zero.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        matches!(self.kind, SZ | EXPAND_SZ).then(|| {
            let text = from_utf16(&self.bytes);
            text.split('\0').next().unwrap_or_default().to_owned()
        })
    }

    /// The strings of a `REG_MULTI_SZ` (empty ones are left out).
    #[must_use]
    pub fn as_texts(&self) -> Option<Vec<String>> {
        (self.kind == MULTI_SZ)
            .then(|| from_utf16(&self.bytes).split('\0').filter(|t| !t.is_empty()).map(str::to_owned).collect())
    }

    /// The type's usual name, or its number.
    #[must_use]
    pub fn kind_name(&self) -> String {
        match self.kind {
            NONE => "REG_NONE".to_owned(),
            SZ => "REG_SZ".to_owned(),
            EXPAND_SZ => "REG_EXPAND_SZ".to_owned(),
            BINARY => "REG_BINARY".to_owned(),
            DWORD => "REG_DWORD".to_owned(),
            MULTI_SZ => "REG_MULTI_SZ".to_owned(),
            QWORD => "REG_QWORD".to_owned(),
            other => format!("{other:#x}"),
        }
    }

    /// The data as text: strings as they are, numbers in hexadecimal, bytes in pairs of digits.
    #[must_use]
    pub fn data_text(&self) -> String {
        if let Some(text) = self.as_text() {
            return text;
        }
        if let Some(texts) = self.as_texts() {
            return texts.join(" | ");
        }
        if let Some(number) = self.as_u32() {
            return format!("{number:#x}");
        }
        self.bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for RegData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind_name(), self.data_text())
    }
}

impl fmt::Debug for RegData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RegData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("RegData", 3)?;
        out.serialize_field("type", &self.kind_name())?;
        out.serialize_field("text", &self.data_text())?;
        let hex: String = self.bytes.iter().map(|b| format!("{b:02x}")).collect();
        out.serialize_field("hex", &hex)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_carry_their_final_zeros() {
        assert_eq!(RegData::sz("ab").bytes, [0x61, 0, 0x62, 0, 0, 0]);
        assert_eq!(RegData::multi_sz(&["a", "b"]).bytes, [0x61, 0, 0, 0, 0x62, 0, 0, 0, 0, 0]);
        assert_eq!(RegData::multi_sz::<&str>(&[]).bytes, [0, 0]);
    }

    #[test]
    fn values_read_back() {
        assert_eq!(RegData::sz("SCSI miniport").as_text().as_deref(), Some("SCSI miniport"));
        assert_eq!(RegData::multi_sz(&["x", "yz"]).as_texts(), Some(vec!["x".to_owned(), "yz".to_owned()]));
        assert_eq!(RegData::dword(0x21).as_u32(), Some(0x21));
        assert_eq!(RegData::binary([1, 0xff]).as_u32(), None);
        assert_eq!(RegData::binary([1, 0xff, 0, 0]).to_string(), "REG_BINARY 01 ff 00 00");
    }

    #[test]
    fn serialises_with_type_text_and_bytes() {
        let json = serde_json::to_value(RegData::dword(1)).unwrap();
        assert_eq!(json, serde_json::json!({"type": "REG_DWORD", "text": "0x1", "hex": "01000000"}));
    }
}
