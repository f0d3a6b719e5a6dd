//! Allocating and freeing the blocks of one index: `$INDEX_ALLOCATION` and its `$BITMAP`.

use crate::error::Result;
use crate::io::VolumeWrite;
use crate::ntfs::attributes::Attributes;
use crate::ntfs::core::Core;
use crate::ntfs::format::attribute::{AttributeType, StreamSizes};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::Vcn;
use crate::ntfs::pager::{BLOCKS_MAX, Index};
use crate::ntfs::stream::Stream;

/// Blocks by which the allocation of an index grows at least, unless the index is small …
const GROWTH_BLOCKS: u64 = 8;
/// … and when it is large: this part of it, up to a limit, so that its run list stays short.
const GROWTH_PART: u64 = 64;
/// Blocks by which it grows at most.
const GROWTH_BLOCKS_MAX: u64 = 1024;

/// Allocates a free block of the index in the file's `attributes`: marks it, and grows allocation and bitmap as needed.
/// The caller stores the attributes.
pub(super) fn allocate_block<D: VolumeWrite>(
    core: &mut Core<D>,
    attributes: &mut Attributes,
    index: &Index,
) -> Result<Vcn> {
    let name = NtfsName::from(index.name);
    let clusters = core.pager.geometry.cluster_count;
    let size = u64::from(index.block_size);
    let (mut runs, mut sizes) = match attributes.stream(AttributeType::INDEX_ALLOCATION, &name, clusters)? {
        Some(Stream::Runs { runs, sizes }) => (runs, sizes),
        _ => (Runlist::default(), StreamSizes::default()),
    };
    let bitmap = attributes.stream(AttributeType::BITMAP, &name, clusters)?.unwrap_or(Stream::Resident(vec![0; 8]));
    bitmap.check(&core.pager.geometry)?;
    let mut bits = core.pager.read_small(&bitmap, BLOCKS_MAX / 8, "index bitmap")?;
    let blocks = sizes.data / size;
    let number = first_clear(&bits).min(blocks);
    if number == blocks {
        let wanted = core.pager.geometry.clusters_for((number + 1) * size);
        if wanted > runs.end() {
            // a small index grows block by block
            let more = (blocks / GROWTH_PART).clamp(GROWTH_BLOCKS, GROWTH_BLOCKS_MAX).min(blocks.max(1));
            let ahead = core.pager.geometry.clusters_for((number + more) * size);
            let mut longer = runs.clone();
            match try_extend(core, &mut longer, ahead)? {
                true => runs = longer,
                false => core.clusters.extend_runs(&mut core.pager, &mut runs, wanted)?,
            }
        }
        sizes.data = (number + 1) * size;
        sizes.initialized = sizes.data;
        sizes.allocated = core.pager.geometry.bytes_in(runs.end());
        let stream = Stream::Runs { runs, sizes };
        attributes.set_stream(AttributeType::INDEX_ALLOCATION, &name, &stream, core.pager.geometry.cluster_size);
    }
    if number / 8 >= bits.len() as u64 {
        bits.resize(bits.len() + 8, 0);
    }
    bits[(number / 8) as usize] |= 1 << (number % 8);
    set_bitmap(core, attributes, &name, &bitmap, bits, number / 8)?;
    Ok(index.vcn(number))
}

/// Extends a run list to `wanted` clusters if all of them are free; `false` (and nothing allocated) otherwise.
fn try_extend<D: VolumeWrite>(core: &mut Core<D>, runs: &mut Runlist, wanted: u64) -> Result<bool> {
    if core.clusters.has_free(&core.pager, wanted.saturating_sub(runs.end()))? {
        core.clusters.extend_runs(&mut core.pager, runs, wanted)?;
        return Ok(true);
    }
    Ok(false)
}

/// Changes the bitmap of an index: `bits` differs from what is there in the byte `changed`, and may be longer.
fn set_bitmap<D: VolumeWrite>(
    core: &mut Core<D>,
    attributes: &mut Attributes,
    name: &NtfsName,
    old: &Stream,
    bits: Vec<u8>,
    changed: u64,
) -> Result<()> {
    let stream = match old {
        Stream::Resident(_) => Stream::Resident(bits),
        Stream::Runs { runs, sizes } if bits.len() as u64 == sizes.data && sizes.initialized == sizes.data => {
            let byte = bits.get(changed as usize..=changed as usize).unwrap_or_default();
            return core.pager.write_metadata(runs, changed, byte);
        }
        Stream::Runs { runs, sizes } => {
            let (mut runs, mut sizes) = (runs.clone(), *sizes);
            let clusters = core.pager.geometry.clusters_for(bits.len() as u64);
            core.clusters.extend_runs(&mut core.pager, &mut runs, clusters)?;
            let mut padded = bits;
            sizes.data = padded.len() as u64;
            sizes.initialized = sizes.data;
            sizes.allocated = core.pager.geometry.bytes_in(runs.end());
            padded.resize(padded.len().next_multiple_of(512), 0);
            core.pager.write_metadata(&runs, 0, &padded)?;
            Stream::Runs { runs, sizes }
        }
    };
    attributes.set_stream(AttributeType::BITMAP, name, &stream, core.pager.geometry.cluster_size);
    Ok(())
}

/// Marks a block of the index as free in the file's `attributes`. The caller stores the attributes.
pub(super) fn free_block<D: VolumeWrite>(
    core: &mut Core<D>,
    attributes: &mut Attributes,
    index: &Index,
    vcn: Vcn,
) -> Result<()> {
    let number = index.number(vcn)?;
    let name = NtfsName::from(index.name);
    let bitmap = attributes.stream(AttributeType::BITMAP, &name, core.pager.geometry.cluster_count)?;
    let bitmap = bitmap.ok_or_else(|| damaged("index without a bitmap"))?;
    bitmap.check(&core.pager.geometry)?;
    let mut bits = core.pager.read_small(&bitmap, BLOCKS_MAX / 8, "index bitmap")?;
    if !bit(&bits, number) {
        let error = damaged(format!("the index block with VCN {vcn} is in use but marked as free"));
        return core.pager.in_record(index.file.record, Err(error));
    }
    bits[(number / 8) as usize] &= !(1 << (number % 8));
    set_bitmap(core, attributes, &name, &bitmap, bits, number / 8)
}

/// The first clear bit of a bitmap; beyond its end they are clear.
fn first_clear(bits: &[u8]) -> u64 {
    let full = 8 * bits.as_chunks::<8>().0.iter().take_while(|word| **word == [0xFF; 8]).count();
    let partly = bits.iter().enumerate().skip(full).find(|&(_, &b)| b != 0xFF);
    partly.map_or(bits.len() as u64 * 8, |(at, b)| at as u64 * 8 + u64::from(b.trailing_ones()))
}

/// Bit `n` of a bitmap; beyond its end they are clear.
fn bit(bits: &[u8], n: u64) -> bool {
    usize::try_from(n / 8).ok().and_then(|at| bits.get(at)).is_some_and(|b| b >> (n % 8) & 1 == 1)
}
