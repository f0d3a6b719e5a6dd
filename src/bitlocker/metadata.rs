//! What a volume says of itself without any secret.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::block::{AREA, AREA_VISTA, Block, Fault};
use super::cipher::Cipher;
use super::entry::{damaged, role, value};
use super::header::{HEADER_SIZE, Header};
use super::key::Sealed;
use super::layout::{DAMAGED_HINT, Layout};
use super::protector::{Protector, SealedMasterKey};
use super::state::{State, Variant};
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Protectors of one volume that are accepted.
const PROTECTORS_MAX: usize = 64;

/// What the header and the metadata of a volume say; nothing of it is secret.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Metadata {
    /// GUID of the volume.
    pub volume: Guid,
    /// Which form of BitLocker.
    pub variant: Variant,
    /// How far the encryption is.
    pub state: State,
    /// The cipher; `None` on a decrypted volume, or when its number is not known.
    pub cipher: Option<Cipher>,
    /// Bytes per sector, the unit of encryption.
    pub sector_size: u32,
    /// Bytes from the start of the volume that are encrypted.
    pub encrypted_size: u64,
    /// Length of the partition in bytes.
    pub volume_size: u64,
    /// What the volume calls itself: computer, label and date of encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What opens the volume, in the order of the metadata.
    pub protectors: Vec<Protector>,
    /// What is wrong with copies of the metadata, in words.
    pub findings: Vec<String>,
    #[serde(skip)]
    pub(super) content: Arc<Content>,
}

/// What opening the volume needs of the metadata.
pub(super) struct Content {
    /// The sound copies, which differ at most in what follows the block. The first one counts.
    pub block: Block,
    pub same: Vec<Block>,
    /// Whether another sound copy has another block, or the header names other places than the block.
    pub ambiguous: bool,
    pub layout: Layout,
    pub master_keys: Vec<SealedMasterKey>,
    pub volume_key: Option<Sealed>,
}

/// Keys may lie in it.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content")
    }
}

impl Metadata {
    /// Reads header and metadata, of which at least one copy must be sound.
    ///
    /// # Errors
    /// Not BitLocker, a version or form that is not known, metadata that are damaged or out of bounds; or the volume cannot
    /// be read.
    pub fn read<D: VolumeRead + ?Sized>(device: &D) -> Result<Self> {
        Self::read_from(device).map_err(|error| error.inside(device.image_offset()))
    }

    fn read_from<D: VolumeRead + ?Sized>(device: &D) -> Result<Self> {
        let mut sector = [0; HEADER_SIZE];
        if device.len() < sector.len() as u64 {
            return Err(Error::unsupported(Layer::BitLocker, "too small for a BitLocker volume"));
        }
        device.read_at(VolumeOffset(0), &mut sector)?;
        let header = Header::parse(&sector)?;
        let mut findings = Vec::new();
        let copies = read_copies(device, &header, &mut findings)?;
        let mut sound = copies.sound.into_iter();
        let block = sound.next().ok_or_else(|| no_copy(&findings))?;
        let (same, other): (Vec<_>, Vec<_>) = sound.partition(|copy| copy.bytes == block.bytes);
        let differ = !other.is_empty() || copies.other_version;
        if differ {
            findings.push("the sound copies of the metadata differ".to_owned());
        }
        let moved = header.variant != Variant::Vista && header.offsets != block.offsets();
        if moved {
            findings.push("the header and the metadata name different places of the metadata".to_owned());
        }
        let (current, next) = block.states();
        let state = State::of(current, next, header.encrypt_on_write);
        let layout = Layout::new(&header, &block, state, device.len())?;
        if layout.cut_off {
            findings.push("the partition ends before the volume does: the image is cut off".to_owned());
        }
        let (description, master_keys, volume_key) = read_entries(&block)?;
        let encrypted_size =
            if header.variant == Variant::Vista { device.len() } else { layout.encrypted_end.min(device.len()) };
        Ok(Self {
            volume: block.volume(),
            variant: header.variant,
            state,
            cipher: Cipher::of(block.method()),
            sector_size: header.sector,
            encrypted_size,
            volume_size: device.len(),
            description,
            protectors: master_keys.iter().map(|key| key.protector.clone()).collect(),
            findings,
            content: Arc::new(Content { ambiguous: moved || differ, block, same, layout, master_keys, volume_key }),
        })
    }

    /// The number of the cipher, as the metadata have it.
    pub(super) fn method(&self) -> u16 {
        self.content.block.method()
    }
}

/// The copies of the metadata.
struct Copies {
    /// Those that are sound and of the version that is read.
    sound: Vec<Block>,
    /// Whether another one of another version has the right checksum.
    other_version: bool,
}

