//! The single edits of which a plan consists.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::drivers::PackageFile;
use crate::error::Result;
use crate::hex;
use crate::hive::RegistryData;

/// A hive of the guest that plans edit. The order is the order of writing: SYSTEM comes last, so that an interruption
/// before it leaves a guest that boots as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum GuestHive {
    /// The boot configuration, which lies on the boot volume: see [`BootPlace`](super::BootPlace).
    Bcd,
    /// `System32\config\DRIVERS`: driver packages that are not needed for booting.
    Drivers,
    /// `System32\config\SOFTWARE`: machine-wide settings of Windows and programs.
    Software,
    /// `System32\config\SYSTEM`: the control sets with all services and devices.
    System,
}

impl GuestHive {
    /// Those of the Windows volume, in the order of writing.
    pub const ALL: [Self; 3] = [Self::Drivers, Self::Software, Self::System];

    /// The file's name below `System32\config`, or in the folder of the boot configuration.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Bcd => "BCD",
            Self::Drivers => "DRIVERS",
            Self::Software => "SOFTWARE",
            Self::System => "SYSTEM",
        }
    }
}

impl fmt::Display for GuestHive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            // Windows loads it under this name.
            Self::Bcd => "BCD00000000",
            _ => self.file_name(),
        })
    }
}

/// The content of a file to be written, described by its size and hash: bytes in memory, or a file of the driver media.
#[derive(Clone)]
pub struct Content {
    bytes: Bytes,
    sha256: [u8; 32],
    origin: Origin,
}

/// Where the bytes of a content come from.
#[derive(Clone)]
enum Origin {
    /// winject made them.
    Made,
    /// From this path of the driver media.
    Media(Arc<str>),
    /// From a file of the host that the user named, whose name this is.
    Host(Arc<str>),
}

#[derive(Clone)]
enum Bytes {
    Held(Arc<Vec<u8>>),
    /// Stays on the media until it is written.
    OnMedia(Box<PackageFile>),
}

impl Content {
    /// Takes the bytes and computes their hash.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes.into());
        let sha256 = Sha256::digest(&*bytes).into();
        Self { bytes: Bytes::Held(bytes), sha256, origin: Origin::Made }
    }

    /// Like [`new`](Self::new), for bytes whose hash the caller has just computed.
    pub(crate) fn hashed(bytes: Arc<Vec<u8>>, sha256: [u8; 32]) -> Self {
        Self { bytes: Bytes::Held(bytes), sha256, origin: Origin::Made }
    }

    /// Says that the same bytes lie on the driver media, below the root of one of them.
    #[must_use]
    pub(crate) fn with_media_path(mut self, path: &str) -> Self {
        self.origin = Origin::Media(path.into());
        self
    }

    /// The path on the driver media that the bytes come from; `None` if they come from elsewhere.
    #[must_use]
    pub fn media_path(&self) -> Option<&str> {
        match &self.origin {
            Origin::Media(path) => Some(path),
            _ => None,
        }
    }

    /// The name of the host's file that the user named; `None` if the bytes come from elsewhere.
    #[must_use]
    pub fn host_name(&self) -> Option<&str> {
        match &self.origin {
            Origin::Host(name) => Some(name),
            _ => None,
        }
    }

    /// A file of a driver package. What is not in memory yet is read when it is written.
    #[must_use]
    pub fn of_package(file: &PackageFile) -> Self {
        let bytes = match &file.content {
            Some(content) => Bytes::Held(Arc::clone(content)),
            None => Bytes::OnMedia(Box::new(file.clone())),
        };
        let path = file.media_path().into();
        let origin = if file.is_of_host() { Origin::Host(path) } else { Origin::Media(path) };
        Self { bytes, sha256: file.sha256, origin }
    }

    /// The bytes if they are in memory, else the file that holds them.
    pub(crate) fn held(&self) -> std::result::Result<&[u8], &PackageFile> {
        match &self.bytes {
            Bytes::Held(bytes) => Ok(bytes),
            Bytes::OnMedia(file) => Err(file),
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// When the media cannot be read, or the file is not what it was when it was chosen.
    pub fn read(&self) -> Result<Arc<Vec<u8>>> {
        match &self.bytes {
            Bytes::Held(bytes) => Ok(Arc::clone(bytes)),
            Bytes::OnMedia(file) => file.read(),
        }
    }

    /// Length of the content in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.bytes {
            Bytes::Held(bytes) => bytes.len() as u64,
            Bytes::OnMedia(file) => file.size,
        }
    }

    /// SHA-256 of the content, in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(&self.sha256)
    }

    /// SHA-256 of the content.
    pub(crate) fn sha256_bytes(&self) -> [u8; 32] {
        self.sha256
    }

    /// Whether a file of this length and hash holds the same bytes.
    pub(crate) fn is_hashed(&self, length: u64, sha256: [u8; 32]) -> bool {
        (self.size(), self.sha256) == (length, sha256)
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256 && self.size() == other.size()
    }
}
impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes, sha256 {})", self.size(), self.sha256())
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Content", 2)?;
        out.serialize_field("size", &self.size())?;
        out.serialize_field("sha256", &self.sha256())?;
        out.end()
    }
}

crate::schema::json_schema_object!(
    Content,
    "Content",
    "size": "integer" = "Length in bytes.",
    "sha256": "string" = "SHA-256 of the content, in hexadecimal.",
);

/// Who may write to a new file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Full control for SYSTEM and Administrators, read and execute for Users, nothing inherited. A script that runs
    /// as SYSTEM must not be writable by ordinary users, which a new folder at the root of `C:` would be.
    Protected,
    /// The security descriptor of this existing file or folder.
    Like(String),
    /// What Windows hands down from the folder that the new file or folder lies in.
    Inherited,
}

