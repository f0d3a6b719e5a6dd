//! Fixtures of every kind.

use sha1::{Digest, Sha1};
use winject::Kind;

use super::{READABLE, fixture, open};

/// What `make.sh` writes into `viostor.sys`.
fn driver() -> Vec<u8> {
    (1..=2000).flat_map(|n| format!("{n}\n").into_bytes()).collect()
}

fn trees_are_the_same_whatever_the_compression() {
    let sha1: [u8; 20] = Sha1::digest(driver()).into();
    for name in READABLE {
        let wim = open(&fixture(name)).unwrap();
        assert_eq!((wim.images(), wim.boot_image()), (1, 1), "{name}");
        let lookup = wim.look_up(&[[7; 20], sha1, [0; 20]]).unwrap();
        assert_eq!(lookup.found, [false, true, false], "{name}");
        let mut tree = wim.tree(&lookup, 1).unwrap();
        let entry = tree.find("/windows/SYSTEM32/Drivers/VioStor.sys").unwrap().unwrap();
        assert_eq!((entry.name.as_str(), entry.is_folder, entry.sha1), ("viostor.sys", false, sha1), "{name}");
        for path in ["Windows/System32/drivers/inbox300.sys", "Windows/System32/drivers/empty.sys", "Users", ""] {
            assert!(tree.find(path).unwrap().is_some(), "{name}: {path}");
        }
        for path in ["Windows/System32/drivers/vioscsi.sys", "Users/x", "Windows/System32/drivers/viostor.sys/x"] {
            assert_eq!(tree.find(path).unwrap(), None, "{name}: {path}");
        }
        let folder = tree.find("Windows/System32/DriverStore/FileRepository").unwrap().unwrap();
        let package = tree.child(&folder, |entry| entry.name.starts_with("vioscsi.inf_")).unwrap().unwrap();
        assert!(package.is_folder, "{name}");
        assert!(wim.tree(&lookup, 2).is_err(), "{name}");
    }
}

fn what_is_not_read_is_named() {
    let refuse = |bytes: &[u8], kind: Kind, words: &str| {
        let error = open(bytes).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refuse(&fixture("solid.wim"), Kind::Unsupported, "solid");
    refuse(&[], Kind::Damaged, "0 bytes");
    refuse(&[0; 4096], Kind::Damaged, "MSWIM");
    let changed = |at: usize, value: u32| {
        let mut bytes = fixture("lzx.wim");
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    refuse(&changed(12, 0x1_0E00), Kind::Unsupported, "version 0x10e00");
    refuse(&changed(16, 0x8_0002), Kind::Unsupported, "LZMS");
    refuse(&changed(20, 2 << 20), Kind::Unsupported, "LZX in chunks of 2097152 bytes");
    refuse(&changed(20, 0), Kind::Unsupported, "chunks of 0 bytes");
    refuse(&changed(40, 0x0002_0001), Kind::Unsupported, "one part of several");
}

tests![trees_are_the_same_whatever_the_compression, what_is_not_read_is_named];
