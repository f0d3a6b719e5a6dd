//! What is refused, by name: headers and metadata that were changed with their checksums put right.

use winject::internals::bitlocker::{Metadata, Secret};
use winject::internals::error::{Error, Kind};
use winject::internals::io::{MemoryVolume, VolumeRead};
use winject::internals::units::VolumeOffset;

use super::{CLEAR_KEY_ONLY, volume_bytes};

/// A small copy of the published volume with a clear key only: its length, and the parts that opening it reads.
#[derive(Clone)]
pub struct Sparse {
    length: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    pub fn new() -> Option<Self> {
        let bytes = volume_bytes(CLEAR_KEY_ONLY)?;
        let length = bytes.len() as u64;
        let used = |chunk: &[u8]| chunk.iter().any(|b| *b != 0);
        let chunks = bytes.chunks(4096).enumerate().filter(|(_, chunk)| used(chunk));
        Some(Self { length, parts: chunks.map(|(n, chunk)| (n as u64 * 4096, chunk.to_vec())).collect() })
    }

    fn part(&mut self, offset: u64) -> &mut Vec<u8> {
        let start = offset / 4096 * 4096;
        if !self.parts.iter().any(|(at, _)| *at == start) {
            self.parts.push((start, vec![0; 4096]));
        }
        &mut self.parts.iter_mut().find(|(at, _)| *at == start).unwrap().1
    }

    pub fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut buf = vec![0; length];
        self.read_at(VolumeOffset(offset), &mut buf).unwrap();
        buf
    }

    pub fn set(&mut self, offset: u64, bytes: &[u8]) {
        for (place, byte) in (offset..).zip(bytes) {
            let index = (place % 4096) as usize;
            self.part(place)[index] = *byte;
        }
    }

    /// Cuts the volume off.
    pub fn truncate(&mut self, length: u64) {
        self.length = length;
        self.parts.retain(|(start, part)| start + part.len() as u64 <= length);
    }

    /// Offsets of the copies of the metadata.
    pub fn copies(&self) -> [u64; 3] {
        [0, 1, 2].map(|n| u64::from_le_bytes(self.get(176 + 8 * n, 8).try_into().unwrap()))
    }

    /// Changes bytes of a copy and puts its checksum right.
    pub fn set_in_copy(&mut self, copy: u64, at: u64, bytes: &[u8]) {
        self.set(copy + at, bytes);
        self.seal(copy);
    }

    pub fn seal(&mut self, copy: u64) {
        let size = u64::from(u16::from_le_bytes(self.get(copy + 8, 2).try_into().unwrap())) * 16;
        if (64..65520).contains(&size) {
            let crc = crc32fast::hash(&self.get(copy, size as usize));
            self.set(copy + size + 4, &crc.to_le_bytes());
        }
    }

    /// Changes bytes of all copies.
    fn set_in_all(&mut self, at: u64, bytes: &[u8]) {
        for copy in self.copies() {
            self.set_in_copy(copy, at, bytes);
        }
    }
}