/// One edit. Paths are absolute on the Windows volume, with `/`; registry keys are relative to the hive's root, with
/// `\`. An edit describes the result; applying one that already holds changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A folder that is not there yet; its parent is.
    CreateDir {
        /// Its absolute path on the volume.
        path: String,
        /// The permissions that it is created with.
        access: Access,
    },
    /// A file that is new or gets new content.
    WriteFile {
        /// Its absolute path on the volume.
        path: String,
        /// What the file holds afterwards.
        content: Content,
        /// Whether a file of that name exists now.
        replaces: bool,
        /// Permissions of a new file; a replaced one keeps its own.
        access: Access,
    },
    /// A folder or file of ours that is there already with other permissions than ours.
    Protect {
        /// The folder or file.
        path: String,
    },
    /// A file, or an empty folder, that is removed.
    DeleteFile {
        /// Its absolute path on the volume.
        path: String,
    },
    /// A new file on the boot volume that is a copy of another one there; folders of its path that are missing are made.
    CopyBootFile {
        /// Its absolute path on the boot volume.
        path: String,
        /// The file that is copied.
        from: String,
        /// Length in bytes.
        size: u64,
        /// SHA-256 of the content.
        #[serde(serialize_with = "serialize_hash")]
        #[cfg_attr(feature = "cli", schemars(with = "String"))]
        sha256: [u8; 32],
    },
    /// A key without values of its own.
    CreateKey {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
    },
    /// A value; its key is created when missing.
    SetValue {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
        /// The value's name; empty for the default value.
        name: String,
        /// The new type and data.
        data: RegistryData,
        /// The value before the change, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<RegistryData>,
    },
    /// A value that is removed.
    DeleteValue {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
        /// Name of the value; empty for the default value.
        name: String,
    },
    /// A key that is removed, with everything below it.
    DeleteKey {
        /// The hive that is edited.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
    },
}

impl Change {
    /// The hive that this edit belongs to; `None` for edits of files.
    #[must_use]
    pub fn hive(&self) -> Option<GuestHive> {
        match self {
            Self::CreateKey { hive, .. }
            | Self::SetValue { hive, .. }
            | Self::DeleteValue { hive, .. }
            | Self::DeleteKey { hive, .. } => Some(*hive),
            Self::CreateDir { .. }
            | Self::WriteFile { .. }
            | Self::Protect { .. }
            | Self::DeleteFile { .. }
            | Self::CopyBootFile { .. } => None,
        }
    }

    /// Whether this edit concerns the boot volume.
    #[must_use]
    pub fn is_of_boot_volume(&self) -> bool {
        matches!(self, Self::CopyBootFile { .. }) || self.hive() == Some(GuestHive::Bcd)
    }

    /// The file or folder of the Windows volume that this edit touches; `None` for edits of hives and of the boot volume.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::CreateDir { path, .. }
            | Self::WriteFile { path, .. }
            | Self::Protect { path }
            | Self::DeleteFile { path } => Some(path),
            _ => None,
        }
    }
}

fn serialize_hash<S: Serializer>(hash: &[u8; 32], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(hash))
}

/// The name of a value as people know it.
pub(crate) fn value_name(name: &str) -> &str {
    if name.is_empty() { "(default)" } else { name }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDir { path, .. } => write!(f, "create folder {path}"),
            Self::WriteFile { path, content, replaces, .. } => {
                let verb = if *replaces { "replace" } else { "create" };
                write!(f, "{verb} file {path} ({} bytes, sha256 {})", content.size(), content.sha256())
            }
            Self::Protect { path } => write!(f, "protect {path} against other users of the guest"),
            Self::DeleteFile { path } => write!(f, "delete file {path}"),
            Self::CopyBootFile { path, from, size, sha256 } => {
                write!(f, "create file {path} of the boot volume, a copy of {from} ({size} bytes, sha256 ")?;
                write!(f, "{})", hex::encode(sha256))
            }
            Self::CreateKey { hive, key } => write!(f, "create key {hive}\\{key}"),
            Self::SetValue { hive, key, name, data, before } => {
                write!(f, "set {hive}\\{key} : {} = {data}", value_name(name))?;
                before.as_ref().map_or(Ok(()), |before| write!(f, " (was {before})"))
            }
            Self::DeleteValue { hive, key, name } => write!(f, "delete {hive}\\{key} : {}", value_name(name)),
            Self::DeleteKey { hive, key } => write!(f, "delete key {hive}\\{key}"),
        }
    }
}

/// A change and why it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Step {
    /// What is edited; its fields are those of the step.
    #[serde(flatten)]
    pub change: Change,
    /// The reason, in a few words.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hives_are_written_with_system_last() {
        assert!(GuestHive::Drivers < GuestHive::Software && GuestHive::Software < GuestHive::System);
    }

    #[test]
    fn a_step_serialises_flat_and_without_its_content() {
        let step = Step {
            change: Change::WriteFile {
                path: "/a".to_owned(),
                content: Content::new(&b"abc"[..]),
                replaces: false,
                access: Access::Protected,
            },
            reason: "because".to_owned(),
        };
        let json = serde_json::to_value(&step).unwrap();
        assert_eq!(json["change"], "write_file");
        assert_eq!(json["reason"], "because");
        assert_eq!(json["content"]["size"], 3);
        assert_eq!(json["content"]["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_text_names_the_default_value() {
        let change = Change::SetValue {
            hive: GuestHive::System,
            key: "A\\B".to_owned(),
            name: String::new(),
            data: RegistryData::sz("x"),
            before: None,
        };
        assert_eq!(change.to_string(), "set SYSTEM\\A\\B : (default) = REG_SZ x");
    }
}
