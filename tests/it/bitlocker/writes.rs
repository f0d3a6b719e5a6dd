//! Writing the plain view: any range, against a model; what belongs to BitLocker stays as it was.

use winject::internals::error::{Error, Layer, Result};
use winject::internals::io::{MemoryVolume, VolumeRead, VolumeWrite};
use winject::internals::random::Random;
use winject::internals::units::VolumeOffset;

use super::{CLEAR_KEY_ONLY, open, volume_bytes};
use crate::support;
use winject::internals::bitlocker::Secret;

/// Bytes of a metadata area, and of BitLocker's start of the volume.
const AREA: u64 = 65536;
const HEAD: u64 = 8192;

/// The metadata areas, from the header.
fn areas(bytes: &[u8]) -> Vec<u64> {
    (0..3).map(|n| u64::from_le_bytes(bytes[176 + 8 * n..184 + 8 * n].try_into().unwrap())).collect()
}

/// The relocated start, from the first copy of the metadata.
fn relocated(bytes: &[u8]) -> u64 {
    let at = areas(bytes)[0] as usize + 56;
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Keeps a list of what was written.
struct Recorded {
    volume: MemoryVolume,
    writes: Vec<(u64, u64)>,
}

impl VolumeRead for Recorded {
    fn len(&self) -> u64 {
        self.volume.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.volume.read_at(offset, buf)
    }
}

impl VolumeWrite for Recorded {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        self.writes.push((offset.0, offset.0 + data.len() as u64));
        self.volume.write_at(offset, data)
    }
}

/// Where a random range begins: near a boundary of the map, or anywhere.
fn random_place(random: &mut Random, edges: &[u64], length: u64) -> u64 {
    let place = match random.below(3) {
        0 => random.below(length),
        _ => (edges[random.index(edges.len())] + random.below(2 * HEAD)).saturating_sub(HEAD),
    };
    place.min(length - 1)
}

fn writes_of_any_range_are_read_back_and_stay_in_their_sectors() {
    let volumes = [
        (CLEAR_KEY_ONLY, None, 512),
        ("c-aes-xts-128-4k.img.xz", Some("486552-140030-675719-163900-264671-413787-580239-152614"), 4096),
        ("c-aes-cbc-elephant-128.img.xz", Some("529573-278784-259347-197835-171457-264044-610280-313269"), 512),
    ];
    let mut random = Random::new(18);
    for (name, password, sector) in volumes {
        let Some(bytes) = volume_bytes(name) else { return };
        let secrets: Vec<Secret> = password.into_iter().map(|text| Secret::recovery_password(text).unwrap()).collect();
        let original = bytes.clone();
        let mut device = Recorded { volume: MemoryVolume(bytes), writes: Vec::new() };
        let unlocked = open(&device, &secrets);
        let mut model = vec![0; unlocked.len() as usize];
        unlocked.read(&device, VolumeOffset(0), &mut model).unwrap();
        let moved = relocated(&original);
        let mut reserved: Vec<(u64, u64)> = areas(&original).into_iter().map(|start| (start, start + AREA)).collect();
        reserved.push((moved, moved + HEAD));
        let mut edges: Vec<u64> = reserved.iter().flat_map(|(start, end)| [*start, *end]).collect();
        edges.extend([0, HEAD, unlocked.len()]);
        let (mut done, mut refused) = (0, 0);
        for _ in 0..support::rounds(400, 600) {
            let start = random_place(&mut random, &edges, unlocked.len());
            let length_max = [17, 600, 20_000, 3 << 20][random.index(4)];
            let length = random.below(length_max).min(unlocked.len() - start);
            let mut data = random.bytes(length as usize);
            if random.below(4) == 0 {
                data.fill(0);
            }
            device.writes.clear();
            let result = unlocked.write(&mut device, VolumeOffset(start), &data);
            let end = start + length;
            if length > 0 && reserved.iter().any(|(from, to)| start < *to && *from < end) {
                assert!(result.is_err() && device.writes.is_empty(), "{name}: {start}, {length}");
                refused += 1;
                continue;
            }
            result.unwrap_or_else(|e| panic!("{name}: {start}, {length}: {e}"));
            model[start as usize..end as usize].copy_from_slice(&data);
            // the sectors around the range, at their place
            for (from, to) in &device.writes {
                let (from, to) =
                    if (moved..moved + HEAD).contains(from) { (from - moved, to - moved) } else { (*from, *to) };
                assert!(from >= start / sector * sector && to <= end.next_multiple_of(sector), "{name}");
                assert!(from % sector == 0 && to % sector == 0);
            }
            let around = start.saturating_sub(random.below(5000))..(end + random.below(5000)).min(unlocked.len());
            let mut seen = vec![0; (around.end - around.start) as usize];
            unlocked.read(&device, VolumeOffset(around.start), &mut seen).unwrap();
            assert!(seen == model[around.start as usize..around.end as usize], "{name}: {start}, {length}");
            done += 1;
        }
        assert!(done > 50 && refused > 50, "{name}: {done} done, {refused} refused");
        let mut seen = vec![0; model.len()];
        unlocked.read(&device, VolumeOffset(0), &mut seen).unwrap();
        assert!(seen == model, "{name}");
        unlocked.check_untouched(&device).unwrap();
        let now = &device.volume.0;
        for start in areas(&original) {
            assert!(now[start as usize..(start + AREA) as usize] == original[start as usize..(start + AREA) as usize]);
        }
        assert!(now[..HEAD as usize] == original[..HEAD as usize]);
    }
}

