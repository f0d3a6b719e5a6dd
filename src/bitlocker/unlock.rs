//! Opening a volume: from a secret to the key of the sectors.

use serde::Serialize;
use zeroize::Zeroizing;

use super::cipher::SectorCipher;
use super::entry::damaged;
use super::header::{HEADER_SIZE, has_signature};
use super::key::{Key, method};
use super::metadata::Metadata;
use super::offer::Offer;
use super::protector::{Protector, ProtectorKind, SealedMasterKey};
use super::refusal::{Doubt, refuse};
use super::secret::Secret;
use super::state::{State, Variant};
use super::view::Unlocked;
use crate::error::{Error, Kind, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::boot::Geometry;
use crate::ntfs::format::{fixup, record};
use crate::units::VolumeOffset;

/// The remedy for metadata that were changed by something else than Windows.
const ALTERED_HINT: &str =
    "restore the image from a copy; start the guest once, so that Windows checks the volume itself";

/// What opened a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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
        self.unlock_by(device, &Offer::for_all(secrets))
    }

    /// Like [`Metadata::unlock`], with secrets that may be for certain protectors only.
    ///
    /// # Errors
    /// Those of [`Metadata::unlock`].
    pub(crate) fn unlock_by<D: VolumeRead + ?Sized>(
        &self,
        device: &D,
        offer: &Offer<'_>,
    ) -> Result<(Unlocked, OpenedBy)> {
        if let Some(error) = self.read_refusal() {
            return Err(error);
        }
        let (State::Encrypted | State::Paused, Some(cipher)) = (self.state, self.cipher) else {
            if !self.content.block.has_open_hash() {
                return Err(altered());
            }
            return self.open_view(device, None, OpenedBy::Nothing);
        };
        if let Some((master, protector)) = self.open_by_clear_key() {
            return self.open_view(device, Some(self.open_volume_key(&master)?), OpenedBy::Protector(protector));
        }
        let mut exhausted = false;
        // A bare key proves nothing until the plain view is read with it; another one may fit.
        let mut does_not_fit = None;
        for offered in &offer.secrets {
            if let Secret::VolumeKey(key) = offered.secret {
                let Some(bytes) = key.bytes_for(cipher) else { continue };
                match self.open_view(device, SectorCipher::new(cipher, bytes), OpenedBy::VolumeKey) {
                    Err(error) if error.kind() == Kind::Refused => does_not_fit = Some(error),
                    outcome => return outcome,
                }
            }
            for sealed in self.content.master_keys.iter().filter(|sealed| offered.is_for(&sealed.protector.id)) {
                match open_master_key(offered.secret, sealed) {
                    Attempt::Opened(master) => {
                        let by = OpenedBy::Protector(sealed.protector.clone());
                        return self.open_view(device, Some(self.open_volume_key(&master)?), by);
                    }
                    Attempt::Exhausted => exhausted = true,
                    Attempt::Failed => {}
                }
            }
        }
        let only_bare = offer.secrets.iter().all(|offered| matches!(offered.secret, Secret::VolumeKey(_)));
        Err(does_not_fit.filter(|_| only_bare).unwrap_or_else(|| self.locked(offer, exhausted)))
    }

    /// The plain view with this cipher, whose start is looked at.
    fn open_view<D: VolumeRead + ?Sized>(
        &self,
        device: &D,
        cipher: Option<SectorCipher>,
        by: OpenedBy,
    ) -> Result<(Unlocked, OpenedBy)> {
        let mut unlocked = Unlocked::new(self.clone(), cipher, device)?;
        let doubt = self.check_start(device, &unlocked, by == OpenedBy::VolumeKey)?;
        unlocked.set_doubt(doubt);
        Ok((unlocked, by))
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

    /// Checks that a file system begins the plain view. Returns why it must not be written: it ends beyond the partition or
    /// beyond what is encrypted, or a bare volume key, which proves nothing itself, does not show the master file table
    /// either.
    fn check_start<D: VolumeRead + ?Sized>(
        &self,
        device: &D,
        unlocked: &Unlocked,
        bare_key: bool,
    ) -> Result<Option<Doubt>> {
        let mut sector = [0; HEADER_SIZE];
        unlocked.read(device, VolumeOffset(0), &mut sector)?;
        if self.variant == Variant::ToGo && has_signature(&sector) {
            return Ok(None);
        }
        let Ok(geometry) = Geometry::parse(&sector) else {
            let why = if bare_key { "the volume key does not fit: the" } else { "its" };
            let mut text = format!("cannot read the volume: {why} plain view does not begin with an NTFS boot sector");
            if self.encrypted_size < self.volume_size && self.state == State::Encrypted {
                let (encrypted, all) = (self.encrypted_size, self.volume_size);
                text += &format!(" (its metadata say that it is encrypted up to {encrypted} of {all} bytes)");
            }
            return Err(refuse(text, "only NTFS volumes are opened; compare the key with the volume's GUID"));
        };
        let sector_size = u64::from(geometry.sector_size);
        let length = geometry.total_sectors.saturating_mul(sector_size);
        if length > unlocked.len() {
            return Ok(Some(Doubt::CutOff));
        }
        // With the copy of the boot sector that follows the file system.
        let end = length.saturating_add(sector_size).min(unlocked.len());
        if self.content.layout.encrypted_end < end {
            return Ok(Some(Doubt::PartlyEncrypted { encrypted: self.encrypted_size, all: self.volume_size }));
        }
        let proven = !bare_key || has_first_record(device, unlocked, &geometry)?;
        Ok((!proven).then_some(Doubt::KeyNotProven))
    }
}