fn read_copies<D: VolumeRead + ?Sized>(device: &D, header: &Header, findings: &mut Vec<String>) -> Result<Copies> {
    let (length, version) = if header.variant == Variant::Vista { (AREA_VISTA, 1) } else { (AREA, 2) };
    let mut sound: Vec<Block> = Vec::new();
    let mut offsets = header.offsets.clone();
    let mut area = vec![0; length];
    let mut unknown = None;
    let mut other_version = false;
    for n in 0..3 {
        // The header of Vista names the first copy only, which names the others.
        if n == 1 && header.variant == Variant::Vista {
            offsets = sound.first().map(|block| block.offsets().to_vec()).unwrap_or_default();
        }
        let Some(&offset) = offsets.get(n) else { break };
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > device.len()) || !offset.is_multiple_of(u64::from(header.sector)) {
            findings.push(format!("copy {} of the metadata lies out of bounds", n + 1));
            continue;
        }
        device.read_at(VolumeOffset(offset), &mut area)?;
        match Block::parse(&area, offset, version) {
            Ok(block) => sound.push(block),
            Err(Fault::Version { version, is_sound }) => {
                unknown = Some(version);
                other_version |= is_sound;
                findings.push(format!("copy {} of the metadata has the unknown version {version}", n + 1));
            }
            Err(Fault::Damaged(text)) => findings.push(format!("copy {} of the metadata {text}", n + 1)),
        }
    }
    match unknown {
        Some(version) if sound.is_empty() => {
            let text =
                format!("cannot read the volume: version {version} of BitLocker's metadata is not supported here");
            Err(Error::unsupported(Layer::BitLocker, text)
                .hint("turn BitLocker off in the guest (manage-bde -off), wait for decryption, and export again"))
        }
        _ => Ok(Copies { sound, other_version }),
    }
}

fn no_copy(findings: &[String]) -> Error {
    let text = format!("cannot read the volume: BitLocker's metadata are damaged: {}", findings.join("; "));
    damaged(text).hint(DAMAGED_HINT)
}

/// Description, master keys and volume key of a block.
fn read_entries(block: &Block) -> Result<(Option<String>, Vec<SealedMasterKey>, Option<Sealed>)> {
    let mut description = None;
    let mut master_keys = Vec::new();
    let mut volume_key = None;
    for entry in block.entries() {
        let entry = entry?;
        match (entry.role, entry.value) {
            (role::DESCRIPTION, value::TEXT) => drop(description.get_or_insert(entry.text())),
            (_, value::MASTER_KEY) if master_keys.len() == PROTECTORS_MAX => {
                return Err(damaged(format!("the volume has more than {PROTECTORS_MAX} protectors")));
            }
            (_, value::MASTER_KEY) => master_keys.push(SealedMasterKey::parse(&entry)?),
            (role::VOLUME_KEY, value::SEALED) if volume_key.is_none() => volume_key = Sealed::parse(entry.data),
            _ => {}
        }
    }
    Ok((description, master_keys, volume_key))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{COPIES, Sample};
    use super::*;

    #[test]
    fn a_sound_copy_of_another_version_is_a_difference() {
        for version in [1, 3] {
            let mut volume = Sample::default().volume();
            let other = Sample { version, ..Sample::default() }.volume();
            let place = COPIES[0] as usize;
            volume.0[place..place + AREA].copy_from_slice(&other.0[place..place + AREA]);
            if version == 1 {
                // It counts its size in bytes.
                let size = 16 * u16::from_le_bytes([volume.0[place + 8], volume.0[place + 9]]);
                volume.0[place + 8..place + 10].copy_from_slice(&size.to_le_bytes());
                let size = usize::from(size);
                let crc = crc32fast::hash(&volume.0[place..place + size]);
                volume.0[place + size + 4..place + size + 8].copy_from_slice(&crc.to_le_bytes());
            }
            let metadata = Metadata::read(&volume).unwrap();
            let error = metadata.write_refusal().unwrap();
            assert!(error.to_string().contains("copies of BitLocker's metadata differ"), "{error}");
            assert!(metadata.unlock(&volume, &[]).is_ok());
            // A damaged copy does not count as a difference.
            volume.0[place + 100] ^= 1;
            assert!(Metadata::read(&volume).unwrap().write_refusal().is_none());
        }
    }

    #[test]
    fn two_lengths_of_the_start_are_told() {
        let volume = Sample { start: (16384, 512 << 10), ..Sample::default() }.volume();
        let text = Metadata::read(&volume).map(drop).unwrap_err().to_string();
        assert!(text.contains("8192 bytes at 0x80000") && text.contains("16384 bytes at 0x80000"), "{text}");
    }
}
