//! A tree with the names and sizes that driver media have, and images of it with every extension.

use crate::support;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names as driver media have them: long, mixed case, several dots, deep, empty, a block exactly.
pub fn write_tree(root: &Path) {
    let mut number = 0u32;
    let mut put = |path: &str, size: usize| {
        number += 1;
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let data: Vec<u8> =
            (0..size).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ number as u8).collect();
        fs::write(file, data).unwrap();
    };
    put("virtio-win_license.txt", 1500);
    for (bucket, arch) in [("w10", "amd64"), ("2k12R2", "amd64"), ("w8.1", "x86"), ("w11", "ARM64")] {
        put(&format!("viostor/{bucket}/{arch}/viostor.sys"), 80_000);
        put(&format!("viostor/{bucket}/{arch}/viostor.inf"), 2048);
        put(&format!("viostor/{bucket}/{arch}/viostor.cat"), 2047);
        put(&format!("Balloon/{bucket}/{arch}/WdfCoInstaller01011.dll"), 4097);
    }
    put("guest-agent/qemu-ga-x86_64.msi", 300_001);
    put("empty.txt", 0);
    put("one/two/three/four/five/six/seven.txt", 10);
    for index in 0..120 {
        put(&format!("many/a file with a rather long name, number {index}.txt"), index);
    }
    fs::create_dir_all(root.join("empty-folder")).unwrap();
}

/// The programs and options that make an image with some extensions.
pub const RECIPES: &[(&str, &str, &[&str])] = &[
    ("g-plain", "genisoimage", &["-iso-level", "3", "-D"]),
    ("g-level4", "genisoimage", &["-iso-level", "4", "-D"]),
    ("g-rock", "genisoimage", &["-r"]),
    ("g-rock-level4", "genisoimage", &["-r", "-iso-level", "4"]),
    ("g-joliet", "genisoimage", &["-J", "-joliet-long", "-D"]),
    ("g-udf", "genisoimage", &["-udf", "-D", "-iso-level", "3"]),
    ("g-all", "genisoimage", &["-r", "-J", "-joliet-long", "-udf"]),
    ("x-plain", "xorriso", &["-as", "mkisofs", "--norock", "-iso-level", "3", "-D"]),
    ("x-rock", "xorriso", &["-as", "mkisofs"]),
    ("x-joliet", "xorriso", &["-as", "mkisofs", "--norock", "-J", "-joliet-long", "-D"]),
    ("x-level4", "xorriso", &["-as", "mkisofs", "--norock", "-iso-level", "4", "-D"]),
    ("x-1999", "xorriso", &["-compliance", "iso_9660_1999", "-as", "mkisofs", "--norock", "-D"]),
    ("x-all", "xorriso", &["-as", "mkisofs", "-J", "-joliet-long"]),
];

/// Makes an image; `None` after saying so when the program is missing.
pub fn make(name: &str, tree: &Path, folder: &Path) -> Option<PathBuf> {
    let (_, program, options) = RECIPES.iter().find(|(n, _, _)| *n == name).unwrap();
    let program = support::program(program)?;
    let out = folder.join(format!("{name}.iso"));
    let mut command = Command::new(program);
    command.args(*options).args(["-quiet", "-V", "TEST"]);
    if name.starts_with('g') {
        command.args(["-input-charset", "iso8859-1"]);
    }
    command.arg("-o").arg(&out).arg(tree);
    support::run(&mut command);
    Some(out)
}
