//! Trees that wimlib captured, with names of all sorts: every file is found, with the SHA-1 that it has.

use std::path::Path;
use std::process::Command;

use sha1::{Digest, Sha1};
use winject::internals::random::Random;

use super::open;
use crate::inject::folder;
use crate::support;

/// Letters of names: one, two and three bytes of UTF-8, and a pair of surrogates.
const LETTERS: [char; 8] = ['a', 'B', '.', ' ', 'ä', 'Ж', '€', '𝄞'];

fn make_tree(root: &Path, random: &mut Random) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    for number in 0..400 {
        let parent = folders[random.index(folders.len())].clone();
        let letters: String = (0..random.below(12)).map(|_| LETTERS[random.index(LETTERS.len())]).collect();
        // A number keeps names apart that Windows takes for one.
        let path = format!("{parent}/{letters}{number}");
        if number % 10 == 0 {
            std::fs::create_dir(root.join(&path[1..])).unwrap();
            folders.push(path);
        } else {
            let content: Vec<u8> = format!("{}", random.below(50)).repeat(usize::from(number % 3 != 0)).into_bytes();
            std::fs::write(root.join(&path[1..]), &content).unwrap();
            files.push((path, content));
        }
    }
    files
}

fn every_file_of_a_captured_tree_is_found() {
    let Some(wimlib) = support::program("wimlib-imagex") else { return };
    let here = folder();
    let root = here.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let mut random = Random::new(0x5749_4D01);
    let files = make_tree(&root, &mut random);
    for (compression, chunk) in
        [("none", None), ("XPRESS", None), ("XPRESS", Some("4096")), ("XPRESS", Some("65536")), ("LZX", None)]
    {
        let out = here.path().join("out.wim");
        let mut capture = Command::new(&wimlib);
        capture.arg("capture").arg(&root).arg(&out).args(["--no-acls", &format!("--compress={compression}")]);
        capture.args(chunk.map(|chunk| format!("--chunk-size={chunk}")));
        support::run(&mut capture);
        let wim = open(&std::fs::read(&out).unwrap()).unwrap();
        let hashes: Vec<[u8; 20]> = files.iter().map(|(_, content)| Sha1::digest(content).into()).collect();
        let lookup = wim.look_up(&hashes).unwrap();
        let mut tree = wim.tree(&lookup, 1).unwrap();
        for (((path, content), sha1), found) in files.iter().zip(&hashes).zip(&lookup.found) {
            let entry = tree.find(path).unwrap().unwrap_or_else(|| panic!("{compression}: {path} is not found"));
            // An empty file has no content of its own.
            let expected = if content.is_empty() { [0; 20] } else { *sha1 };
            assert_eq!((entry.is_folder, entry.sha1), (false, expected), "{compression}: {path}");
            assert_eq!(*found, !content.is_empty(), "{compression}: {path}");
        }
    }
}

tests![every_file_of_a_captured_tree_is_found];
