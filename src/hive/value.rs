//! A value as the caller sees it: name, type, bytes.

use std::fmt;

use super::Name;

/// The type of a registry value: any 32-bit number. The constants are those that Windows uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueType(pub u32);

impl ValueType {
    /// `REG_NONE`: bytes without a type.
    pub const NONE: Self = Self(0);
    /// `REG_SZ`: UTF-16 text, usually ended by a NUL.
    pub const SZ: Self = Self(1);
    /// `REG_EXPAND_SZ`: text in which Windows expands `%VARIABLES%`.
    pub const EXPAND_SZ: Self = Self(2);
    /// `REG_BINARY`: bytes of any meaning.
    pub const BINARY: Self = Self(3);
    /// `REG_DWORD`: a number of 32 bits, little-endian.
    pub const DWORD: Self = Self(4);
    /// `REG_DWORD_BIG_ENDIAN`: a number of 32 bits, big-endian.
    pub const DWORD_BIG_ENDIAN: Self = Self(5);
    /// `REG_LINK`: the path that a symbolic link between keys leads to, UTF-16 without NUL.
    pub const LINK: Self = Self(6);
    /// `REG_MULTI_SZ`: several texts, each ended by a NUL, and another NUL at the end.
    pub const MULTI_SZ: Self = Self(7);
    /// `REG_QWORD`: a number of 64 bits, little-endian.
    pub const QWORD: Self = Self(11);
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        match usize::try_from(self.0).ok().and_then(|n| NAMES.get(n)) {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// A value that was read from a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Name of the value; empty for the key's default value.
    pub name: Name,
    /// Type of the value, as stored: the data need not fit it.
    pub kind: ValueType,
    /// Data of the value, as stored: text is UTF-16, numbers are in the byte order of their type.
    pub data: Vec<u8>,
}

impl Value {
    /// The number, if this is a `REG_DWORD` of four bytes; else `None`.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        if self.kind != ValueType::DWORD {
            return None;
        }
        Some(u32::from_le_bytes(self.data.as_slice().try_into().ok()?))
    }

    /// The number, if this is a `REG_QWORD` of eight bytes; else `None`.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        if self.kind != ValueType::QWORD {
            return None;
        }
        Some(u64::from_le_bytes(self.data.as_slice().try_into().ok()?))
    }

    /// The text up to the first NUL (which may be missing), if this is a `REG_SZ`, `REG_EXPAND_SZ` or `REG_LINK`. Invalid
    /// UTF-16 is replaced by U+FFFD.
    #[must_use]
    pub fn as_str(&self) -> Option<String> {
        if ![ValueType::SZ, ValueType::EXPAND_SZ, ValueType::LINK].contains(&self.kind) {
            return None;
        }
        let units: Vec<u16> = units(&self.data).take_while(|&u| u != 0).collect();
        Some(String::from_utf16_lossy(&units))
    }

    /// The texts, if this is a `REG_MULTI_SZ`; one text, if it is a `REG_SZ`; else `None`.
    #[must_use]
    pub fn as_multi_str(&self) -> Option<Vec<String>> {
        if self.kind == ValueType::SZ {
            return self.as_str().map(|s| vec![s]);
        }
        if self.kind != ValueType::MULTI_SZ {
            return None;
        }
        let units: Vec<u16> = units(&self.data).collect();
        let parts = units.split(|&u| u == 0).take_while(|part| !part.is_empty());
        Some(parts.map(String::from_utf16_lossy).collect())
    }
}

fn units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

/// The type and the bytes that a value is set to, see [`Hive::set_value`](super::Hive::set_value).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Type of the value.
    pub kind: ValueType,
    /// Data of the value, as it is stored.
    pub bytes: Vec<u8>,
}

impl Data {
    /// A `REG_SZ`, with a terminating NUL.
    #[must_use]
    pub fn sz(text: &str) -> Self {
        Self { kind: ValueType::SZ, bytes: text_bytes(text) }
    }

    /// A `REG_EXPAND_SZ`, with a terminating NUL.
    #[must_use]
    pub fn expand_sz(text: &str) -> Self {
        Self { kind: ValueType::EXPAND_SZ, bytes: text_bytes(text) }
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
    pub fn binary(bytes: &[u8]) -> Self {
        Self { kind: ValueType::BINARY, bytes: bytes.to_vec() }
    }

    /// A `REG_NONE` without bytes.
    #[must_use]
    pub fn none() -> Self {
        Self { kind: ValueType::NONE, bytes: Vec::new() }
    }
}

fn text_bytes(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(data: Data) -> Value {
        Value { name: Name::default(), kind: data.kind, data: data.bytes }
    }

    #[test]
    fn constructors_and_readers_agree() {
        assert_eq!(value(Data::sz("vi€")).as_str().as_deref(), Some("vi€"));
        assert_eq!(value(Data::dword(7)).as_u32(), Some(7));
        assert_eq!(value(Data::qword(1 << 40)).as_u64(), Some(1 << 40));
        assert_eq!(value(Data::multi_sz(&["a", "bc"])).as_multi_str(), Some(vec!["a".into(), "bc".into()]));
        assert_eq!(Data::multi_sz(&["a"]).bytes, b"a\0\0\0\0\0");
        assert_eq!(value(Data::multi_sz::<&str>(&[])).as_multi_str(), Some(vec![]));
        assert_eq!(value(Data::binary(b"x")).as_u32(), None);
    }

    #[test]
    fn text_without_terminator_is_text() {
        let odd = Value { name: Name::default(), kind: ValueType::SZ, data: b"a\0b\0c".to_vec() };
        assert_eq!(odd.as_str().as_deref(), Some("ab"));
    }

    #[test]
    fn types_have_names() {
        assert_eq!(ValueType::MULTI_SZ.to_string(), "REG_MULTI_SZ");
        assert_eq!(ValueType(0xFFFF_0012).to_string(), "0xffff0012");
    }
}
