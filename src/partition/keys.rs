//! The keys that a user gives for BitLocker volumes, and the volumes that they opened.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::content::Content;
use super::disk::Disk;
use super::encryption::Encryption;
use super::read::read;
use super::table::{Partition, PartitionTable};
use super::view::RawView;
use crate::bitlocker::{Metadata, Offer, Offered, OpenedBy, Secret, Unlocked};
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

    /// The protectors of a volume that it names, `None` for all: it is the ID of the volume.
    fn protectors(&self, metadata: &Metadata) -> Option<Vec<Guid>> {
        let ids = || metadata.protectors.iter().map(|protector| protector.id).filter(|id| self.names(id));
        (!self.names(&metadata.volume)).then(|| ids().collect())
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
    open: Vec<(Identity, Arc<Unlocked>, OpenedBy)>,
    locked: Vec<(Identity, Error)>,
}

/// What a volume is known by, also on a stage over the image: its length, and the hash of its header and metadata.
type Identity = (u64, [u8; 32]);

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
    /// writes it. A volume that cannot be opened is not an error here, see [`Partition::refusal`].
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
            key.read(&raw, VolumeOffset(0), &mut sector)?;
            Ok((Encryption::open(key, opened_by), Some(Content::of_sector(&sector))))
        });
        opened.unwrap_or_else(|error| (Encryption::locked(Some(metadata), error), None))
    }

    fn unlock<D: VolumeRead>(&self, raw: &D, metadata: &Metadata) -> Result<(Arc<Unlocked>, OpenedBy)> {
        let mut tried = self.0.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = (metadata.volume_size, metadata.fingerprint(raw)?);
        if let Some((_, key, opened_by)) = tried.open.iter().find(|(known, ..)| *known == identity) {
            return Ok((key.clone(), opened_by.clone()));
        }
        if let Some((_, error)) = tried.locked.iter().find(|(known, _)| *known == identity) {
            return Err(error.clone());
        }
        match metadata.unlock_by(raw, &self.offer(metadata)) {
            Ok((key, opened_by)) => {
                let key = Arc::new(key);
                tried.open.push((identity, key.clone(), opened_by.clone()));
                Ok((key, opened_by))
            }
            Err(error) => {
                tried.locked.push((identity, error.clone()));
                Err(error)
            }
        }
    }

    /// What is tried on a volume: first the secrets that name it or one of its protectors, then those for any volume.
    fn offer(&self, metadata: &Metadata) -> Offer<'_> {
        let Inner { for_one, for_any, .. } = &*self.0;
        let mut offer = Offer::default();
        for (id, secret) in for_one {
            match id.protectors(metadata) {
                Some(none) if none.is_empty() => offer.unknown_ids.push(id.to_string()),
                only => offer.secrets.push(Offered { secret, only }),
            }
        }
        offer.secrets.extend(for_any.iter().map(|secret| Offered { secret, only: None }));
        offer
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
    use super::super::disk::MemoryDisk;
    use super::*;
    use crate::bitlocker::sample::Sample;
    use crate::error::Kind;

    /// What opens a volume, or the error.
    fn opened(keys: &BitLockerKeys, sample: &Sample) -> Result<OpenedBy> {
        let table = keys.read_partitions(&MemoryDisk(sample.volume().0)).unwrap();
        let encryption = table.partitions[0].bitlocker.clone().unwrap();
        encryption.refusal().map_or_else(|| Ok(encryption.opened_by.unwrap()), Err)
    }

    fn keys<const N: usize>(secrets: [(&str, Secret); N]) -> BitLockerKeys {
        let id = |text: &str| (!text.is_empty()).then(|| ProtectorId::parse(text).unwrap());
        BitLockerKeys::new(secrets.map(|(text, secret)| (id(text), secret)))
    }

    #[test]
    fn an_older_copy_of_a_volume_does_not_lock_it() {
        let suspended = Sample::default();
        let older = Sample { clear_key: None, ..Sample::default() };
        for order in [[&suspended, &older], [&older, &suspended]] {
            let keys = BitLockerKeys::default();
            for sample in order {
                assert_eq!(opened(&keys, sample).is_ok(), sample.clear_key.is_some());
            }
        }
    }

    #[test]
    fn an_id_chooses_the_protector() {
        let sample = Sample { clear_key: None, ..Sample::default() };
        let startup_key = || Sample::startup_key(1);
        let volume = Sample::volume_id().to_string();
        for id in ["01010101", "", &volume] {
            let by = opened(&keys([(id, startup_key())]), &sample).unwrap_or_else(|e| panic!("{id}: {e}"));
            assert!(matches!(by, OpenedBy::Protector(protector) if protector.id == Sample::protector(1)), "{id}");
        }
        let text = opened(&keys([("02020202", startup_key())]), &sample).unwrap_err().to_string();
        assert!(text.contains("the given startup key does not open it"), "{text}");
    }

    #[test]
    fn an_id_that_nothing_has_is_named_with_those_that_exist() {
        let sample = Sample { clear_key: None, ..Sample::default() };
        let error = opened(&keys([("ABCDEF01", Sample::startup_key(1))]), &sample).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        for words in ["no protector of it has the ID ABCDEF01", "key ID 01010101", "key ID 02020202"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        let both = keys([("ABCDEF01", Sample::startup_key(1)), ("", Sample::startup_key(3))]);
        let text = opened(&both, &sample).unwrap_err().to_string();
        assert!(text.contains("the given startup key does not open it, and no protector of it has the ID"), "{text}");
    }

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
