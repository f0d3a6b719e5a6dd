//! Opening a volume: from a secret to the key of the sectors.

use serde::Serialize;
use zeroize::Zeroizing;

use super::cipher::SectorCipher;
use super::entry::damaged;
use super::header::HEADER_SIZE;
use super::key::{Key, method};
use super::metadata::Metadata;
use super::ntfs_start;
use super::protector::{Protector, ProtectorKind, SealedMasterKey};
use super::refusal::{Doubt, refuse};
use super::secret::Secret;
use super::state::{State, Variant};
use super::view::Unlocked;
use crate::error::{Error, Result};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// The remedy for metadata that were changed by something else than Windows.
const ALTERED_HINT: &str =
    "restore the image from a copy; start the guest once, so that Windows checks the volume itself";

/// What opened a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OpenedBy {
    /// One of its protectors.
    Protector(Protector),
    /// The key of the volume itself.
    VolumeKey,
    /// Nothing was needed: the volume is decrypted.
    Nothing,
}

impl Metadata {
    /// Opens the volume: by its clear key if it has one, else by the first of `secrets` that fits. `device` is the partition.
    ///
    /// # Errors
    /// Names the protectors when none of `secrets` fits; or says why the volume cannot be read at all.
    pub fn unlock<D: VolumeRead + ?Sized>(&self, device: &D, secrets: &[Secret]) -> Result<(Unlocked, OpenedBy)> {
        if let Some(error) = self.read_refusal() {
            return Err(error);
        }
        let (cipher, by) = self.find_key(secrets)?;
        let mut unlocked = Unlocked::new(self.clone(), cipher, device)?;
        let doubt = self.check_start(device, &unlocked, by == OpenedBy::VolumeKey)?;
        unlocked.set_doubt(doubt);
        Ok((unlocked, by))
    }

    /// The cipher with its key; none on a decrypted volume.
    fn find_key(&self, secrets: &[Secret]) -> Result<(Option<SectorCipher>, OpenedBy)> {
        let (State::Encrypted | State::Paused, Some(cipher)) = (self.state, self.cipher) else {
            if !self.content.block.has_open_hash() {
                return Err(altered());
            }
            return Ok((None, OpenedBy::Nothing));
        };
        if let Some((master, protector)) = self.open_by_clear_key() {
            return Ok((Some(self.open_volume_key(&master)?), OpenedBy::Protector(protector)));
        }
        let mut exhausted = false;
        for secret in secrets {
            if let Secret::VolumeKey(key) = secret {
                let Some(bytes) = key.bytes_for(cipher) else { continue };
                return Ok((SectorCipher::new(cipher, bytes), OpenedBy::VolumeKey));
            }
            for sealed in &self.content.master_keys {
                match open_master_key(secret, sealed) {
                    Attempt::Opened(master) => {
                        let by = OpenedBy::Protector(sealed.protector.clone());
                        return Ok((Some(self.open_volume_key(&master)?), by));
                    }
                    Attempt::Exhausted => exhausted = true,
                    Attempt::Failed => {}
                }
            }
        }
        Err(self.locked(secrets, exhausted))
    }

    fn open_by_clear_key(&self) -> Option<(Zeroizing<[u8; 32]>, Protector)> {
        let clear = self.content.master_keys.iter().filter(|key| key.protector.kind == ProtectorKind::ClearKey);
        clear.into_iter().find_map(|key| Some((open(key, key.clear_key.as_deref()?)?, key.protector.clone())))
    }

    /// Checks the metadata with the master key, and opens the volume's key with it.
    fn open_volume_key(&self, master: &[u8; 32]) -> Result<SectorCipher> {
        let content = &self.content;
        let sealed =
            content.block.is_sealed_with(master) || content.same.iter().any(|copy| copy.is_sealed_with(master));
        if !sealed {
            return Err(altered());
        }
        let key: Key = content.volume_key.as_ref().and_then(|sealed| sealed.open(master)).ok_or_else(|| {
            damaged("cannot read the volume: the sealed key of its sectors is damaged").hint(ALTERED_HINT)
        })?;
        let cipher = self.cipher.filter(|_| key.method == self.method());
        cipher.and_then(|cipher| SectorCipher::new(cipher, key.bytes())).ok_or_else(|| {
            damaged("cannot read the volume: the key of its sectors is one of another cipher")
                .expected_found(format_args!("{:#06x}", self.method()), format_args!("{:#06x}", key.method))
                .hint(ALTERED_HINT)
        })
    }

    /// Checks that a file system begins the plain view. Returns why it must not be written: it ends beyond the partition, or
    /// a bare volume key, which proves nothing itself, does not show the master file table either.
    fn check_start<D: VolumeRead + ?Sized>(
        &self,
        device: &D,
        unlocked: &Unlocked,
        bare_key: bool,
    ) -> Result<Option<Doubt>> {
        let mut sector = [0; HEADER_SIZE];
        unlocked.read(device, VolumeOffset(0), &mut sector)?;
        if self.variant == Variant::ToGo && ntfs_start::has_signature(&sector) {
            return Ok(None);
        }
        if !ntfs_start::is_ntfs(&sector) {
            let why = if bare_key { "the volume key does not fit: the" } else { "its" };
            let text = format!("cannot read the volume: {why} plain view does not begin with an NTFS boot sector");
            return Err(refuse(text, "only NTFS volumes are opened; compare the key with the volume's GUID"));
        }
        if ntfs_start::length(&sector) > unlocked.len() {
            return Ok(Some(Doubt::CutOff));
        }
        let proven = !bare_key || self.has_first_record(device, unlocked, &sector)?;
        Ok((!proven).then_some(Doubt::KeyNotProven))
    }

    fn has_first_record<D: VolumeRead + ?Sized>(&self, device: &D, unlocked: &Unlocked, sector: &[u8]) -> Result<bool> {
        let Some((offset, length)) = ntfs_start::first_record(sector) else { return Ok(false) };
        if offset.checked_add(length as u64).is_none_or(|end| end > unlocked.len()) {
            return Ok(false);
        }
        let mut record = vec![0; length];
        unlocked.read(device, VolumeOffset(offset), &mut record)?;
        Ok(ntfs_start::is_record(&record, usize::try_from(self.sector_size).unwrap_or(HEADER_SIZE)))
    }
}

/// What came of trying a secret on a protector.
enum Attempt {
    Opened(Zeroizing<[u8; 32]>),
    Failed,
    /// The secret was stretched too often already.
    Exhausted,
}

/// Tries a secret on a protector of its kind.
fn open_master_key(secret: &Secret, sealed: &SealedMasterKey) -> Attempt {
    let key = match (secret, sealed.protector.kind, sealed.salt) {
        (Secret::RecoveryPassword(secret), ProtectorKind::RecoveryPassword, Some(salt))
        | (Secret::Password(secret), ProtectorKind::Password, Some(salt)) => match secret.key(&salt) {
            Some(key) => key,
            None => return Attempt::Exhausted,
        },
        (Secret::StartupKey(secret), ProtectorKind::StartupKey, _) if secret.protector == sealed.protector.id => {
            secret.key.clone()
        }
        _ => return Attempt::Failed,
    };
    open(sealed, &key).map_or(Attempt::Failed, Attempt::Opened)
}

/// The master key, if `key` is the protector's.
fn open(sealed: &SealedMasterKey, key: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    sealed.sealed.as_ref()?.open(key).filter(|key| key.method == method::MASTER_KEY)?.to_array()
}

fn altered() -> Error {
    damaged("cannot read the volume: BitLocker's metadata were altered: their sealed hash does not match")
        .hint(ALTERED_HINT)
}
