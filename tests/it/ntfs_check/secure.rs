//! New descriptors in `$Secure`, judged by our checker and by a foreign one.

use std::process::Command;

use winject::internals::clock::FileTime;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::check::{CheckOptions, check};
use winject::internals::ntfs::security::{Protected, descriptor};
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Security, Volume};

use super::surgeon::fixture;
use crate::support::{corpus_bytes, judge, program};

fn open(bytes: Vec<u8>) -> Volume<MemoryVolume> {
    Volume::open(MemoryVolume(bytes), &OpenOptions::new(FileTime(132_000_000_000_000_000))).unwrap()
}

fn judged(mut volume: Volume<MemoryVolume>) {
    volume.flush().unwrap();
    let device = volume.into_device();
    let report = check(&device, &CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{report}");
    let (Some(python), Some(judge)) = (program("python3"), judge("ntfscheck.py")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    std::fs::write(&path, &device.0).unwrap();
    let output = Command::new(python).arg(judge).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A valid descriptor that no volume has: the protected one with another owner, and `size` more bytes of ACL.
fn unusual(n: u32, size: usize) -> Vec<u8> {
    let mut bytes = Protected::File.descriptor();
    let owner = descriptor::OWNER.get(&bytes) as usize;
    bytes[owner + 12..owner + 16].copy_from_slice(&(0x1_0000 + n).to_le_bytes());
    bytes.resize(bytes.len() + size, 0);
    descriptor::validate(&bytes).unwrap();
    bytes
}

fn protected_files() {
    let mut volumes = vec![fixture()];
    volumes.extend(corpus_bytes("ntfs/dfvfs-ntfs.raw.xz"));
    for bytes in volumes {
        let mut volume = open(bytes);
        let top = volume.protected_security(Protected::Top).unwrap();
        let file = volume.protected_security(Protected::File).unwrap();
        assert_ne!(top, file);
        let how = |id| CreateOptions { security: Security::Id(id), ..CreateOptions::default() };
        let dir = volume.create_dir(FileId::ROOT, "hyper2kvm", &how(top)).unwrap();
        let inside = volume.create_file(dir, "setup.cmd", b"@echo off\r\n", &how(file)).unwrap();
        assert_eq!(volume.stat(inside).unwrap().security, Some(file));
        assert_eq!(volume.security_descriptor(top).unwrap(), Some(Protected::Top.descriptor()));
        // a second run finds what the first has filed
        assert_eq!(volume.protected_security(Protected::Top).unwrap(), top);
        volume.flush().unwrap();
        let mut volume = open(volume.into_device().0);
        assert_eq!(volume.protected_security(Protected::Top).unwrap(), top);
        assert_eq!(volume.protected_security(Protected::File).unwrap(), file);
        judged(volume);
    }
}

fn many_descriptors_split_the_indexes() {
    let mut volume = open(fixture());
    let ids: Vec<u32> = (0..600).map(|n| volume.security_id(&unusual(n, 0)).unwrap()).collect();
    assert!(ids.windows(2).all(|two| two[0] + 1 == two[1]));
    for (n, &id) in (0u32..).zip(&ids).step_by(97) {
        assert_eq!(volume.security_id(&unusual(n, 0)).unwrap(), id);
    }
    judged(volume);
}

fn large_descriptors_go_on_in_the_next_pair_of_blocks() {
    let mut volume = open(fixture());
    for n in 0..14 {
        volume.security_id(&unusual(n, 50_000)).unwrap();
    }
    judged(volume);
}

fn malformed_descriptors_are_refused_and_nothing_changes() {
    let mut volume = open(fixture());
    assert!(volume.security_id(&[1, 0, 4, 0x80]).is_err());
    assert!(volume.security_id(&[0; 100]).is_err());
    volume.flush().unwrap();
    assert!(volume.into_device().0 == fixture());
}

fn a_full_volume_refuses_and_nothing_changes() {
    let mut volume = open(fixture());
    let free = usize::try_from(volume.free_space().unwrap()).unwrap();
    let mut size = free;
    while size > 4096 {
        if volume
            .create_file(FileId::ROOT, &format!("filler{size}"), &vec![1; size], &CreateOptions::default())
            .is_err()
        {
            size /= 2;
        }
    }
    volume.flush().unwrap();
    let mut refused = false;
    for n in 0..20 {
        let before = volume.security_descriptor(0x100 + n).unwrap();
        refused |= volume.security_id(&unusual(n, 60_000)).is_err();
        assert_eq!(
            volume.security_descriptor(0x100 + n).unwrap(),
            before.clone().or(volume.security_descriptor(0x100 + n).unwrap())
        );
    }
    assert!(refused);
    judged(volume);
}

tests![
    protected_files,
    many_descriptors_split_the_indexes,
    large_descriptors_go_on_in_the_next_pair_of_blocks,
    malformed_descriptors_are_refused_and_nothing_changes,
    a_full_volume_refuses_and_nothing_changes,
];
