//! Volumes that were changed on purpose: refused, or the same view as before; never a panic.

use sha2::{Digest, Sha256};
use winject::internals::bitlocker::{Metadata, Unlocked};
use winject::internals::io::VolumeRead;
use winject::internals::random::Random;
use winject::internals::units::VolumeOffset;

use super::refusals::Sparse;
use crate::support;

/// A hash of the view around all that is mapped in a special way.
fn hash_of_view(volume: &Sparse, unlocked: &Unlocked, places: &[u64]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 16384];
    for place in places {
        let start = place.saturating_sub(8192).min(volume.len() - buf.len() as u64);
        unlocked.read(volume, VolumeOffset(start), &mut buf).unwrap();
        hash.update(&buf);
    }
    hash.finalize().into()
}

/// Changes one to four places of the header or of copies of the metadata.
fn mutate(volume: &mut Sparse, random: &mut Random, copies: [u64; 3]) {
    // the same change in all copies gets furthest
    let targets = match random.below(4) {
        0 => vec![copies[random.index(3)]],
        _ => copies.to_vec(),
    };
    for _ in 0..=random.below(3) {
        let at = match random.below(4) {
            0 => random.below(112),
            1 => 112 + random.below(300),
            _ => random.below(700),
        };
        let bytes = match random.below(4) {
            0 => vec![random.byte()],
            1 => u64::to_le_bytes(1 << random.below(64)).to_vec(),
            2 => [[0u8; 8], [0xFF; 8], copies[0].to_le_bytes(), 512u64.to_le_bytes()][random.index(4)].to_vec(),
            _ => vec![random.byte(), 0],
        };
        if random.below(6) == 0 {
            volume.set(random.below(504), &bytes);
            continue;
        }
        for copy in &targets {
            volume.set(copy + at, &bytes);
        }
    }
    if random.below(8) > 0 {
        for copy in &targets {
            volume.seal(*copy);
        }
    }
    if random.below(50) == 0 {
        volume.truncate(random.below(volume.len()));
    }
}

/// 12,000 volumes under CI; `WINJECT_CAMPAIGN=N` for N.
fn changed_metadata_are_refused_or_give_the_same_view() {
    let Some(good) = Sparse::new() else { return };
    let copies = good.copies();
    let moved = u64::from_le_bytes(good.get(copies[0] + 56, 8).try_into().unwrap());
    let places = [0, 8192, copies[0], copies[0] + 65536, copies[1], copies[2], moved, moved + 8192];
    let metadata = Metadata::read(&good).unwrap();
    let expected = hash_of_view(&good, &metadata.unlock(&good, &[]).unwrap_or_else(|e| panic!("{e}")).0, &places);
    let mut random = Random::new(19);
    let (mut same, mut refused, mut writable) = (0u64, 0u64, 0u64);
    for n in 0..support::rounds(2000, 12_000) {
        let mut volume = good.clone();
        mutate(&mut volume, &mut random, copies);
        let opened = Metadata::read(&volume).and_then(|metadata| {
            // all of it can be printed
            assert!(serde_json::to_string(&metadata).is_ok() && !format!("{metadata:?}").is_empty());
            let _ = metadata.write_refusal();
            metadata.unlock(&volume, &[])
        });
        match opened {
            Ok((unlocked, _)) if volume.len() == good.len() => {
                assert!(hash_of_view(&volume, &unlocked, &places) == expected, "mutation {n}");
                same += 1;
                writable += u64::from(unlocked.write_refusal().is_none());
            }
            Ok((unlocked, _)) => {
                assert!(unlocked.write_refusal().is_some(), "mutation {n}: cut off");
                let _ = unlocked.read(&volume, VolumeOffset(0), &mut [0; 512]);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(same > 0 && writable > 0 && refused > same, "{same} the same, {writable} writable, {refused} refused");
}

tests![changed_metadata_are_refused_or_give_the_same_view];
