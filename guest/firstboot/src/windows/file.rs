//! Files and folders.

use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::{null, null_mut};

use super::handle::OwnedHandle;
use super::wide::{from_wide, to_wide};
use super::{ffi, last_error, security};
use crate::descriptor;

const GENERIC_READ: u32 = 0x8000_0000;
const GENERIC_WRITE: u32 = 0x4000_0000;
const READ_CONTROL: u32 = 0x2_0000;
const FILE_APPEND_DATA: u32 = 4;
const FILE_READ_ATTRIBUTES: u32 = 0x80;
/// `FILE_SHARE_READ`, `_WRITE` and `_DELETE`
const SHARE_ALL: u32 = 7;
const CREATE_NEW: u32 = 1;
const CREATE_ALWAYS: u32 = 2;
const OPEN_EXISTING: u32 = 3;
const OPEN_ALWAYS: u32 = 4;
/// `FILE_FLAG_OPEN_REPARSE_POINT`
const NO_FOLLOW: u32 = 0x20_0000;
/// `FILE_FLAG_BACKUP_SEMANTICS`, which opens folders.
const FOLDERS_TOO: u32 = 0x200_0000;
const DELETE_ON_CLOSE: u32 = 0x400_0000;
const ATTRIBUTE_FOLDER: u32 = 0x10;
const ATTRIBUTE_REPARSE_POINT: u32 = 0x400;
/// `INVALID_FILE_ATTRIBUTES`
const NO_ATTRIBUTES: u32 = u32::MAX;

/// An open file.
pub struct File(OwnedHandle);

impl File {
    fn open(path: &str, access: u32, share: u32, creation: u32, flags: u32) -> Result<Self, u32> {
        Self::open_with(path, access, share, creation, flags, false)
    }

    fn open_with(path: &str, access: u32, share: u32, creation: u32, flags: u32, inherit: bool) -> Result<Self, u32> {
        let path = to_wide(path);
        let size = u32::try_from(size_of::<ffi::SecurityAttributes>()).unwrap_or(0);
        let security = ffi::SecurityAttributes { size, descriptor: null_mut(), inherit: i32::from(inherit) };
        let handle =
            unsafe { ffi::CreateFileW(path.as_ptr(), access, share, &raw const security, creation, flags, null_mut()) };
        OwnedHandle::new(handle).map(Self).ok_or_else(last_error)
    }

    /// Holds a file so that no other process can open it, until the result is dropped, which deletes it.
    ///
    /// # Errors
    /// With the number of the error, above all when another process holds it.
    pub fn lock(path: &str) -> Result<Self, u32> {
        Self::open(path, GENERIC_WRITE | 0x1_0000, 0, OPEN_ALWAYS, DELETE_ON_CLOSE)
    }

    /// A new file for the output of a child process, which inherits it.
    ///
    /// # Errors
    /// With the number of the error.
    pub fn create_for_child(path: &str) -> Result<Self, u32> {
        Self::open_with(path, GENERIC_WRITE, SHARE_ALL, CREATE_ALWAYS, 0, true)
    }

    /// The empty input for a child process.
    ///
    /// # Errors
    /// With the number of the error.
    pub fn null_for_child() -> Result<Self, u32> {
        Self::open_with("NUL", GENERIC_READ, SHARE_ALL, OPEN_EXISTING, 0, true)
    }

    /// A device for writing.
    ///
    /// # Errors
    /// With the number of the error; mostly because the machine has no such device.
    pub fn open_device(path: &str) -> Result<Self, u32> {
        Self::open(path, GENERIC_WRITE, 0, OPEN_EXISTING, 0)
    }

    /// Opens a file for appending.
    ///
    /// # Errors
    /// With the number of the error.
    pub(super) fn append(path: &str) -> Result<Self, u32> {
        Self::open(path, FILE_APPEND_DATA, SHARE_ALL, OPEN_ALWAYS, 0)
    }

    /// Opens a file for appending that others must not have prepared: the folder may be one where everybody creates
    /// files. A link, or a file of an account that is not trusted, is deleted (the link, not what it leads to) and a
    /// new file takes its place.
    ///
    /// # Errors
    /// With the number of the error.
    pub fn append_trusted(path: &str, own: &[u8]) -> Result<Self, u32> {
        let access = FILE_APPEND_DATA | FILE_READ_ATTRIBUTES | READ_CONTROL;
        if let Ok(file) = Self::open(path, access, SHARE_ALL, OPEN_EXISTING, NO_FOLLOW) {
            let plain = file.information().is_some_and(|found| {
                found.links == 1 && found.attributes & (ATTRIBUTE_FOLDER | ATTRIBUTE_REPARSE_POINT) == 0
            });
            let descriptor = security::owner_descriptor(&file).unwrap_or_default();
            if plain && descriptor::check_owner(&descriptor, own).is_ok() {
                return Ok(file);
            }
        }
        let _ = delete(path);
        Self::open(path, access, SHARE_ALL, CREATE_NEW, 0)
    }

