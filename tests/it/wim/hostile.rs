//! Damaged and hostile files: an answer or an error, in bounded time.

use winject::internals::random::Random;

use super::{READABLE, fixture, open};
use crate::support;

/// Asks everything that is asked of a recovery image.
fn ask(bytes: &[u8]) -> winject::Result<bool> {
    let wim = open(bytes)?;
    let lookup = wim.look_up(&[[7; 20]])?;
    let mut tree = wim.tree(&lookup, wim.boot_image())?;
    let file = tree.find("Windows/System32/drivers/viostor.sys")?;
    let store = tree.find("Windows/System32/DriverStore/FileRepository")?;
    let package = store.map(|store| tree.child(&store, |entry| entry.name.starts_with("viostor.inf_"))).transpose()?;
    Ok(file.is_some() || package.flatten().is_some())
}

/// Bytes changed anywhere, in the header, and in the lookup table; cut off, and made longer.
fn mutants_have_an_answer_or_an_error() {
    let mut random = Random::new(0x5749_4D00);
    let mut outcomes = [0_u64; 2];
    for name in READABLE {
        let good = fixture(name);
        let table = usize::try_from(u64::from_le_bytes(good[56..64].try_into().unwrap())).unwrap();
        for round in 0..support::rounds(300, 1000) {
            let mut bytes = good.clone();
            let (start, end) = match round % 4 {
                0 => (0, bytes.len()),
                1 => (8, 208),
                2 => (table, bytes.len()),
                _ => (208, table),
            };
            for _ in 0..=random.below(8) {
                let at = start + random.index(end - start);
                bytes[at] = match random.below(3) {
                    0 => 0xFF,
                    1 => 0,
                    _ => random.byte(),
                };
            }
            if random.below(8) == 0 {
                bytes.truncate(random.index(bytes.len()));
            }
            outcomes[usize::from(ask(&bytes).is_ok())] += 1;
        }
    }
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
}

/// A folder that is its own child, and a folder whose entries begin with itself, come to an end.
fn trees_in_a_circle_come_to_an_end() {
    let mut bytes = fixture("plain.wim.gz");
    // The metadata is the only resource with the flag 0x02, and its entry in the table the last one here.
    let table = usize::try_from(u64::from_le_bytes(bytes[56..64].try_into().unwrap())).unwrap();
    let entry = bytes[table..].chunks(50).find(|entry| entry[7] & 2 != 0).unwrap();
    let metadata = usize::try_from(u64::from_le_bytes(entry[8..16].try_into().unwrap())).unwrap();
    let security = u32::from_le_bytes(bytes[metadata..metadata + 4].try_into().unwrap()).max(8).next_multiple_of(8);
    let root = metadata + security as usize;
    let children = usize::try_from(u64::from_le_bytes(bytes[root + 16..root + 24].try_into().unwrap())).unwrap();
    // The root's first child lists the children of the root.
    let first = metadata + children;
    bytes.copy_within(root + 16..root + 24, first + 16);
    assert!(ask(&bytes).is_ok());
    // Every entry is followed by so many streams that none fits.
    bytes[first + 96..first + 98].fill(0xFF);
    assert!(ask(&bytes).unwrap_err().to_string().contains("directory tree"));
}

tests![mutants_have_an_answer_or_an_error, trees_in_a_circle_come_to_an_end];
