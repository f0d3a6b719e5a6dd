//! A BitLocker volume whose header and metadata come from the input: refused, or read, and never written where it must not be.
//!
//! Input: 512 bytes of header, then one metadata block of up to 65536 bytes, which lies at 64 KiB, 256 KiB and 512 KiB with
//! its checksum and its places put right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::bitlocker::{Metadata, Secret};
use winject::internals::io::MemoryVolume;
use winject::internals::units::VolumeOffset;

const COPIES: [usize; 3] = [64 << 10, 256 << 10, 512 << 10];

fuzz_target!(|input: &[u8]| {
    let Some((header, block)) = input.split_at_checked(512) else { return };
    let mut bytes = vec![0; 1 << 20];
    bytes[..512].copy_from_slice(header);
    for (n, start) in COPIES.into_iter().enumerate() {
        bytes[176 + 8 * n..184 + 8 * n].copy_from_slice(&(start as u64).to_le_bytes());
    }
    for start in COPIES {
        let area = &mut bytes[start..start + 65536];
        let length = block.len().min(area.len());
        area[..length].copy_from_slice(&block[..length]);
        for (n, start) in COPIES.into_iter().enumerate() {
            area[32 + 8 * n..40 + 8 * n].copy_from_slice(&(start as u64).to_le_bytes());
        }
        let size = usize::from(u16::from_le_bytes([area[8], area[9]])) * if area[10] == 1 { 1 } else { 16 };
        if size + 8 <= area.len() {
            let crc = crc32fast::hash(&area[..size]);
            area[size + 4..size + 8].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let mut volume = MemoryVolume(bytes);
    let Ok(metadata) = Metadata::read(&volume) else { return };
    let _ = (metadata.read_refusal(), metadata.write_refusal(), format!("{metadata:?}"));
    // no secret that is stretched: that takes most of a second
    let key = Secret::volume_key(&[b'5'; 64]).unwrap();
    let Ok((unlocked, _)) = metadata.unlock(&volume, &[key]) else { return };
    let mut buf = vec![0; 70_000];
    for start in [0, 100, 60_000, 300_000] {
        let _ = unlocked.read(&volume, VolumeOffset(start), &mut buf);
        let before = volume.0.clone();
        if unlocked.write(&mut volume, VolumeOffset(start), &buf[..5000]).is_err() {
            assert!(volume.0 == before);
        }
        assert!(unlocked.check_untouched(&volume).is_ok());
    }
});
