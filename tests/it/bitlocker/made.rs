//! Volumes that our maker encrypts: edited through the NTFS writer and read again by dislocker and libbde, in every state,
//! and with every defect.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use winject::internals::bitlocker::{Metadata, Secret, State};
use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::random::Random;
use winject::internals::units::VolumeOffset;

use super::{FileVolume, Plain, open};
use crate::support;

const SIZE: u64 = 24 << 20;
const CLUSTER: usize = 4096;
const METHODS: [&str; 6] = ["xts-128", "cbc-256-diffuser", "cbc-128", "xts-256", "cbc-256", "cbc-128-diffuser"];

/// A place for volumes of one sector size: a plain one, in which the areas of BitLocker are reserved when it is encrypted
/// first.
struct Maker {
    folder: tempfile::TempDir,
    python: PathBuf,
}

impl Maker {
    /// `None` after saying what is missing.
    fn new(sector: u32) -> Option<Self> {
        let (python, mkntfs) = (support::judge_python()?, support::program("mkntfs")?);
        support::program("ntfs-3g")?;
        if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
            support::skip("ntfs-3g may not mount here");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::File::create(&plain).unwrap().set_len(SIZE).unwrap();
        let shape = ["-F", "-q", "-f", "-p", "0", "-c", "4096", "-s", &sector.to_string()];
        support::run(Command::new(mkntfs).args(shape).arg(&plain));
        let mut volume = Volume::open(FileVolume::open(&plain), &OpenOptions::new(clock())).unwrap();
        let options = CreateOptions::default();
        let folder_id = volume.create_dir_all("/Windows/System32", &options).unwrap();
        let mut random = Random::new(20);
        for n in 0..30u64 {
            volume.create_file(folder_id, &format!("f{n}.bin"), &random.bytes(700 * n as usize), &options).unwrap();
        }
        volume.flush().unwrap();
        Some(Self { folder, python })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Encrypts the plain volume to the file `volume`.
    fn make(&self, arguments: &[&str]) -> PathBuf {
        let script = support::root().join("tests/judges/bitlocker/make-bitlocker.py");
        let out = self.path("volume");
        let mut command = Command::new(&self.python);
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        support::run(command.arg(script).arg(self.path("plain")).arg(&out).args(arguments));
        out
    }
}

fn clock() -> FileTime {
    FileTime::from_date(2026, 11, 29).unwrap()
}

/// The edit of the tests: new files, large and small, one that is replaced, and one that goes.
fn edit(device: impl VolumeWrite) {
    let mut volume = Volume::open(device, &OpenOptions::new(clock())).unwrap();
    let options = CreateOptions::default();
    let folder = volume.create_dir_all("/Windows/Drivers/winject", &options).unwrap();
    let mut random = Random::new(21);
    for (n, size) in [0, 30, 513, 5000, 300_000, 1 << 21].into_iter().enumerate() {
        volume.create_file(folder, &format!("driver{n}.sys"), &random.bytes(size), &options).unwrap();
    }
    volume.create_file(folder, "zeros.bin", &vec![0; 200_000], &options).unwrap();
    volume.replace_file("/Windows/System32/f7.bin", &random.bytes(9000), &options).unwrap();
    volume.delete("/Windows/System32/f8.bin").unwrap();
    volume.flush().unwrap();
}

fn contents(device: &impl VolumeRead) -> Vec<u8> {
    let mut bytes = vec![0; device.len() as usize];
    device.read_at(VolumeOffset(0), &mut bytes).unwrap();
    bytes
}

/// The same edit of the plain twin and of the encrypted volume changes the same clusters to the same bytes; metadata and
/// header stay; dislocker and libbde read what we read.
fn check_edit(maker: &Maker, method: &str, by_startup_key: bool) {
    let what = format!("{method}, {by_startup_key}");
    let key_file = maker.path("key.BEK");
    let key_name = key_file.to_str().unwrap().to_owned();
    let protectors = if by_startup_key { vec!["--bek", &key_name] } else { vec!["--clear"] };
    let path = maker.make(&[&["--method", method], protectors.as_slice()].concat());
    let twin_path = maker.path("twin");
    std::fs::copy(maker.path("plain"), &twin_path).unwrap();
    let secrets: Vec<Secret> =
        by_startup_key.then(|| Secret::startup_key(&std::fs::read(&key_file).unwrap()).unwrap()).into_iter().collect();

    let device = FileVolume::open(&path);
    let unlocked = open(&device, &secrets);
    assert!(unlocked.write_refusal().is_none(), "{what}");
    let raw_before = contents(&device);
    let before = contents(&Plain { device: FileVolume::open(&path), unlocked: &unlocked });
    let twin_before = std::fs::read(&twin_path).unwrap();
    edit(Plain { device: FileVolume::open(&path), unlocked: &unlocked });
    edit(FileVolume::open(&twin_path));
    let after = contents(&Plain { device: FileVolume::open(&path), unlocked: &unlocked });
    let twin_after = std::fs::read(&twin_path).unwrap();
    let raw_after = contents(&device);
    unlocked.check_untouched(&device).unwrap();
    let mut changed = 0;
    for (n, place) in (0..before.len()).step_by(CLUSTER).enumerate() {
        let range = place..(place + CLUSTER).min(before.len());
        let is_changed = before[range.clone()] != after[range.clone()];
        // free clusters of the encrypted volume hold noise, so that a write of zeros is one there
        if twin_before[range.clone()] != twin_after[range.clone()] || is_changed {
            assert!(after[range.clone()] == twin_after[range.clone()], "{what}: cluster {n}");
            changed += 1;
        }
        // no ciphertext changes but that of changed clusters, and the relocated start
        if n >= 2 && !is_changed && raw_before[range.clone()] != raw_after[range.clone()] {
            assert!(before[range].iter().all(|b| *b == 0), "{what}: cluster {n} of the ciphertext");
        }
    }
    assert!(changed > 500, "{what}: {changed} clusters");

    let expected = format!("{} {:x}", after.len(), Sha256::digest(&after));
    let mut libbde = Command::new(&maker.python);
    libbde.arg(support::root().join("tests/judges/bitlocker/bdeview.py")).arg(&path);
    let seen = support::run(libbde.args(by_startup_key.then_some(&key_file)));
    assert_eq!(String::from_utf8(seen.stdout).unwrap().trim(), expected, "{what}: libbde");
    let Some(dislocker) = support::program("dislocker-file") else { return };
    let seen = maker.path("dislocker");
    // it replaces no file
    let _ = std::fs::remove_file(&seen);
    let mut command = Command::new(dislocker);
    command.arg("-V").arg(&path);
    if by_startup_key {
        command.arg("-f").arg(&key_file)
    } else {
        command.arg("-c")
    };
    support::run(command.arg("--").arg(&seen));
    assert!(std::fs::read(&seen).unwrap() == after, "{what}: dislocker");
}

/// Three volumes; with `WINJECT_CAMPAIGN=12` all ciphers with both sector sizes.
fn edits_are_those_of_the_plain_twin_and_read_by_dislocker_and_libbde() {
    let all = support::rounds(3, 3) >= 12;
    for sector in [512, 4096] {
        let Some(maker) = Maker::new(sector) else { return };
        let methods = match (all, sector) {
            (true, _) => &METHODS[..],
            (false, 512) => &METHODS[..2],
            (false, _) => &METHODS[2..3],
        };
        for (n, method) in methods.iter().enumerate() {
            check_edit(&maker, method, n % 2 == 0);
        }
    }
}

fn error_of(path: &Path, secrets: &[Secret]) -> winject::Error {
    let device = FileVolume::open(path);
    match Metadata::read(&device).and_then(|metadata| metadata.unlock(&device, secrets)) {
        Err(error) => error,
        Ok((unlocked, _)) => unlocked.write_refusal().unwrap_or_else(|| panic!("opens")),
    }
}

/// Every defect that the maker can make.
fn defects_are_refused_or_read_from_the_next_copy() {
    let Some(maker) = Maker::new(512) else { return };
    for (defect, lost) in [("crc0", 1), ("crc01", 2), ("sig0", 1)] {
        let device = FileVolume::open(&maker.make(&["--clear", "--break", defect]));
        let metadata = Metadata::read(&device).unwrap();
        assert_eq!(metadata.findings.len(), lost, "{defect}: {:?}", metadata.findings);
        assert!(open(&device, &[]).write_refusal().is_none(), "{defect}");
    }
    for (defect, words) in [
        ("stale0", "metadata differ"),
        ("all-crc", "wrong checksum"),
        ("hash", "were altered"),
        ("fvek-mac", "sealed key of its sectors is damaged"),
        ("offsets", "out of bounds"),
        ("version3", "version 3"),
        ("method 0x8006", "cipher 0x8006 is not known"),
        ("method 0x8005", "key of its sectors is one of another cipher"),
    ] {
        let path = maker.make(&["--clear", "--break", defect]);
        let before = std::fs::read(&path).unwrap();
        let error = error_of(&path, &[]);
        assert!(error.to_string().contains(words), "{defect}: {error}");
        assert!(std::fs::read(&path).unwrap() == before, "{defect}: written");
    }
}

/// Every state: what may be read shows the plain twin's used clusters; none but the first is written.
fn states_are_read_or_refused() {
    let Some(maker) = Maker::new(512) else { return };
    let half = (SIZE / 2).to_string();
    for (state, expected, words) in [
        ("encrypted", State::Encrypted, ""),
        ("decrypting", State::Paused, "paused at 12582912 of 25165824 bytes"),
        ("encrypting", State::Paused, "paused at 12582912 of 25165824 bytes"),
        ("paused", State::Paused, "paused at 12582912 of 25165824 bytes"),
        ("dirty", State::Interrupted, "was interrupted"),
        ("eow", State::EncryptOnWrite, "still running"),
    ] {
        // the free clusters, too: the view is the twin in every byte
        let path = maker.make(&["--clear", "--all", "--state", state, "--bytes", &half]);
        let device = FileVolume::open(&path);
        let metadata = Metadata::read(&device).unwrap();
        assert_eq!(metadata.state, expected, "{state}");
        if metadata.read_refusal().is_some() {
            let error = error_of(&path, &[]);
            assert!(error.kind() == Kind::Refused && error.to_string().contains(words), "{state}: {error}");
            continue;
        }
        let unlocked = open(&device, &[]);
        let view = contents(&Plain { device: FileVolume::open(&path), unlocked: &unlocked });
        assert!(view == std::fs::read(maker.path("plain")).unwrap(), "{state}: another view than the plain twin");
        match unlocked.write_refusal() {
            None => assert_eq!(state, "encrypted"),
            Some(error) => {
                assert!(!words.is_empty() && error.to_string().contains(words), "{state}: {error}");
                let mut target = FileVolume::open(&path);
                assert!(unlocked.write(&mut target, VolumeOffset(1 << 20), &[1; 512]).is_err());
                assert!(contents(&device) == contents(&target), "{state}: written");
            }
        }
    }
}

/// Protectors that no file opens, a password that is not ASCII, and two of a kind.
fn protectors_are_named_and_opened() {
    let Some(maker) = Maker::new(512) else { return };
    let path = maker.make(&["--tpm", "--tpm-pin", "--smart-card"]);
    let error = error_of(&path, &[]);
    for name in ["TPM (key ID", "TPM and PIN (key ID", "smart card or certificate (key ID"] {
        assert!(error.to_string().contains(name), "{error}");
    }
    let recovery = "616319-601744-502117-534017-367994-176748-607299-663201";
    let path = maker.make(&["--tpm", "--password", "first", "--password", "pässwörd £𝄞", "--recovery", recovery]);
    let device = FileVolume::open(&path);
    open(&device, &[Secret::password("pässwörd £𝄞\n").unwrap()]);
    open(&device, &[Secret::password("wrong").unwrap(), Secret::recovery_password(recovery).unwrap()]);
    let error = error_of(&path, &[Secret::password("passwörd £𝄞").unwrap()]);
    assert!(error.to_string().contains("does not open it"), "{error}");
    assert!(!error.to_string().contains('£'), "{error}");
}

tests![
    edits_are_those_of_the_plain_twin_and_read_by_dislocker_and_libbde,
    defects_are_refused_or_read_from_the_next_copy,
    states_are_read_or_refused,
    protectors_are_named_and_opened,
];