    /// Opens a file or folder itself, never what a link leads to, to read its descriptor.
    ///
    /// # Errors
    /// With the number of the error.
    pub fn open_for_descriptor(path: &str) -> Result<Self, u32> {
        let access = READ_CONTROL | FILE_READ_ATTRIBUTES;
        Self::open(path, access, SHARE_ALL, OPEN_EXISTING, NO_FOLLOW | FOLDERS_TOO)
    }

    /// Whether it is a link to somewhere else.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.information().is_none_or(|found| found.attributes & ATTRIBUTE_REPARSE_POINT != 0)
    }

    fn information(&self) -> Option<ffi::FileInformation> {
        let mut out = ffi::FileInformation::default();
        (unsafe { ffi::GetFileInformationByHandle(self.raw(), &raw mut out) } != 0).then_some(out)
    }

    pub(super) fn raw(&self) -> ffi::Handle {
        self.0.raw()
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// With the number of the error.
    pub fn write(&self, data: &[u8]) -> Result<(), u32> {
        let mut rest = data;
        while !rest.is_empty() {
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let mut written = 0;
            let ok = unsafe { ffi::WriteFile(self.raw(), rest.as_ptr(), length, &raw mut written, null_mut()) };
            if ok == 0 || written == 0 {
                return Err(last_error());
            }
            rest = rest.get(usize::try_from(written).unwrap_or(usize::MAX)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Reads a file up to `max` bytes.
///
/// # Errors
/// With the number of the error.
pub fn read(path: &str, max: usize) -> Result<Vec<u8>, u32> {
    let file = File::open(path, GENERIC_READ, SHARE_ALL, OPEN_EXISTING, 0)?;
    let mut data = Vec::new();
    let mut piece = [0u8; 1024];
    while data.len() < max {
        let mut length = 0;
        let room = u32::try_from(piece.len().min(max - data.len())).unwrap_or(0);
        if unsafe { ffi::ReadFile(file.raw(), piece.as_mut_ptr(), room, &raw mut length, null_mut()) } == 0 {
            return Err(last_error());
        }
        if length == 0 {
            break;
        }
        data.extend_from_slice(piece.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default());
    }
    Ok(data)
}

/// Gives a file new contents: the old or the new ones are there, whatever happens. `temporary` is in the same folder.
///
/// # Errors
/// With the number of the error.
pub fn replace(path: &str, temporary: &str, data: &[u8]) -> Result<(), u32> {
    /// `MOVEFILE_REPLACE_EXISTING` and `MOVEFILE_WRITE_THROUGH`
    const REPLACE: u32 = 1 | 8;
    let file = File::open(temporary, GENERIC_WRITE, 0, CREATE_ALWAYS, 0)?;
    file.write(data)?;
    if unsafe { ffi::FlushFileBuffers(file.raw()) } == 0 {
        return Err(last_error());
    }
    drop(file);
    let (from, to) = (to_wide(temporary), to_wide(path));
    if unsafe { ffi::MoveFileExW(from.as_ptr(), to.as_ptr(), REPLACE) } == 0 { Err(last_error()) } else { Ok(()) }
}

/// Deletes a file.
///
/// # Errors
/// With the number of the error.
pub fn delete(path: &str) -> Result<(), u32> {
    let path = to_wide(path);
    if unsafe { ffi::DeleteFileW(path.as_ptr()) } == 0 { Err(last_error()) } else { Ok(()) }
}

/// Whether something has this path.
#[must_use]
pub fn exists(path: &str) -> bool {
    let path = to_wide(path);
    unsafe { ffi::GetFileAttributesW(path.as_ptr()) != NO_ATTRIBUTES }
}

/// One entry of a folder.
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a folder, and not a link to one.
    pub is_folder: bool,
}

/// The entries of a folder, at most `max`.
#[must_use]
pub fn list(folder: &str, max: usize) -> Vec<Entry> {
    let pattern = to_wide(&crate::text::join(&[folder, "\\*"]));
    let mut found = ffi::FindData {
        attributes: 0,
        times: [0; 6],
        size: [0; 2],
        reserved: [0; 2],
        name: [0; 260],
        short_name: [0; 14],
    };
    let mut entries = Vec::new();
    let search = unsafe { ffi::FindFirstFileW(pattern.as_ptr(), &raw mut found) };
    if search.addr() == usize::MAX {
        return entries;
    }
    while entries.len() < max {
        let name = from_wide(&found.name);
        if name != "." && name != ".." {
            let is_folder = found.attributes & (ATTRIBUTE_FOLDER | ATTRIBUTE_REPARSE_POINT) == ATTRIBUTE_FOLDER;
            entries.push(Entry { name, is_folder });
        }
        if unsafe { ffi::FindNextFileW(search, &raw mut found) } == 0 {
            break;
        }
    }
    unsafe { ffi::FindClose(search) };
    entries
}

/// A null pointer for the optional texts of calls.
pub(super) const NONE: *const u16 = null();
