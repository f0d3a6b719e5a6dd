//! Damages the log of a volume at random, in memory. Used by the test and by `examples/ntfs_log.rs`.

use winject::internals::error::{Kind, Result};
use winject::internals::io::VolumeRead;
use winject::internals::ntfs::boot::Geometry;
use winject::internals::ntfs::check::{CheckOptions, check};
use winject::internals::ntfs::log::{Overlay, replay, summarize};
use winject::internals::ntfs::{attribute::AttributeType, fixup, record::Record};
use winject::internals::random::Random;
use winject::internals::units::VolumeOffset;

const PAGE: usize = 4096;

/// A volume with bytes replaced: first those of the damaged log, then those of a replay.
pub struct Patched<'a, D> {
    pub disk: &'a D,
    pub log: Vec<(u64, Vec<u8>)>,
    pub overlay: Overlay,
}

impl<D: VolumeRead> VolumeRead for Patched<'_, D> {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buf)?;
        let end = offset.0 + buf.len() as u64;
        for (at, data) in &self.log {
            let (from, to) = (offset.0.max(*at), end.min(at + data.len() as u64));
            if from < to {
                let part = &data[(from - at) as usize..(to - at) as usize];
                buf[(from - offset.0) as usize..(to - offset.0) as usize].copy_from_slice(part);
            }
        }
        self.overlay.patch(offset, buf);
        Ok(())
    }
}

/// What became of the damaged logs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The volume is as without the damage.
    pub equal: u64,
    /// The replay was refused.
    pub refused: u64,
    /// Another volume, in which the checker finds nothing: a changed time or content.
    pub different: u64,
    /// Another volume, which the checker refuses.
    pub unclean: u64,
}

/// Errors that the checker finds.
pub fn errors(device: &impl VolumeRead) -> u64 {
    check(device, &CheckOptions::default()).unwrap().errors
}

/// Damages the log `count` times, replays, and checks.
///
/// # Panics
/// When a replay fails in another way than by a refusal, or writes outside the log although it closes nothing.
pub fn damage(disk: &impl VolumeRead, count: u64, seed: u64) -> Outcome {
    let pages = log_pages(disk);
    let read = |at| {
        let mut page = vec![0; PAGE];
        disk.read_at(VolumeOffset(at), &mut page).unwrap();
        page
    };
    let used: Vec<u64> = pages.iter().copied().filter(|&at| read(at).starts_with(b"RCRD")).collect();
    // the newest quarter holds what the replay reads
    let mut newest = used.clone();
    newest.sort_by_key(|&at| u64::from_le_bytes(read(at)[0x20..0x28].try_into().unwrap()));
    let newest = newest.split_off(newest.len() * 3 / 4);
    let sound = replay(disk).unwrap().unwrap();
    let outside = |overlay: &Overlay| -> Vec<(u64, Vec<u8>)> {
        let blocks = overlay.writes().flat_map(|(at, data)| {
            data.chunks(512).enumerate().map(move |(n, block)| (at.0 + 512 * n as u64, block.to_vec()))
        });
        blocks.filter(|(at, _)| !pages.contains(&(at & !(PAGE as u64 - 1)))).collect()
    };
    let want = outside(&sound.overlay);
    assert_eq!(errors(&Patched { disk, log: Vec::new(), overlay: sound.overlay }), 0, "the volume is not clean");
    let mut outcome = Outcome::default();
    for number in 0..count {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut log: Vec<(u64, Vec<u8>)> = Vec::new();
        for _ in 0..1 + random.index(2) {
            let at = match random.index(8) {
                0 => pages[random.index(2)],
                1 => used[random.index(used.len())],
                _ => newest[random.index(newest.len())],
            };
            let mut bytes = read(at);
            match random.index(8) {
                0 => bytes[random.index(PAGE)] ^= 1 << random.index(8),
                1 => bytes = vec![[0, 0xFF][random.index(2)]; PAGE],
                2 => bytes = read(newest[random.index(newest.len())]),
                3 => bytes[512 * random.index(8)..].fill(0xFF),
                _ => change_inside(&mut bytes, &mut random),
            }
            log.push((at, bytes));
        }
        let damaged = Patched { disk, log: log.clone(), overlay: Overlay::default() };
        summarize(&damaged).unwrap_or_else(|e| panic!("damage {number} of seed {seed}: {e}"));
        match replay(&damaged) {
            Err(e) if e.kind() == Kind::Refused => outcome.refused += 1,
            Err(e) => panic!("damage {number} of seed {seed}: {e}"),
            Ok(replayed) => {
                let overlay = replayed.map(|replayed| replayed.overlay).unwrap_or_default();
                let is_equal = outside(&overlay) == want;
                match is_equal || errors(&Patched { disk, log, overlay }) == 0 {
                    true if is_equal => outcome.equal += 1,
                    true => outcome.different += 1,
                    false => outcome.unclean += 1,
                }
            }
        }
    }
    outcome
}

/// Offsets of the log's pages on the volume.
fn log_pages(disk: &impl VolumeRead) -> Vec<u64> {
    let mut boot = vec![0; 512];
    disk.read_at(VolumeOffset(0), &mut boot).unwrap();
    let geometry = Geometry::parse(&boot).unwrap();
    let mut raw = vec![0; geometry.record_size as usize];
    let offset = geometry.bytes_in(geometry.mft.0) + 2 * u64::from(geometry.record_size);
    disk.read_at(VolumeOffset(offset), &mut raw).unwrap();
    let record = Record::parse(raw).unwrap();
    let runs = record.find(AttributeType::DATA, "").unwrap().runlist(geometry.cluster_count).unwrap();
    let clusters = runs.real().map(|(lcn, count)| geometry.bytes_in(lcn.0)..geometry.bytes_in(lcn.0 + count));
    clusters.flat_map(|bytes| bytes.step_by(PAGE)).collect()
}

/// Changes bytes of a page, inside its fix-up.
fn change_inside(page: &mut [u8], random: &mut Random) {
    let magic = *page.first_chunk().unwrap();
    let sealed = fixup::unseal(page, magic).is_ok();
    for _ in 0..1 + random.index(3) {
        let at = if random.index(3) == 0 { random.index(0x100) } else { random.index(PAGE) };
        match random.index(4) {
            0 => page[at] = random.byte(),
            1 => page[at] ^= 1 << random.index(8),
            2 => page[at] = page[at].wrapping_add(1),
            _ => page[at] = [0, 0xFF, 0x7F, 0x80][random.index(4)],
        }
    }
    if sealed {
        // a header that was hit may have no place for the fix-up any more
        let _ = fixup::seal(page);
    }
}
