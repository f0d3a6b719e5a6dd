//! The keys that a user gives for BitLocker volumes, and the volumes that they opened.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::content::Content;
use super::disk::Disk;
use super::encryption::{Encryption, VolumeKey};
use super::read::read;
use super::table::{Partition, PartitionTable};
use super::view::RawView;
use crate::bitlocker::{Metadata, OpenedBy, Secret};
use crate::error::{Error, Result};
use crate::guid::Guid;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// The key ID of a protector, as Windows shows it: the first 8 digits of its GUID, or all of them. A volume's GUID names all
/// of its protectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectorId(String);

impl ProtectorId {
    /// Reads 8 hexadecimal digits, or a whole GUID with or without braces.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let is_hyphen = |index: usize| matches!(index, 8 | 13 | 18 | 23);
        let fits = |(index, c): (usize, char)| if is_hyphen(index) { c == '-' } else { c.is_ascii_hexdigit() };
        let is_id = matches!(text.len(), 8 | 36) && text.chars().enumerate().all(fits);
        is_id.then(|| Self(text.to_ascii_lowercase()))
    }

    fn names(&self, id: &Guid) -> bool {
        id.to_string().to_ascii_lowercase().starts_with(&self.0)
    }

    fn names_any(&self, metadata: &Metadata) -> bool {
        self.names(&metadata.volume) || metadata.protectors.iter().any(|protector| self.names(&protector.id))
    }
}

impl fmt::Display for ProtectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_ascii_uppercase())
    }
}

/// The secrets that open the BitLocker volumes of a machine. They are shared by all clones and zeroised with the last one; so
/// are the keys of the volumes that were opened, each of which is opened once.
///
/// A volume with a clear key (BitLocker is suspended, or device encryption waits for activation) needs no secret.
///
/// ```no_run
/// use winject::{BitLockerKeys, BitLockerSecret, ImageOptions, open_image};
///
/// # fn main() -> winject::Result<()> {
/// let text = std::fs::read_to_string("recovery-key.txt").unwrap_or_default();
/// let keys = BitLockerKeys::new([(None, BitLockerSecret::recovery_password(text.trim())?)]);
/// let image = open_image("guest.vhdx".as_ref(), &ImageOptions::default())?;
/// for partition in keys.read_partitions(image.as_ref())?.partitions {
///     println!("{}: {}", partition.number, partition.content);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct BitLockerKeys(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Those for a certain protector or volume.
    for_one: Vec<(ProtectorId, Secret)>,
    /// Those that are tried on every volume.
    for_any: Vec<Secret>,
    tried: Mutex<Tried>,
}

/// Volumes that were tried.
#[derive(Default)]
struct Tried {
    open: Vec<(VolumeKey, OpenedBy)>,
    locked: Vec<(Guid, u64, Error)>,
}

impl BitLockerKeys {
    /// Takes secrets, each with the key ID of the protector that it is for, if that is known.
    pub fn new(secrets: impl IntoIterator<Item = (Option<ProtectorId>, Secret)>) -> Self {
        let mut inner = Inner::default();
        for (id, secret) in secrets {
            match id {
                Some(id) => inner.for_one.push((id, secret)),
                None => inner.for_any.push(secret),
            }
        }
        Self(Arc::new(inner))
    }

    /// Reads the partition table of a disk, and opens its BitLocker volumes as far as that is possible: their
    /// [`Partition::content`] is then that of the plain volume, and a [`PartitionView`](super::PartitionView) reads and
    /// writes it. A volume that cannot be opened is no error here, see [`Partition::refusal`].
    ///
    /// # Errors
    /// Those of [`read`].
    pub fn read_partitions<D: Disk + ?Sized>(&self, disk: &D) -> Result<PartitionTable> {
        let mut table = read(disk)?;
        for partition in table.partitions.iter_mut().filter(|partition| partition.content == Content::BitLocker) {
            let (encryption, content) = self.open(disk, partition);
            if let Some(content) = content {
                partition.content = content;
            }
            for finding in encryption.metadata.iter().flat_map(|metadata| &metadata.findings) {
                table.warnings.push(format!("{}: {finding}", partition.label()));
            }
            partition.bitlocker = Some(encryption);
        }
        Ok(table)
    }