/// Whether the plain view holds the record of `$MFT` where the boot sector says, and every sector of it arrived.
fn has_first_record<D: VolumeRead + ?Sized>(device: &D, unlocked: &Unlocked, geometry: &Geometry) -> Result<bool> {
    let (offset, length) = (geometry.bytes_in(geometry.mft.0), u64::from(geometry.record_size));
    if offset.checked_add(length).is_none_or(|end| end > unlocked.len()) {
        return Ok(false);
    }
    let mut block = vec![0; geometry.record_size as usize];
    unlocked.read(device, VolumeOffset(offset), &mut block)?;
    Ok(fixup::unseal(&mut block, fixup::FILE).is_ok() && record::header::NUMBER.get(&block) == 0)
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

#[cfg(test)]
mod tests {
    use super::super::sample::{LENGTH, Sample};
    use super::*;

    #[test]
    fn a_volume_that_is_encrypted_in_part_is_only_read() {
        let refusal = |encrypted: u64| {
            let volume = Sample { encrypted, ..Sample::default() }.volume();
            let (unlocked, _) = Metadata::read(&volume).unwrap().unlock(&volume, &[]).unwrap_or_else(|e| panic!("{e}"));
            unlocked.write_refusal()
        };
        for encrypted in [LENGTH, LENGTH + 4096, 1 << 62] {
            assert!(refusal(encrypted).is_none(), "{encrypted}");
        }
        for encrypted in [0, 4096, LENGTH / 2, LENGTH - 512] {
            let error = refusal(encrypted).unwrap();
            assert_eq!(error.kind(), crate::Kind::Refused);
            let words = format!("encrypted up to {encrypted} of {LENGTH} bytes");
            assert!(error.to_string().contains(&words), "{error}");
        }
    }

    #[test]
    fn ciphertext_beyond_what_is_encrypted_is_named() {
        let mut volume = Sample { encrypted: 0, ..Sample::default() }.volume();
        let start = 512 << 10;
        volume.0[start..start + 512].copy_from_slice(&Sample::default().volume().0[start..start + 512]);
        let error = Metadata::read(&volume).unwrap().unlock(&volume, &[]).map(drop).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Refused);
        assert!(error.to_string().contains("encrypted up to 0 of 1048576 bytes"), "{error}");
    }

    #[test]
    fn every_volume_key_is_tried() {
        let volume = Sample { clear_key: None, ..Sample::default() }.volume();
        let metadata = Metadata::read(&volume).unwrap();
        let wrong = [Sample::volume_key(false), Sample::startup_key(3), Sample::volume_key(false)];
        let text = metadata.unlock(&volume, &wrong).map(drop).unwrap_err().to_string();
        assert!(text.contains("the given volume key or startup key does not open it"), "{text}");
        let text = metadata.unlock(&volume, &wrong[..1]).map(drop).unwrap_err().to_string();
        assert!(text.contains("the volume key does not fit"), "{text}");
        let [one, ..] = wrong;
        let (_, by) = metadata.unlock(&volume, &[one, Sample::volume_key(true)]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(by, OpenedBy::VolumeKey);
    }

    #[test]
    fn a_clear_key_that_does_not_open_is_named() {
        let volume = Sample { clear_key: Some(false), ..Sample::default() }.volume();
        let metadata = Metadata::read(&volume).unwrap();
        let text = metadata.unlock(&volume, &[]).map(drop).unwrap_err().to_string();
        assert!(text.contains("its clear key does not open it, and no key was given"), "{text}");
    }
}