fn a_change_of_the_metadata_or_of_the_start_is_seen() {
    let Some(bytes) = volume_bytes(CLEAR_KEY_ONLY) else { return };
    let mut device = MemoryVolume(bytes);
    let unlocked = open(&device, &[]);
    let mut places: Vec<u64> = areas(&device.0).into_iter().flat_map(|start| [start, start + AREA - 1]).collect();
    places.extend([0, 511, HEAD - 1]);
    for place in places {
        device.0[place as usize] ^= 1;
        assert!(unlocked.check_untouched(&device).is_err(), "{place}");
        device.0[place as usize] ^= 1;
    }
    unlocked.check_untouched(&device).unwrap();
}

fn ranges_beyond_the_end_are_refused() {
    let Some(bytes) = volume_bytes(CLEAR_KEY_ONLY) else { return };
    let mut device = Recorded { volume: MemoryVolume(bytes), writes: Vec::new() };
    let unlocked = open(&device, &[]);
    for (offset, length) in [(unlocked.len(), 1), (unlocked.len() - 1, 2), (u64::MAX, 1), (u64::MAX - 4, 8)] {
        let mut data = vec![1; length];
        assert!(unlocked.write(&mut device, VolumeOffset(offset), &data).is_err());
        assert!(unlocked.read(&device, VolumeOffset(offset), &mut data).is_err());
    }
    assert!(device.writes.is_empty());
    unlocked.read(&device, VolumeOffset(unlocked.len()), &mut []).unwrap();
}

/// Fails at the `n`th access.
struct Failing {
    volume: MemoryVolume,
    left: std::cell::Cell<u32>,
}

impl Failing {
    fn count(&self) -> Result<()> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 { Err(Error::new(winject::Kind::Io, Layer::Host, "the test's failure")) } else { Ok(()) }
    }
}

impl VolumeRead for Failing {
    fn len(&self) -> u64 {
        self.volume.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.count()?;
        self.volume.read_at(offset, buf)
    }
}

impl VolumeWrite for Failing {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        self.count()?;
        self.volume.write_at(offset, data)
    }
}

fn a_failure_of_the_device_is_handed_on() {
    let Some(bytes) = volume_bytes(CLEAR_KEY_ONLY) else { return };
    let mut device = Failing { volume: MemoryVolume(bytes), left: u32::MAX.into() };
    let unlocked = open(&device, &[]);
    let mut succeeded = false;
    for left in 0..8 {
        device.left.set(left);
        // into two areas, with incomplete sectors at both ends
        let result = unlocked.write(&mut device, VolumeOffset(100), &[7; HEAD as usize + 5]);
        assert!(result.is_ok() || result.is_err_and(|e| e.to_string().contains("the test's failure")));
        device.left.set(left);
        succeeded |= unlocked.read(&device, VolumeOffset(100), &mut [7; HEAD as usize + 5]).is_ok();
    }
    assert!(succeeded);
}

tests![
    writes_of_any_range_are_read_back_and_stay_in_their_sectors,
    a_change_of_the_metadata_or_of_the_start_is_seen,
    ranges_beyond_the_end_are_refused,
    a_failure_of_the_device_is_handed_on,
];
