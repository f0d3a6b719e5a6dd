//! The log, the dirty flag and hibernation, on a volume: refusals, overrides, and what a second run meets.

use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::field::Field;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::attribute::AttributeType;
use winject::internals::ntfs::check::{CheckOptions, Code, check};
use winject::internals::ntfs::fixup;
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Replay, Volume};

use super::surgeon::{Surgeon, fixture};

fn options() -> OpenOptions {
    OpenOptions::new(FileTime(132_000_000_000_000_000))
}

/// Puts a restart page of this state twice into the log.
pub fn with_log(bytes: Vec<u8>, version: (u16, u16), flags: u16) -> Vec<u8> {
    let mut surgeon = Surgeon::open(bytes);
    let (_, size, _) = surgeon.sizes(2, AttributeType::DATA, "");
    let mut page = vec![0; 4096];
    fixup::format(&mut page, *b"RSTR", 0x1E);
    for (at, value) in [(0x18, 0x30), (0x1A, version.1), (0x1C, version.0), (0x3C, 0), (0x3E, flags)] {
        Field::<u16>::at(at).set(&mut page, value);
    }
    Field::<u64>::at(0x48).set(&mut page, size);
    fixup::seal(&mut page).unwrap();
    let at = surgeon.stream_at(2, AttributeType::DATA, "", 0);
    for start in [at, at + 4096] {
        surgeon.bytes[start..start + 4096].copy_from_slice(&page);
    }
    surgeon.bytes
}

fn with_hiberfil(content: &[u8]) -> Vec<u8> {
    let mut volume = Volume::open(MemoryVolume(fixture()), &options()).unwrap();
    volume.create_file(FileId::ROOT, "hiberfil.sys", content, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    volume.into_device().0
}

fn refusal(bytes: &[u8], options: &OpenOptions) -> String {
    let error = Volume::open(MemoryVolume(bytes.to_vec()), options).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    format!("{error} HINT {}", error.hint_text().unwrap())
}

fn clean_logs_are_left_alone() {
    let bytes = with_log(fixture(), (1, 1), 2);
    let mut volume = Volume::open(MemoryVolume(bytes.clone()), &options()).unwrap();
    volume.create_file(FileId::ROOT, "new", b"x", &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    let after = volume.into_device();
    let at = Surgeon::open(bytes.clone()).stream_at(2, AttributeType::DATA, "", 0);
    assert!(after.0[at..at + 8192] == bytes[at..at + 8192]);
    assert!(check(&after, &CheckOptions::default()).unwrap().is_clean());
}

fn refusals_in_words() {
    for (bytes, words) in [
        (with_log(fixture(), (1, 1), 0), ["unclean", "--discard-ntfs-log"]),
        (with_log(fixture(), (2, 0), 2), ["2.0", "Fast Startup"]),
        (with_hiberfil(&[b"HIBR".as_slice(), &[0; 8000]].concat()), ["hibernated", "--discard-hibernation"]),
        (with_hiberfil(b"short"), ["hibernated", "shutdown /s /t 0"]),
    ] {
        let text = refusal(&bytes, &options());
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(Volume::open(MemoryVolume(bytes), &OpenOptions::read_only()).is_ok());
    }
    assert!(Volume::open(MemoryVolume(with_hiberfil(&[0; 8192])), &options()).is_ok());
}

/// Edits under an override; afterwards the dirty flag is the only thing that is left to say.
fn edit_with(bytes: Vec<u8>, forced: &OpenOptions) {
    let mut volume = Volume::open(MemoryVolume(bytes), forced).unwrap();
    volume.create_file(FileId::ROOT, "new", b"x", &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    let after = volume.into_device();
    let report = check(&after, &CheckOptions::default()).unwrap();
    assert_eq!((report.errors, report.has(Code::DirtyFlag)), (1, true), "{report}");
    let text = refusal(&after.0, &options());
    assert!(text.contains("dirty") && text.contains("--allow-dirty") && text.contains("--discard-ntfs-log"), "{text}");
    let allowed = OpenOptions { allow_dirty: true, ..options() };
    assert!(Volume::open(after, &allowed).is_ok());
}

fn overrides_set_the_dirty_flag() {
    edit_with(with_log(fixture(), (1, 1), 0), &OpenOptions { discard_log: true, ..options() });
    edit_with(with_log(fixture(), (2, 0), 0), &OpenOptions { discard_log: true, ..options() });
    let hibernated = with_log(with_hiberfil(&[b"HIBR".as_slice(), &[0; 8000]].concat()), (2, 0), 0);
    assert!(refusal(&hibernated, &OpenOptions { discard_log: true, ..options() }).contains("hibernated"));
    // a log that cannot be replayed does not go with the session, unless it is not to be replayed
    let discard_session = OpenOptions { discard_hibernation: true, ..options() };
    let text = refusal(&hibernated, &discard_session);
    assert!(text.contains("cannot replay the log: ") && text.contains("--discard-ntfs-log"), "{text}");
    edit_with(hibernated.clone(), &OpenOptions { discard_log: true, ..discard_session.clone() });
    edit_with(hibernated, &OpenOptions { replay: Replay::Never, ..discard_session });
}

tests![clean_logs_are_left_alone, refusals_in_words, overrides_set_the_dirty_flag,];
