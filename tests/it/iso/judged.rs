//! Listing and content agree with 7-Zip's, and with the files that went into the image.

use super::images::{RECIPES, make, write_tree};
use crate::support;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use winject::internals::iso::{Iso, Tree, trees};

type Files = BTreeMap<String, Vec<u8>>;

/// Everything below a folder, symbolic links aside.
fn folder_files(root: &Path) -> Files {
    let mut out = Files::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                out.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    out
}

fn ours(image: &Path, tree: Option<Tree>) -> Files {
    let device = winject::internals::iso::HostFile::open(image).unwrap();
    let iso = match tree {
        Some(tree) => Iso::open_tree(device, tree),
        None => Iso::open(device),
    }
    .unwrap_or_else(|e| panic!("{}: {e}", image.display()));
    assert!(iso.warnings().is_empty(), "{:?}", iso.warnings());
    iso.files().iter().map(|f| (f.path.clone(), iso.read(f, u64::MAX).unwrap())).collect()
}

fn seven_zip(image: &Path, kind: &str) -> Option<Files> {
    let program = ["7zz", "7z"].into_iter().find(|p| Command::new(p).output().is_ok());
    let Some(program) = program else {
        support::skip("7-Zip is not installed");
        return None;
    };
    let out = tempfile::tempdir().unwrap();
    support::run(Command::new(program).arg("x").arg(kind).arg(format!("-o{}", out.path().display())).arg(image));
    Some(folder_files(out.path()))
}

#[track_caller]
fn same(name: &str, a: &Files, b: &Files) {
    let names = |f: &Files| f.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b), "{name}: names");
    for (path, data) in a {
        assert!(b[path] == *data, "{name}: the content of {path} differs");
    }
}

fn upper(files: &Files) -> Files {
    files.iter().map(|(path, data)| (path.to_uppercase(), data.clone())).collect()
}

fn every_extension_alone_and_together() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    write_tree(&tree);
    let original = folder_files(&tree);
    for (name, _, _) in RECIPES {
        let Some(image) = make(name, &tree, temp.path()) else { continue };
        let found = trees(&winject::internals::iso::HostFile::open(&image).unwrap()).unwrap();
        let best = match name.split_once('-').unwrap().1 {
            "rock" | "rock-level4" | "all" => Tree::RockRidge,
            "joliet" => Tree::Joliet,
            "udf" => Tree::Udf,
            "level4" | "1999" if found.contains(&Tree::Enhanced) => Tree::Enhanced,
            _ => Tree::Plain,
        };
        assert_eq!(found.first(), Some(&best), "{name}: {found:?}");
        let read = ours(&image, None);
        // extensions keep names as they are; level 3 makes them short and upper case
        if !matches!(best, Tree::Plain) {
            same(&format!("{name} against the files"), &read, &original);
        }
        assert_eq!(read.len(), original.len(), "{name}");
        let Some(theirs) = seven_zip(&image, if best == Tree::Udf { "-tudf" } else { "-tiso" }) else { continue };
        match best {
            // 7-Zip prefers Joliet, and does not look at the tree of ISO 9660:1999
            Tree::RockRidge if found.contains(&Tree::Joliet) => same(name, &ours(&image, Some(Tree::Joliet)), &theirs),
            Tree::Enhanced => same(name, &upper(&ours(&image, Some(Tree::Plain))), &upper(&theirs)),
            _ => same(name, &read, &theirs),
        }
        // every tree of the image has every file's content
        for tree in found {
            let mut a: Vec<_> = ours(&image, Some(tree)).into_values().collect();
            let mut b: Vec<_> = original.values().cloned().collect();
            a.sort();
            b.sort();
            assert!(a == b, "{name}: contents under {tree}");
        }
    }
}

fn udf_alone() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    write_tree(&tree);
    let Some(image) = make("g-udf", &tree, temp.path()) else { return };
    // a repack with UDF only: take the descriptors of ISO 9660 away
    let mut data = fs::read(&image).unwrap();
    for sector in 16..32 {
        let at = sector * 2048;
        if &data[at + 1..at + 6] == b"CD001" {
            data[at..at + 2048].fill(0);
        }
    }
    let only = temp.path().join("udf-only.iso");
    fs::write(&only, data).unwrap();
    assert_eq!(trees(&winject::internals::iso::HostFile::open(&only).unwrap()).unwrap(), [Tree::Udf]);
    same("udf alone", &ours(&only, None), &folder_files(&tree));
    let Some(theirs) = seven_zip(&only, "-tudf") else { return };
    same("udf alone, 7-Zip", &ours(&only, None), &theirs);
}

fn deep_directories_that_rock_ridge_moved() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    let deep = "a/b/c/d/e/f/g/h/i/j/k/l/m";
    fs::create_dir_all(tree.join(deep)).unwrap();
    fs::write(tree.join(deep).join("deep.txt"), "deep").unwrap();
    fs::write(tree.join("top.txt"), "top").unwrap();
    for recipe in ["g-rock", "x-rock"] {
        let Some(image) = make(recipe, &tree, temp.path()) else { continue };
        let mut read = ours(&image, None);
        read.retain(|path, _| !path.starts_with("rr_moved"));
        same(recipe, &read, &folder_files(&tree));
    }
}

tests![every_extension_alone_and_together, udf_alone, deep_directories_that_rock_ridge_moved,];
