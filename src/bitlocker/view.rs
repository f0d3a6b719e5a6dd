//! The opened volume: its plain view, read and written.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::block::AREA;
use super::cipher::{Sector, SectorCipher};
use super::layout::{HEAD, Layout, Place};
use super::metadata::Metadata;
use super::refusal::Doubt;
use super::state::Variant;
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::units::VolumeOffset;

/// Most bytes that are encrypted at once; reads decrypt in the caller's memory.
const CHUNK: u64 = 1 << 20;
/// Fields of the boot sector that Vista replaces, and their ends.
const OEM_ID: u64 = 3;
const MIRROR_CLUSTER: u64 = 56;

/// An opened volume: its keys, and the layout of the volume. Reads and writes the plain view of any device that holds the volume (the
/// image, or a stage over it). Zeroised when dropped.
pub struct Unlocked {
    metadata: Metadata,
    cipher: Option<SectorCipher>,
    /// Why the plain view is not to be written, as far as the metadata do not say it.
    doubt: Option<Doubt>,
    /// Hash of the first 8 KiB and of the metadata areas, when the volume was opened.
    untouched: [u8; 32],
}

/// Nothing of a key is ever printed.
impl fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unlocked")
    }
}

impl Unlocked {
    /// An opened volume, whose key is `cipher`'s.
    pub(super) fn new<D: VolumeRead + ?Sized>(
        metadata: Metadata,
        cipher: Option<SectorCipher>,
        device: &D,
    ) -> Result<Self> {
        let untouched = metadata.fingerprint(device)?;
        Ok(Self { metadata, cipher, doubt: None, untouched })
    }

