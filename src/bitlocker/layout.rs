//! Which bytes of the plain view lie where on the volume, and which are reserved.

use std::ops::Range;

use super::block::{AREA, AREA_VISTA, Block};
use super::entry::{damaged, role, value};
use super::header::Header;
use super::state::{State, Variant};
use crate::error::{Error, Result};
use crate::field::Field;

/// Bytes at the start of a volume that BitLocker has for its own boot code and header.
pub(super) const HEAD: u64 = 8192;
/// Longest relocated area that is accepted (BitLocker To Go has 5.3 MB).
const RELOCATED_MAX: u64 = 16 << 20;

/// Where a part of the plain view lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it belongs to BitLocker and reads as zeros.
    Reserved,
    /// At this volume offset, not encrypted.
    Plain(u64),
    /// At this volume offset, encrypted.
    Encrypted(u64),
}

/// The map from the plain view to the volume. Every boundary in it is a multiple of the sector.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Length of the view.
    pub length: u64,
    /// End of what is encrypted.
    pub encrypted_end: u64,
    /// The areas of the metadata, and the relocated start of the volume.
    pub reserved: Vec<Range<u64>>,
    /// Start of the volume that lies elsewhere: length and volume offset.
    relocated: Option<(u64, u64)>,
    /// Length of the start that is not encrypted (Vista).
    plain_head: u64,
    /// Whether an area lies beyond the end of the partition, as in an image that was cut off.
    pub cut_off: bool,
}

impl Layout {
    /// The map of a volume of `volume_size` bytes, all of whose places are checked.
    pub fn new(header: &Header, block: &Block, state: State, volume_size: u64) -> Result<Self> {
        let sector = u64::from(header.sector);
        let vista = header.variant == Variant::Vista;
        let encrypted_end = match state {
            State::Decrypted => 0,
            _ if vista => u64::MAX,
            _ => block.encrypted_size(),
        };
        let relocated = if vista { None } else { Some(relocated_area(block, sector)?) };
        let head = relocated.map_or(HEAD, |(length, _)| length);
        let area = if vista { (AREA_VISTA as u64).next_multiple_of(header.cluster.max(sector)) } else { AREA as u64 };
        let mut reserved = Vec::with_capacity(4);
        for (start, length) in block.offsets().map(|start| (start, area)).into_iter().chain(relocated.map(swap)) {
            let end = start.checked_add(length).ok_or_else(|| out_of_bounds("an area of the metadata", start))?;
            if start % sector != 0 || start < head {
                return Err(out_of_bounds("an area of the metadata", start));
            }
            reserved.push(start..end);
        }
        reserved.sort_by_key(|area| area.start);
        if reserved.windows(2).any(|pair| matches!(pair, [a, b] if a.end > b.start)) {
            return Err(damaged("cannot read the volume: areas of the metadata overlap").hint(DAMAGED_HINT));
        }
        let length = volume_size - volume_size % sector;
        let cut_off = reserved.iter().any(|area| area.end > length);
        // An image that was cut off is shorter than what was encrypted; else an area beyond the end belongs to no volume.
        let ends_inside = |area: &Range<u64>| area.end <= length.max(encrypted_end);
        if let Some(area) = reserved.iter().find(|area| !ends_inside(area)) {
            return Err(out_of_bounds("an area of the metadata", area.start));
        }
        if let Some((_, start)) = relocated.filter(|(size, start)| start.saturating_add(*size) > length) {
            return Err(out_of_bounds("the start of the volume", start));
        }
        if encrypted_end != u64::MAX && encrypted_end % sector != 0 {
            return Err(out_of_bounds("the end of the encrypted part", encrypted_end));
        }
        let plain_head = if vista { HEAD } else { 0 };
        Ok(Self { length, encrypted_end, reserved, relocated, plain_head, cut_off })
    }

    /// Where the byte at `offset` of the view lies, and for how many bytes from there on it goes on like that: at least one
    /// inside the view.
    pub fn locate(&self, offset: u64) -> (Place, u64) {
        let mut end = self.length;
        for area in &self.reserved {
            if area.contains(&offset) {
                return (Place::Reserved, area.end.min(end).saturating_sub(offset));
            }
            if area.start > offset {
                end = end.min(area.start);
            }
        }
        if offset < self.plain_head {
            return (Place::Plain(offset), end.min(self.plain_head) - offset);
        }
        let physical = match self.relocated {
            Some((length, start)) if offset < length => {
                end = end.min(length);
                start.saturating_add(offset)
            }
            _ => offset,
        };
        let length = end.saturating_sub(offset);
        match self.encrypted_end.checked_sub(physical) {
            Some(encrypted @ 1..) => (Place::Encrypted(physical), length.min(encrypted)),
            _ => (Place::Plain(physical), length),
        }
    }
}

fn swap((length, start): (u64, u64)) -> (u64, u64) {
    (start, length)
}

/// Length and volume offset of the relocated start of the volume, which the block and an entry of it name alike.
fn relocated_area(block: &Block, sector: u64) -> Result<(u64, u64)> {
    let length = u64::from(block.relocated_sectors()).saturating_mul(sector);
    let start = block.relocated_offset();
    // what is shorter would leave a part of BitLocker's own boot code to the file system
    if !(HEAD..=RELOCATED_MAX).contains(&length) {
        return Err(out_of_bounds("the start of the volume", start));
    }
    for entry in block.entries() {
        let entry = entry?;
        if entry.role == role::RELOCATED_HEADER && entry.value == value::PLACE {
            let named = (Field::<u64>::at(8).get(entry.data), Field::<u64>::at(0).get(entry.data));
            if named != (length, start) {
                return Err(damaged("cannot read the volume: its metadata name two places of the volume's start")
                    .expected_found(
                        format_args!("{length} bytes at {start:#x}"),
                        format_args!("{} bytes at {:#x}", named.0, named.1),
                    )
                    .hint(DAMAGED_HINT));
            }
        }
    }
    Ok((length, start))
}

/// What to do about metadata that make no sense.
pub(super) const DAMAGED_HINT: &str =
    "export the disk again; in the guest, `manage-bde -status` must show the volume as sound";

fn out_of_bounds(what: &str, offset: u64) -> Error {
    let text = format!("cannot read the volume: its metadata are out of bounds: {what} lies at {offset:#x}");
    damaged(text).hint(DAMAGED_HINT)
}