    /// Opens a volume, and looks at what it holds.
    fn open<D: Disk + ?Sized>(&self, disk: &D, partition: &Partition) -> (Encryption, Option<Content>) {
        let raw = match RawView::new(disk, partition) {
            Ok(raw) => raw,
            Err(error) => return (Encryption::locked(None, error), None),
        };
        let metadata = match Metadata::read(&raw) {
            Ok(metadata) => metadata,
            Err(error) => return (Encryption::locked(None, error), None),
        };
        let opened = self.unlock(&raw, &metadata).and_then(|(key, opened_by)| {
            let mut sector = [0; 512];
            key.0.read(&raw, VolumeOffset(0), &mut sector)?;
            Ok((Encryption::open(key, opened_by), Some(Content::of_sector(&sector))))
        });
        opened.unwrap_or_else(|error| (Encryption::locked(Some(metadata), error), None))
    }

    fn unlock<D: VolumeRead>(&self, raw: &D, metadata: &Metadata) -> Result<(VolumeKey, OpenedBy)> {
        let mut tried = self.0.tried.lock().unwrap_or_else(PoisonError::into_inner);
        // The same volume, also on a stage over the image: not one byte of its metadata differs.
        let is_same = |key: &VolumeKey| {
            let known = key.0.metadata();
            known.volume == metadata.volume
                && known.volume_size == metadata.volume_size
                && key.0.check_untouched(raw).is_ok()
        };
        if let Some((key, opened_by)) = tried.open.iter().find(|(key, _)| is_same(key)) {
            return Ok((key.clone(), opened_by.clone()));
        }
        let is_known =
            |(volume, size, _): &&(Guid, u64, Error)| *volume == metadata.volume && *size == metadata.volume_size;
        if let Some((_, _, error)) = tried.locked.iter().find(is_known) {
            return Err(error.clone());
        }
        match self.try_secrets(raw, metadata) {
            Ok((key, opened_by)) => {
                tried.open.push((key.clone(), opened_by.clone()));
                Ok((key, opened_by))
            }
            Err(error) => {
                tried.locked.push((metadata.volume, metadata.volume_size, error.clone()));
                Err(error)
            }
        }
    }

    /// The clear key comes first, then the secrets that name one of the volume's protectors, then those for any volume.
    fn try_secrets<D: VolumeRead>(&self, raw: &D, metadata: &Metadata) -> Result<(VolumeKey, OpenedBy)> {
        let Inner { for_one, for_any, .. } = &*self.0;
        let of_this = for_one.iter().filter(|(id, _)| id.names_any(metadata));
        let of_this = of_this.map(|(_, secret)| std::slice::from_ref(secret));
        let for_any = Some(for_any.as_slice()).filter(|secrets| !secrets.is_empty());
        let mut opened = metadata.unlock(raw, &[]);
        for secrets in of_this.chain(for_any) {
            if opened.is_ok() {
                break;
            }
            opened = metadata.unlock(raw, secrets);
        }
        let (key, opened_by) = opened?;
        Ok((VolumeKey(Arc::new(key)), opened_by))
    }
}

impl fmt::Debug for BitLockerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let for_one = self.0.for_one.iter().map(|(id, secret)| (Some(id), secret.kind()));
        let for_any = self.0.for_any.iter().map(|secret| (None, secret.kind()));
        f.debug_list().entries(for_one.chain(for_any)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_are_what_windows_shows() {
        let id = Guid::new(0x4381_F759, 0xC4F8, 0x4DE0, [0xBB, 0x61, 0xFC, 0x33, 0xA8, 0x31, 0xBD, 0xA5]);
        for text in
            ["4381F759", "4381f759", "4381F759-C4F8-4DE0-BB61-FC33A831BDA5", "{4381f759-c4f8-4de0-bb61-fc33a831bda5}"]
        {
            assert!(ProtectorId::parse(text).unwrap().names(&id), "{text}");
        }
        assert!(!ProtectorId::parse("4381F758").unwrap().names(&id));
        for text in
            ["", "4381F75", "4381F7590", "4381F75G", "4381F759-C4F8-4DE0-BB61xFC33A831BDA5", "{4381F759", "é381F75"]
        {
            assert!(ProtectorId::parse(text).is_none(), "{text}");
        }
    }
}