    /// What the volume says of itself.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Length of the plain view in bytes: that of the partition, in whole sectors.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.layout().length
    }

    /// Whether the view has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why the volume must not be written; `None` when it may.
    #[must_use]
    pub fn write_refusal(&self) -> Option<Error> {
        self.metadata.write_refusal().or_else(|| self.doubt.map(Doubt::refusal))
    }

    /// Notes why the plain view is not to be written.
    pub(super) fn set_doubt(&mut self, doubt: Option<Doubt>) {
        self.doubt = doubt;
    }

    fn layout(&self) -> &Layout {
        &self.metadata.content.layout
    }

    fn sector(&self) -> Sector {
        if self.metadata.sector_size == 4096 { Sector::Bytes4096 } else { Sector::Bytes512 }
    }

    /// Fills `buf` from the plain view at `offset`, at any alignment. Reserved areas read as zeros.
    ///
    /// # Errors
    /// When the range is not inside the volume, or the device cannot be read.
    pub fn read<D: VolumeRead + ?Sized>(&self, device: &D, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.check_range(offset, buf.len())?;
        let mut position = offset.0;
        let mut rest = &mut *buf;
        while !rest.is_empty() {
            let (place, length) = self.layout().locate(position);
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len()).max(1);
            let (part, after) = rest.split_at_mut(length);
            match place {
                Place::Reserved => part.fill(0),
                Place::Plain(physical) => device.read_at(VolumeOffset(physical), part)?,
                Place::Encrypted(physical) => self.read_encrypted(device, physical, part)?,
            }
            position = position.saturating_add(length as u64);
            rest = after;
        }
        self.patch_boot_sector(offset.0, buf);
        Ok(())
    }

    /// Reads and decrypts; `physical` is a volume offset, of which the whole sectors around `buf` are encrypted.
    fn read_encrypted<D: VolumeRead + ?Sized>(&self, device: &D, physical: u64, buf: &mut [u8]) -> Result<()> {
        let size = self.sector().bytes();
        let mut position = physical;
        let mut rest = buf;
        while !rest.is_empty() {
            let skip = usize::try_from(position % size as u64).unwrap_or(0);
            if skip == 0 && rest.len() >= size {
                let length = (rest.len() - rest.len() % size).min(CHUNK as usize);
                let (whole, after) = rest.split_at_mut(length);
                device.read_at(VolumeOffset(position), whole)?;
                self.decrypt(position, whole)?;
                position = position.saturating_add(length as u64);
                rest = after;
                continue;
            }
            let mut sector = Zeroizing::new(vec![0; size]);
            let start = position - skip as u64;
            device.read_at(VolumeOffset(start), &mut sector)?;
            self.decrypt(start, &mut sector)?;
            let length = (size - skip).min(rest.len());
            let (part, after) = rest.split_at_mut(length);
            part.copy_from_slice(sector.get(skip..skip + length).unwrap_or_default());
            position = position.saturating_add(length as u64);
            rest = after;
        }
        Ok(())
    }

    /// Encrypts `data` and stores it at `offset` of the plain view, at any alignment: whole sectors are read, changed and
    /// written.
    ///
    /// # Errors
    /// When the volume must not be written ([`Unlocked::write_refusal`]), the range touches a reserved area or is not inside
    /// the volume, or the device fails. Nothing is written then, unless the device failed half-way.
    pub fn write<D: VolumeWrite + ?Sized>(&self, device: &mut D, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        if let Some(error) = self.write_refusal() {
            return Err(error);
        }
        self.check_range(offset, data.len())?;
        let end = offset.0.saturating_add(data.len() as u64);
        let mut pieces = Vec::new();
        let mut position = offset.0;
        while position < end {
            let (place, length) = self.layout().locate(position);
            let length = length.min(end - position).max(1);
            let Place::Encrypted(physical) = place else {
                let text = "a write to an area of the volume that belongs to BitLocker, or that is not encrypted";
                return Err(Error::bug(Layer::BitLocker, text).at(VolumeOffset(position)));
            };
            pieces.push((physical, length));
            position = position.saturating_add(length);
        }
        let mut rest = data;
        for (physical, length) in pieces {
            let (part, after) =
                rest.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or((rest, &[]));
            self.write_encrypted(device, physical, part)?;
            rest = after;
        }
        Ok(())
    }

    fn write_encrypted<D: VolumeWrite + ?Sized>(&self, device: &mut D, physical: u64, data: &[u8]) -> Result<()> {
        let size = self.sector().bytes() as u64;
        let mut position = physical;
        let mut rest = data;
        while !rest.is_empty() {
            let start = position - position % size;
            let skip = usize::try_from(position - start).unwrap_or(0);
            let wanted = (rest.len() + skip).next_multiple_of(size as usize).min(CHUNK as usize);
            let length = (wanted - skip).min(rest.len());
            let (part, after) = rest.split_at(length);
            let mut sectors = Zeroizing::new(vec![0; wanted]);
            // what is not replaced of the first and of the last sector
            let mut read = |at: usize| {
                let sector = sectors.get_mut(at..).unwrap_or_default();
                let sector = sector.get_mut(..size as usize).unwrap_or_default();
                let place = start.saturating_add(at as u64);
                device.read_at(VolumeOffset(place), sector)?;
                self.decrypt(place, sector)
            };
            let last = wanted - size as usize;
            let partial_end = skip + length < wanted;
            if skip > 0 || (partial_end && last == 0) {
                read(0)?;
            }
            if partial_end && last > 0 {
                read(last)?;
            }
            if let Some(target) = sectors.get_mut(skip..skip + length) {
                target.copy_from_slice(part);
            }
            self.encrypt(start, &mut sectors)?;
            device.write_at(VolumeOffset(start), &sectors)?;
            position = position.saturating_add(length as u64);
            rest = after;
        }
        Ok(())
    }

    /// Checks that the metadata areas and the physical first 8 KiB of `device` hold the bytes that they held when the volume
    /// was opened.
    ///
    /// # Errors
    /// When they differ, or the device cannot be read.
    pub fn check_untouched<D: VolumeRead + ?Sized>(&self, device: &D) -> Result<()> {
        if self.metadata.fingerprint(device)? == self.untouched {
            return Ok(());
        }
        Err(Error::bug(Layer::BitLocker, "the header or the metadata of a BitLocker volume were changed")
            .at(VolumeOffset(0)))
    }

    fn decrypt(&self, physical: u64, data: &mut [u8]) -> Result<()> {
        let cipher = self.cipher.as_ref().ok_or_else(without_key)?;
        cipher.decrypt(self.sector(), physical, data);
        Ok(())
    }

    fn encrypt(&self, physical: u64, data: &mut [u8]) -> Result<()> {
        let cipher = self.cipher.as_ref().ok_or_else(without_key)?;
        cipher.encrypt(self.sector(), physical, data);
        Ok(())
    }

    fn check_range(&self, offset: VolumeOffset, length: usize) -> Result<()> {
        let end = offset.0.checked_add(length as u64);
        if end.is_some_and(|end| end <= self.len()) {
            return Ok(());
        }
        Err(Error::damaged(Layer::BitLocker, "access beyond the end of the volume").at(offset))
    }

    /// Vista leaves the boot sector as it is but for two fields, which its metadata hold.
    fn patch_boot_sector(&self, offset: u64, buf: &mut [u8]) {
        if self.metadata.variant != Variant::Vista {
            return;
        }
        let cluster = self.metadata.content.block.relocated_offset().to_le_bytes();
        for (start, bytes) in [(OEM_ID, b"NTFS    "), (MIRROR_CLUSTER, &cluster)] {
            for (place, byte) in (start..).zip(bytes) {
                let index = place.checked_sub(offset).and_then(|index| usize::try_from(index).ok());
                if let Some(target) = index.and_then(|index| buf.get_mut(index)) {
                    *target = *byte;
                }
            }
        }
    }
}

fn without_key() -> Error {
    Error::bug(Layer::BitLocker, "an encrypted sector of a volume without a key")
}

impl Metadata {
    /// A hash of all that is never written: the first 8 KiB and the metadata areas, as far as they lie on the device.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub(crate) fn fingerprint<D: VolumeRead + ?Sized>(&self, device: &D) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let mut area = vec![0; AREA];
        let starts = self.content.block.offsets();
        for (start, length) in std::iter::once((0, HEAD)).chain(starts.map(|start| (start, AREA as u64))) {
            let length = length.min(device.len().saturating_sub(start));
            // an area beyond the end of an image that was cut off
            let Some(area) = area.get_mut(..usize::try_from(length).unwrap_or(0)).filter(|area| !area.is_empty())
            else {
                continue;
            };
            device.read_at(VolumeOffset(start), area)?;
            hash.update(&*area);
        }
        Ok(hash.finalize().into())
    }
}