impl VolumeRead for Sparse {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> winject::Result<()> {
        if offset.0.checked_add(buf.len() as u64).is_none_or(|end| end > self.length) {
            return Err(Error::damaged(winject::Layer::Block, "beyond the end").at(offset));
        }
        buf.fill(0);
        for (start, part) in &self.parts {
            let from = start.max(&offset.0);
            let to = (start + part.len() as u64).min(offset.0 + buf.len() as u64);
            if *from < to {
                let target = &mut buf[(from - offset.0) as usize..(to - offset.0) as usize];
                target.copy_from_slice(&part[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }
}

/// The error of opening, from whichever step refuses.
fn refusal(volume: &Sparse) -> Error {
    match Metadata::read(volume) {
        Err(error) => error,
        Ok(metadata) => match metadata.unlock(volume, &[]) {
            Err(error) => error,
            Ok((unlocked, _)) => unlocked.write_refusal().unwrap_or_else(|| panic!("opens")),
        },
    }
}

fn check(what: &str, volume: &Sparse, kind: Kind, words: &str) {
    let error = refusal(volume);
    assert_eq!(error.kind(), kind, "{what}: {error}");
    assert!(error.to_string().contains(words), "{what}: {error}");
    assert!(error.hint_text().is_some() || kind == Kind::Unsupported, "{what}: {error} has no hint");
}

fn states_are_refused_by_name() {
    let Some(good) = Sparse::new() else { return };
    let with_states = |current: u16, next: u16| {
        let mut volume = good.clone();
        volume.set_in_all(12, &[current.to_le_bytes(), next.to_le_bytes()].concat());
        volume
    };
    for next in [1, 4] {
        check("2", &with_states(2, next), Kind::Refused, "was interrupted");
    }
    check("9", &with_states(9, 9), Kind::Refused, "state 9, 9 is not known");
    // these are read where the hash is right, which it is not here
    for (current, next) in [(3, 1), (3, 4), (5, 1), (5, 4), (4, 1), (1, 4)] {
        let volume = with_states(current, next);
        let error = Metadata::read(&volume).unwrap().write_refusal().unwrap().to_string();
        assert!(error.contains("paused at 104857600 of 104857600 bytes"), "{error}");
        check("altered", &volume, Kind::Damaged, "were altered");
    }
    let mut running = good.clone();
    running.set(160, &[0x3B, 0x4D, 0xA8, 0x92, 0x80, 0xDD, 0x0E, 0x4D, 0x9E, 0x4E, 0xB1, 0xE3, 0x28, 0x4E, 0xAE, 0xD8]);
    check("encrypt on write", &running, Kind::Refused, "still running (encrypt on write)");
}

fn unknown_forms_are_refused_with_their_number() {
    let Some(good) = Sparse::new() else { return };
    let mut volume = good.clone();
    volume.set(160, &[7; 16]);
    check("identifier", &volume, Kind::Unsupported, "unknown identifier 07070707-");
    let mut volume = good.clone();
    volume.set(11, &[0, 8]);
    check("sector", &volume, Kind::Unsupported, "sectors of 2048 bytes");
    let mut volume = good.clone();
    volume.set_in_all(10, &[3, 0]);
    check("version", &volume, Kind::Unsupported, "version 3");
    let mut volume = good.clone();
    volume.set_in_all(64 + 36, &[6, 0x80]);
    check("cipher", &volume, Kind::Unsupported, "cipher 0x8006");
    assert!(Metadata::read(&volume).unwrap().cipher.is_none());
    let mut volume = good.clone();
    volume.set(3, b"NTFS    ");
    check("not BitLocker", &volume, Kind::Unsupported, "not a BitLocker volume");
    check("short", &Sparse { length: 100, parts: Vec::new() }, Kind::Unsupported, "too small");
}

fn metadata_out_of_bounds_are_refused() {
    let Some(good) = Sparse::new() else { return };
    let copies = good.copies();
    // header: nowhere
    for offset in [1 << 60, u64::MAX, good.length - 100, 1, 512 + 7] {
        let mut volume = good.clone();
        volume.set(176, &[offset.to_le_bytes(), offset.to_le_bytes(), offset.to_le_bytes()].concat());
        check("header", &volume, Kind::Damaged, "out of bounds");
    }
    // block: places of the other copies, and of the start of the volume
    let moved = u64::from_le_bytes(good.get(copies[0] + 56, 8).try_into().unwrap());
    for offset in [0, 512, 4096, 7680, 1 << 60, u64::MAX, copies[0] + 100, u64::MAX - 511] {
        let mut volume = good.clone();
        volume.set_in_copy(copies[0], 40, &offset.to_le_bytes());
        check("area", &volume, Kind::Damaged, "out of bounds");
    }
    for offset in [copies[0], copies[0] + 512, copies[0] - 512, moved, moved - 65024] {
        let mut volume = good.clone();
        volume.set_in_copy(copies[0], 40, &offset.to_le_bytes());
        check("overlap", &volume, Kind::Damaged, "overlap");
    }
    for sectors in [0u32, 1, 15, u32::MAX, (16 << 11) + 1] {
        let mut volume = good.clone();
        volume.set_in_copy(copies[0], 28, &sectors.to_le_bytes());
        check("length of the start", &volume, Kind::Damaged, "out of bounds");
    }
    let mut volume = good.clone();
    volume.set_in_copy(copies[0], 56, &(moved + 4096).to_le_bytes());
    check("two places", &volume, Kind::Damaged, "two places");
    let mut volume = good.clone();
    volume.set_in_copy(copies[0], 16, &(good.length - 3).to_le_bytes());
    check("encrypted size", &volume, Kind::Damaged, "out of bounds");
}

fn damaged_copies_are_reported_and_one_is_enough() {
    let Some(good) = Sparse::new() else { return };
    let copies = good.copies();
    for lost in [vec![0], vec![1, 2], vec![0, 2]] {
        let mut volume = good.clone();
        for n in &lost {
            volume.set(copies[*n] + 100, &[0xFF, 0xFE]);
        }
        let metadata = Metadata::read(&volume).unwrap();
        assert_eq!(metadata.findings.len(), lost.len(), "{:?}", metadata.findings);
        let unlocked = metadata.unlock(&volume, &[]).unwrap_or_else(|e| panic!("{e}")).0;
        assert!(unlocked.write_refusal().is_none());
    }
    let mut volume = good.clone();
    for copy in copies {
        volume.set(copy + 100, &[0xFF, 0xFE]);
    }
    check("all", &volume, Kind::Damaged, "copy 3 of the metadata has a wrong checksum");
    let mut volume = good.clone();
    volume.set_in_all(64 + 32, &[0xFF, 0xFE]);
    check("sealed hash", &volume, Kind::Damaged, "were altered");
    let mut volume = good.clone();
    volume.set_in_copy(copies[1], 64 + 32, &[0xFF, 0xFE]);
    check("copies differ", &volume, Kind::Refused, "copies of BitLocker's metadata differ");
    let mut volume = good.clone();
    volume.set(184, &copies[0].to_le_bytes());
    check("header and metadata differ", &volume, Kind::Refused, "copies of BitLocker's metadata differ");
}

fn an_image_that_was_cut_off_is_only_read() {
    let Some(good) = Sparse::new() else { return };
    let copies = good.copies();
    for length in [good.length - 4096, copies[2] + 65536, copies[1] + 65536] {
        let mut volume = good.clone();
        volume.truncate(length / 512 * 512);
        check("cut off", &volume, Kind::Refused, "the image ends before the volume does");
    }
}

fn a_wrong_secret_names_the_protectors() {
    let Some(bytes) = volume_bytes("c-aes-xts-128-startup-key.img.xz") else { return };
    let volume = MemoryVolume(bytes);
    let metadata = Metadata::read(&volume).unwrap();
    let error = metadata.unlock(&volume, &[]).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let text = error.to_string();
    for protector in &metadata.protectors {
        assert!(text.contains(&protector.key_id()), "{text}");
    }
    let wrong = [
        Secret::recovery_password("616319-601744-502117-534017-367994-176748-607299-663201").unwrap(),
        Secret::password("wrong").unwrap(),
        Secret::startup_key(&crate::support::corpus_bytes("bitlocker/startup_key.bek").unwrap()).unwrap(),
        Secret::volume_key(&[b'a'; 32]).unwrap(),
    ];
    let error = metadata.unlock(&volume, &wrong).map(drop).unwrap_err().to_string();
    assert!(error.contains("does not open it") && error.contains("belongs to protector B3411A58"), "{error}");
    assert!(!error.contains("616319") && !error.contains("aaaa"), "{error}");
    // a bare key of the right length, which proves nothing
    let key = Secret::volume_key(&[b'a'; 64]).unwrap();
    let error = metadata.unlock(&volume, &[key]).map(drop).unwrap_err().to_string();
    assert!(error.contains("the volume key does not fit"), "{error}");
}

/// A volume with as many protectors as fit costs 16 stretches of each secret, over all volumes that it is tried on.
fn a_secret_is_stretched_sixteen_times_at_most() {
    let Some(bytes) = volume_bytes("c-aes-xts-128-two-recovery.img.xz") else { return };
    let volume = MemoryVolume(bytes);
    let metadata = Metadata::read(&volume).unwrap();
    let right = || Secret::recovery_password("297693-343387-338492-284526-405482-424886-634931-555093").unwrap();
    let secrets = [Secret::recovery_password("616319-601744-502117-534017-367994-176748-607299-663201").unwrap()];
    for _ in 0..8 {
        let error = metadata.unlock(&volume, &secrets).map(drop).unwrap_err().to_string();
        assert!(error.contains("does not open it"), "{error}");
    }
    let error = metadata.unlock(&volume, &secrets).map(drop).unwrap_err().to_string();
    assert!(error.contains("too many protectors"), "{error}");
    assert!(metadata.unlock(&volume, &[right()]).is_ok());
}

tests![
    states_are_refused_by_name,
    unknown_forms_are_refused_with_their_number,
    metadata_out_of_bounds_are_refused,
    damaged_copies_are_reported_and_one_is_enough,
    an_image_that_was_cut_off_is_only_read,
    a_wrong_secret_names_the_protectors,
    a_secret_is_stretched_sixteen_times_at_most,
];
