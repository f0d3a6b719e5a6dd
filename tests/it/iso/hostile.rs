//! Broken and hostile images: one clear error each, no panic, no hang.

use super::images::{make, write_tree};
use crate::support;
use std::fs;
use std::path::PathBuf;
use winject::internals::io::MemoryVolume;
use winject::internals::iso::{Iso, Tree, trees};
use winject::internals::random::Random;
use winject::{Error, Kind};

/// A small image that has Rock Ridge, Joliet and UDF.
fn small() -> Option<(tempfile::TempDir, PathBuf)> {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    fs::create_dir_all(tree.join("viostor/w10/amd64")).unwrap();
    for (name, size) in [("viostor.sys", 5000), ("viostor.inf", 700), ("a rather long name of a file.txt", 10)] {
        fs::write(tree.join("viostor/w10/amd64").join(name), vec![7u8; size]).unwrap();
    }
    let image = make("g-all", &tree, temp.path())?;
    Some((temp, image))
}

fn open(data: Vec<u8>) -> Result<(), Error> {
    let iso = Iso::open(MemoryVolume(data))?;
    for file in iso.files() {
        iso.read(file, 1 << 20)?;
    }
    Ok(())
}

fn what_is_no_image() {
    for data in [Vec::new(), vec![0; 100], vec![0xFF; 100_000], b"not an image".repeat(5000)] {
        assert_eq!(open(data).unwrap_err().kind(), Kind::Unsupported);
    }
}

fn truncated_in_the_middle() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    write_tree(&tree);
    for recipe in ["g-rock", "g-joliet", "g-udf", "x-all"] {
        let Some(image) = make(recipe, &tree, temp.path()) else { continue };
        let data = fs::read(&image).unwrap();
        let error = open(data[..data.len() / 2].to_vec()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::Damaged, "{recipe}: {text}");
        assert!(text.contains("cut short"), "{recipe}: {text}");
        assert!(error.hint_text().is_some());
    }
}

/// Where the directory records of a name lie in a tree of ISO 9660.
fn records(data: &[u8], name: &[u8]) -> Vec<usize> {
    (33..data.len() - name.len())
        .filter(|&at| &data[at..at + name.len()] == name && usize::from(data[at - 1]) == name.len())
        .map(|at| at - 33)
        .collect()
}

fn directories_in_a_loop() {
    let Some((_temp, image)) = small() else { return };
    let mut data = fs::read(image).unwrap();
    let root: [u8; 4] = data[16 * 2048 + 156 + 2..][..4].try_into().unwrap();
    for at in records(&data.clone(), b"AMD64") {
        data[at + 2..at + 6].copy_from_slice(&root);
    }
    let error = Iso::open_tree(MemoryVolume(data), Tree::Plain).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("loop"), "{error}");
}

fn a_directory_far_too_large() {
    let Some((_temp, image)) = small() else { return };
    let mut data = fs::read(image).unwrap();
    for at in records(&data.clone(), b"W10") {
        data[at + 10..at + 14].fill(0xFF);
    }
    assert_eq!(Iso::open_tree(MemoryVolume(data), Tree::Plain).unwrap_err().kind(), Kind::Damaged);
}

/// A directory of more entries than any driver image has: 200,001 records of 34 bytes behind the image's end.
fn a_directory_with_too_many_entries() {
    let Some((_temp, image)) = small() else { return };
    let mut data = fs::read(image).unwrap();
    data.resize(data.len().next_multiple_of(2048), 0);
    let at = data.len();
    let mut record = [0u8; 34];
    (record[0], record[32], record[33]) = (34, 1, b'A');
    for _ in 0..200_001usize.div_ceil(60) {
        data.extend(record.repeat(60));
        data.extend([0; 2048 - 34 * 60]);
    }
    let (extent, size) = (u32::try_from(at / 2048).unwrap(), u32::try_from(data.len() - at).unwrap());
    data[16 * 2048 + 156 + 2..][..4].copy_from_slice(&extent.to_le_bytes());
    data[16 * 2048 + 156 + 10..][..4].copy_from_slice(&size.to_le_bytes());
    let error = Iso::open_tree(MemoryVolume(data), Tree::Plain).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("more than 200000 entries") && error.hint_text().is_some(), "{error}");
}

fn mutated_images_never_panic() {
    let Some((_temp, image)) = small() else { return };
    let whole = fs::read(image).unwrap();
    // mutations of zeros between the structures, and of the files' sevens, would be wasted
    let used: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] != 0 && whole[i] != 7).collect();
    let mut random = Random::from_state(0x2545_F491_4F6C_DD1D);
    let mut next = |limit: usize| random.index(limit);
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..support::rounds(3000, 8_000) {
        let mut data = whole.clone();
        for _ in 0..1 + next(4) {
            let at = used[next(used.len())];
            data[at] = match next(4) {
                0 => 0,
                1 => 0xFF,
                2 => data[at] ^ (1 << next(8)),
                _ => next(256) as u8,
            };
        }
        if next(20) == 0 {
            data.truncate(next(data.len()));
        }
        for tree in trees(&MemoryVolume(data.clone())).unwrap_or_default() {
            match Iso::open_tree(MemoryVolume(data.clone()), tree) {
                Ok(iso) => {
                    fine += 1;
                    for file in iso.files() {
                        let _ = iso.read(file, 1 << 20);
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(matches!(error.kind(), Kind::Damaged | Kind::Unsupported), "{error}");
                }
            }
        }
    }
    println!("mutated images: {fine} trees read, {refused} refused");
    assert!(fine > 0 && refused > 0);
}

tests![
    what_is_no_image,
    truncated_in_the_middle,
    directories_in_a_loop,
    a_directory_far_too_large,
    a_directory_with_too_many_entries,
    mutated_images_never_panic,
];
