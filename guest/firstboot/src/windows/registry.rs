//! The registry of the running Windows, always in its 64-bit view.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::null_mut;

use super::ffi;
use super::wide::{from_wide, to_wide};
use crate::release::Registry;
use crate::text::join;

/// `HKEY_LOCAL_MACHINE`
const LOCAL_MACHINE: usize = 0x8000_0002_u32.cast_signed() as usize;
/// `KEY_READ` and `KEY_WOW64_64KEY`
const READ: u32 = 0x2_0019 | WIDE_VIEW;
/// `KEY_SET_VALUE` and `KEY_WOW64_64KEY`
const SET_VALUE: u32 = 2 | WIDE_VIEW;
/// `KEY_ALL_ACCESS` and `KEY_WOW64_64KEY`
const ALL_ACCESS: u32 = 0xf_003f | WIDE_VIEW;
const WIDE_VIEW: u32 = 0x100;
const SUCCESS: i32 = 0;
/// `ERROR_FILE_NOT_FOUND`
const NOT_FOUND: i32 = 2;
const TYPE_SZ: u32 = 1;
const TYPE_EXPAND_SZ: u32 = 2;
const TYPE_DWORD: u32 = 4;
const TYPE_MULTI_SZ: u32 = 7;
/// Most keys or values of one key, and most bytes of a value, that are read.
const ENTRIES_MAX: u32 = 100_000;
const VALUE_MAX: u32 = 1 << 20;
/// Longest name of a key or value, in UTF-16 units with the zero.
const NAME_MAX: usize = 1024;

struct Key(ffi::Handle);

impl Key {
    fn open(path: &str, access: u32) -> Option<Self> {
        let path = to_wide(path);
        let root = core::ptr::without_provenance_mut(LOCAL_MACHINE);
        let mut key = null_mut();
        let status = unsafe { ffi::RegOpenKeyExW(root, path.as_ptr(), 0, access, &raw mut key) };
        (status == SUCCESS).then_some(Self(key))
    }

    fn names(&self, next: impl Fn(ffi::Handle, u32, *mut u16, *mut u32) -> i32) -> Vec<String> {
        let mut names = Vec::new();
        let mut buffer = vec![0u16; NAME_MAX];
        for index in 0..ENTRIES_MAX {
            let mut length = u32::try_from(NAME_MAX).unwrap_or(0);
            if next(self.0, index, buffer.as_mut_ptr(), &raw mut length) != SUCCESS {
                break;
            }
            let length = usize::try_from(length).unwrap_or(0);
            names.push(from_wide(buffer.get(..length).unwrap_or_default()));
        }
        names
    }

    fn value(&self, name: &str) -> Option<(u32, Vec<u8>)> {
        let name = to_wide(name);
        let (mut kind, mut size) = (0, 0);
        let mut query = |data, size: &mut u32| unsafe {
            ffi::RegQueryValueExW(self.0, name.as_ptr(), null_mut(), &raw mut kind, data, size)
        };
        if query(null_mut(), &mut size) != SUCCESS || size > VALUE_MAX {
            return None;
        }
        let mut data = vec![0u8; usize::try_from(size).ok()?];
        if query(data.as_mut_ptr(), &mut size) != SUCCESS {
            return None;
        }
        data.truncate(usize::try_from(size).ok()?);
        Some((kind, data))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        unsafe { ffi::RegCloseKey(self.0) };
    }
}

/// Whether a key below `HKEY_LOCAL_MACHINE` is there.
#[must_use]
pub fn has_key(path: &str) -> bool {
    Key::open(path, READ).is_some()
}

/// Whether a key has a value that is not empty.
#[must_use]
pub fn has_value(path: &str, name: &str) -> bool {
    Key::open(path, READ).and_then(|key| key.value(name)).is_some_and(|(_, data)| !data.is_empty())
}

/// The SYSTEM hive of the running Windows.
pub struct SystemHive;

fn in_system(path: &str) -> String {
    join(&["SYSTEM\\", path])
}

impl SystemHive {
    /// Writes the changes to the disk.
    pub fn flush(&self) {
        if let Some(key) = Key::open("SYSTEM", READ) {
            unsafe { ffi::RegFlushKey(key.0) };
        }
    }
}

impl Registry for SystemHive {
    fn keys(&self, path: &str) -> Option<Vec<String>> {
        let key = Key::open(&in_system(path), READ)?;
        Some(key.names(|key, index, name, length| unsafe {
            ffi::RegEnumKeyExW(key, index, name, length, null_mut(), null_mut(), null_mut(), null_mut())
        }))
    }

    fn values(&self, path: &str) -> Option<Vec<String>> {
        let key = Key::open(&in_system(path), READ)?;
        Some(key.names(|key, index, name, length| unsafe {
            ffi::RegEnumValueW(key, index, name, length, null_mut(), null_mut(), null_mut(), null_mut())
        }))
    }

    fn strings(&self, path: &str, value: &str) -> Option<Vec<String>> {
        let (kind, data) = Key::open(&in_system(path), READ)?.value(value)?;
        let units: Vec<u16> =
            data.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_le_bytes)).collect();
        match kind {
            TYPE_SZ | TYPE_EXPAND_SZ => Some(Vec::from([from_wide(&units)])),
            TYPE_MULTI_SZ => Some(units.split(|&unit| unit == 0).filter(|s| !s.is_empty()).map(from_wide).collect()),
            _ => None,
        }
    }

    fn number(&self, path: &str, value: &str) -> Option<u32> {
        let (kind, data) = Key::open(&in_system(path), READ)?.value(value)?;
        data.try_into().ok().filter(|_| kind == TYPE_DWORD).map(u32::from_le_bytes)
    }

    fn remove_value(&mut self, path: &str, value: &str) -> bool {
        let Some(key) = Key::open(&in_system(path), SET_VALUE) else { return false };
        let value = to_wide(value);
        unsafe { ffi::RegDeleteValueW(key.0, value.as_ptr()) == SUCCESS }
    }

    fn remove_key(&mut self, path: &str) -> bool {
        let Some((parent, name)) = path.rsplit_once('\\') else { return false };
        let Some(parent) = Key::open(&in_system(parent), ALL_ACCESS) else { return false };
        let name = to_wide(name);
        // RegDeleteTree takes away the keys below, and the key itself on some Windows
        let status = unsafe { ffi::RegDeleteTreeW(parent.0, name.as_ptr()) };
        let status = match status {
            SUCCESS => unsafe { ffi::RegDeleteKeyExW(parent.0, name.as_ptr(), WIDE_VIEW, 0) },
            status => status,
        };
        status == SUCCESS || status == NOT_FOUND
    }
}
