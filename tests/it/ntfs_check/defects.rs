//! One hand-made corruption per invariant: each must be reported, by us and by the foreign checker.

use std::process::Command;

use winject::internals::field::Field;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::attribute::{AttributeType as T, header as attribute, non_resident, resident};
use winject::internals::ntfs::attribute_list::layout as list;
use winject::internals::ntfs::check::{CheckOptions, CheckReport, Code, Severity, check};
use winject::internals::ntfs::file_name::layout as name;
use winject::internals::ntfs::fixup;
use winject::internals::ntfs::index::{entry, node, root};
use winject::internals::ntfs::record::header;
use winject::internals::ntfs::security::Protected;
use winject::internals::ntfs::standard_information::layout as information;
use winject::internals::ntfs::{CreateOptions, FileId, Volume};

use super::surgeon::{Surgeon, fixture};
use crate::support::{judge, program};

fn run(bytes: Vec<u8>) -> (CheckReport, Vec<u8>) {
    let volume = MemoryVolume(bytes);
    let report = check(&volume, &CheckOptions::default()).unwrap();
    (report, volume.0)
}

fn the_fixture_is_sound() {
    let (report, _) = run(fixture());
    assert!(report.is_clean() && report.faults.is_empty(), "{report}");
    assert!(report.stats.entries > 400 && report.stats.index_blocks > 10, "{:?}", report.stats);
}

/// Whether the foreign checker sees it too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    Sees,
    /// It does not look at this, or calls it minor.
    Blind,
}
use Judge::{Blind, Sees};

struct Defect {
    title: &'static str,
    code: Code,
    judge: Judge,
    make: fn(&mut Surgeon),
}

macro_rules! defects {
    ($($code:ident $judge:ident $title:literal: |$s:ident| $make:expr;)*) => {
        const DEFECTS: &[Defect] = &[$(Defect {
            title: $title,
            code: Code::$code,
            judge: $judge,
            make: |$s: &mut Surgeon| { $make; },
        },)*];
    };
}

const I30: &str = "$I30";

/// A directory of several index blocks.
fn big(s: &Surgeon) -> u64 {
    s.named("big")
}
/// A plain file with one name and non-resident data.
fn plain(s: &Surgeon) -> u64 {
    s.named("SYSTEM")
}
/// A file with an attribute list.
fn listed(s: &Surgeon) -> u64 {
    s.find(|r| r.find(T::ATTRIBUTE_LIST, "").is_some())
}
/// An extension record.
fn extension(s: &Surgeon) -> u64 {
    s.find(|r| r.base().is_some())
}
/// A leaf of the big directory.
fn leaf(s: &Surgeon) -> u64 {
    let leaves = s.blocks(big(s), I30);
    *leaves.iter().find(|&&v| !s.block(big(s), I30, v).node().unwrap().has_children()).unwrap()
}
fn in_leaf(s: &mut Surgeon, change: impl FnOnce(&mut [u8], &[usize])) {
    let (dir, vcn) = (big(s), leaf(s));
    let entries = s.entries(dir, I30, vcn);
    s.patch_block(dir, I30, vcn, |b| change(b, &entries));
}
fn boot(s: &mut Surgeon, change: impl Fn(&mut [u8])) {
    let backup = usize::try_from(s.geometry.total_sectors).unwrap() * 512;
    change(&mut s.bytes[..512]);
    change(&mut s.bytes[backup..backup + 512]);
}
fn swap_entries(b: &mut [u8], first: usize) {
    let a = usize::from(entry::LENGTH.get(&b[first..]));
    let c = usize::from(entry::LENGTH.get(&b[first + a..]));
    b[first..first + a + c].rotate_left(a);
}
fn sds(s: &Surgeon, offset: u64) -> usize {
    s.stream_at(9, T::DATA, "$SDS", offset)
}
fn list_value(s: &mut Surgeon, change: impl FnOnce(&mut [u8])) {
    let number = listed(s);
    if s.is_resident(number, T::ATTRIBUTE_LIST, "") {
        s.value(number, T::ATTRIBUTE_LIST, "", change);
    } else {
        let (_, length, _) = s.sizes(number, T::ATTRIBUTE_LIST, "");
        let at = s.stream_at(number, T::ATTRIBUTE_LIST, "", 0);
        let length = usize::try_from(length).unwrap();
        change(&mut s.bytes[at..at + length]);
    }
}
fn restart_page(flags: u16, version: (u16, u16), file_size: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    fixup::format(&mut page, *b"RSTR", 0x1E);
    for (at, value) in [(0x18, 0x30), (0x1A, version.1), (0x1C, version.0), (0x3C, 0), (0x3E, flags)] {
        Field::<u16>::at(at).set(&mut page, value);
    }
    Field::<u64>::at(0x48).set(&mut page, file_size);
    fixup::seal(&mut page).unwrap();
    page
}
fn log(s: &mut Surgeon, page: &[u8]) {
    let at = s.stream_at(2, T::DATA, "", 0);
    s.bytes[at..at + 4096].copy_from_slice(page);
    s.bytes[at + 4096..at + 8192].copy_from_slice(page);
}
fn log_size(s: &Surgeon) -> u64 {
    s.sizes(2, T::DATA, "").1
}
/// Moves all runs of a file's data so that it begins at `lcn`.
fn move_data(s: &mut Surgeon, number: u64, lcn: u64) {
    let at = s.record(number).attributes().find(|(_, a)| a.kind() == T::DATA && a.is_named("")).unwrap().0;
    s.patch(number, |b| {
        let pairs = at + usize::from(non_resident::PAIRS_OFFSET.get(&b[at..]));
        let (length, delta) = (usize::from(b[pairs] & 15), usize::from(b[pairs] >> 4));
        b[pairs + 1 + length..pairs + 1 + length + delta].copy_from_slice(&lcn.to_le_bytes()[..delta]);
    });
}

/// A record of the change journal (USN_RECORD_V2).
fn usn_record(usn: u64) -> Vec<u8> {
    let name: Vec<u8> = format!("changed file {usn}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut bytes = vec![0; (0x3C + name.len()).next_multiple_of(8)];
    Field::<u32>::at(0).set(&mut bytes, (0x3C + name.len()).next_multiple_of(8) as u32);
    Field::<u16>::at(4).set(&mut bytes, 2);
    Field::<u64>::at(8).set(&mut bytes, 40 | 1 << 48);
    Field::<u64>::at(16).set(&mut bytes, 5 | 5 << 48);
    Field::<u64>::at(24).set(&mut bytes, usn);
    Field::<u64>::at(32).set(&mut bytes, 132_000_000_000_000_000);
    Field::<u32>::at(40).set(&mut bytes, 0x100);
    Field::<u16>::at(56).set(&mut bytes, name.len() as u16);
    Field::<u16>::at(58).set(&mut bytes, 0x3C);
    bytes[0x3C..0x3C + name.len()].copy_from_slice(&name);
    bytes
}

/// Adds a change journal of three pages and gives its record.
fn journal(s: &mut Surgeon) -> u64 {
    let mut records = Vec::new();
    while records.len() < 3 * 4096 - 200 {
        let next = usn_record(records.len() as u64);
        if records.len() % 4096 + next.len() > 4096 {
            records.resize(records.len().next_multiple_of(4096), 0);
            continue;
        }
        records.extend(next);
    }
    let mut max = vec![0; 32];
    for (at, value) in [(0, 0x200_0000), (8, 0x80_0000), (16, 132_000_000_000_000_000), (24, 0)] {
        Field::<u64>::at(at).set(&mut max, value);
    }
    s.edit(|v| {
        let file = v.create_file(FileId::ROOT, "$UsnJrnl", b"", &CreateOptions::default())?;
        v.write_stream(file, "$J", &records)?;
        v.write_stream(file, "$Max", &max)
    });
    s.move_name("$UsnJrnl", 5, 11);
    let number = s.named("$UsnJrnl");
    s.set(number, header::FLAGS, 5);
    number
}
fn journal_limits(s: &mut Surgeon, change: impl FnOnce(&mut [u8])) {
    let n = journal(s);
    s.value(n, T::DATA, "$Max", change);
}
fn journal_record(s: &mut Surgeon, change: impl FnOnce(&mut [u8])) {
    let n = journal(s);
    let at = s.stream_at(n, T::DATA, "$J", 0);
    // the second record
    let first = Field::<u32>::at(0).get(&s.bytes[at..]) as usize;
    change(&mut s.bytes[at + first..at + 4096]);
}

fn a_change_journal_is_no_fault() {
    let mut surgeon = Surgeon::open(fixture());
    journal(&mut surgeon);
    let (report, bytes) = run(surgeon.bytes);
    assert!(report.is_clean() && report.faults.is_empty(), "{report}");
    let (Some(python), Some(judge)) = (program("python3"), judge("ntfscheck.py")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    std::fs::write(&path, &bytes).unwrap();
    let output = Command::new(&python).arg(&judge).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

defects! {
    BootSector Sees "backup boot sector": |s| { let at = s.bytes.len() - 512 + 0x48; s.bytes[at] ^= 1 };
    BootSector Sees "total sectors beyond the device": |s| boot(s, |b| Field::<u64>::at(0x28).set(b, 1 << 20));
    BootSector Sees "boot sector without end mark": |s| boot(s, |b| b[510] = 0);
    MftLocation Sees "mirror elsewhere": |s| boot(s, |b| { let f = Field::<u64>::at(0x38); f.set(b, f.get(b) + 1) });
    MftLocation Sees "record 0 torn": |s| { let at = s.record_at(0); s.bytes[at + 510] ^= 1 };
    SystemTables Sees "upper-case table": |s| { let at = s.stream_at(10, T::DATA, "", 2 * 0x61); s.bytes[at] = 0x61 };
    SystemTables Blind "attribute definitions": |s| { let at = s.stream_at(4, T::DATA, "", 0x80); s.bytes[at + 2] = 1 };
    Log Sees "log not closed": |s| { let page = restart_page(0, (1, 1), log_size(s)); log(s, &page) };
    Log Blind "log in format 2.0": |s| { let page = restart_page(2, (2, 0), log_size(s)); log(s, &page) };
    Log Blind "log of another size": |s| { let page = restart_page(2, (1, 1), 4096); log(s, &page) };
    VolumeVersion Blind "version 3.0": |s| s.value(3, T::VOLUME_INFORMATION, "", |v| v[9] = 0);

    RecordFixup Sees "torn record": |s| { let at = s.record_at(plain(s)); s.bytes[at + 1022] ^= 0xFF };
    RecordFixup Sees "record marked BAAD": |s| { let at = s.record_at(plain(s)); s.bytes[at..at + 4].copy_from_slice(b"BAAD") };
    RecordFixup Sees "record without signature": |s| { let at = s.record_at(plain(s)); s.bytes[at] = b'X' };
    RecordHeader Sees "used size": |s| { let n = plain(s); let f = header::USED; let v = f.get(s.record(n).bytes()); s.set(n, f, v + 8) };
    RecordHeader Sees "allocated size of the record": |s| { let n = plain(s); s.set(n, header::ALLOCATED, 2048) };
    RecordHeader Sees "first attribute": |s| { let n = plain(s); s.set(n, header::FIRST_ATTRIBUTE, 0x30) };
    RecordNumber Sees "record number": |s| { let n = plain(s); s.set(n, header::NUMBER, 5) };
    SequenceNumber Sees "sequence 0": |s| { let n = plain(s); s.set(n, header::SEQUENCE, 0) };
    RecordFlags Sees "directory flag missing": |s| { let n = big(s); s.set(n, header::FLAGS, 1) };
    RecordFlags Sees "directory flag on a file": |s| { let n = plain(s); s.set(n, header::FLAGS, 3) };
    RecordFlags Blind "view flag on a file": |s| { let n = plain(s); s.set(n, header::FLAGS, 9) };
    AttributeForm Sees "attribute length": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), attribute::LENGTH, 0x1001) };
    AttributeForm Sees "unknown type": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), attribute::TYPE, 0x88) };
    AttributeForm Blind "standard information too short": |s| { let n = plain(s); s.set_attribute((n, T::STANDARD_INFORMATION, ""), resident::VALUE_LENGTH, 0x28) };
    AttributeOrder Sees "attribute order": |s| { let n = plain(s); s.set_attribute((n, T::STANDARD_INFORMATION, ""), attribute::TYPE, 0x50) };
    AttributeInstance Sees "instance twice": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), attribute::INSTANCE, 0) };
    AttributeInstance Sees "instance beyond the next": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), attribute::INSTANCE, 99) };
    ResidentValue Sees "value outside": |s| { let n = plain(s); s.set_attribute((n, T::STANDARD_INFORMATION, ""), resident::VALUE_LENGTH, 0x70) };
    ResidentValue Sees "name not indexed": |s| { let n = plain(s); s.set_attribute((n, T::FILE_NAME, ""), resident::INDEXED, 0) };
    MappingPairs Sees "highest VCN": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), non_resident::HIGHEST_VCN, 99) };
    MappingPairs Sees "run outside the volume": |s| { let n = plain(s); move_data(s, n, 2557) };
    StreamSizes Sees "allocated size": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), non_resident::ALLOCATED, 0x10000) };
    StreamSizes Sees "data size": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), non_resident::DATA_SIZE, 0x10_0000) };
    StreamSizes Sees "initialized size": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), non_resident::INITIALIZED, 0x7FFF) };
    StreamSizes Sees "total allocated size": |s| { let n = s.named("file"); s.set_attribute((n, T::DATA, ""), non_resident::TOTAL_ALLOCATED, 4096) };
    CrossLinkedClusters Sees "cross link": |s| { let n = plain(s); let other = s.runs(s.named("SOFTWARE"), T::DATA, "").runs()[0].lcn.unwrap().0; move_data(s, n, other) };
    AttributeList Sees "list entry's instance": |s| list_value(s, |v| list::INSTANCE.set(v, 77));
    AttributeList Sees "list entry's sequence": |s| list_value(s, |v| { let r = list::RECORD.get(v); list::RECORD.set(v, r + (1 << 48)) });
    AttributeList Sees "list entry's length": |s| list_value(s, |v| list::LENGTH.set(v, 0x1C));
    AttributeList Blind "list entry's name offset": |s| list_value(s, |v| list::NAME_OFFSET.set(v, 0x20));
    ExtensionRecord Sees "base of an extension record": |s| { let (n, base) = (extension(s), plain(s)); let raw = base | u64::from(s.sequence(base)) << 48; s.set(n, header::BASE, raw) };
    ExtensionRecord Sees "extension record without a base record": |s| { let n = extension(s); s.set(n, header::BASE, 0xFFFF) };
    RequiredAttributes Sees "no standard information": |s| { let n = plain(s); s.set_attribute((n, T::STANDARD_INFORMATION, ""), attribute::TYPE, 0x40) };
    RequiredAttributes Sees "no data": |s| { let n = plain(s); s.set_attribute((n, T::DATA, ""), attribute::TYPE, 0xB0) };
    AttributeList Sees "extents with a gap": |s| { let n = scattered_file(s);
        let at = s.record(n).attributes().find(|(_, a)| !a.is_resident() && a.lowest_vcn().0 > 0).unwrap().0;
        s.patch(n, |b| for f in [non_resident::LOWEST_VCN, non_resident::HIGHEST_VCN] { let v = f.get(&b[at..]); f.set(&mut b[at..], v + 1) }) };
    RequiredAttributes Sees "no name": |s| { let n = plain(s); s.set_attribute((n, T::FILE_NAME, ""), attribute::TYPE, 0x40) };
    RequiredAttributes Sees "extended attributes without their sizes": |s| { let n = s.named("with id"); s.set_attribute((n, T::OBJECT_ID, ""), attribute::TYPE, 0xE0) };
    LinkCount Sees "link count": |s| { let n = plain(s); s.set(n, header::LINKS, 2) };
    LinkCount Sees "link count of an extension record": |s| { let n = extension(s); s.set(n, header::LINKS, 1) };
    SystemFile Sees "sequence of a system file": |s| s.set(6, header::SEQUENCE, 7);
    SystemFile Sees "name of a system file": |s| s.value(6, T::FILE_NAME, "", |v| v[name::NAME + 2] = b'X');

    IndexRoot Sees "collation": |s| { let n = big(s); s.value(n, T::INDEX_ROOT, I30, |v| root::COLLATION.set(v, 0x10)) };
    IndexRoot Sees "index block size": |s| { let n = big(s); s.value(n, T::INDEX_ROOT, I30, |v| root::BLOCK_SIZE.set(v, 8192)) };
    IndexRoot Sees "clusters per index block": |s| { let n = big(s); s.value(n, T::INDEX_ROOT, I30, |v| root::UNITS_PER_BLOCK.set(v, 8)) };
    IndexNode Sees "entry length": |s| in_leaf(s, |b, e| { let f = entry::LENGTH; let v = f.get(&b[e[0]..]); f.set(&mut b[e[0]..], v + 4) });
    IndexNode Sees "node's used size": |s| in_leaf(s, |b, _| { let n = &mut b[0x18..]; let v = node::USED.get(n); node::USED.set(n, v + 8) });
    IndexNode Sees "node's allocated size": |s| in_leaf(s, |b, _| node::ALLOCATED.set(&mut b[0x18..], 0x800));
    IndexNode Sees "key length": |s| in_leaf(s, |b, e| { let f = entry::KEY_LENGTH; let v = f.get(&b[e[0]..]); f.set(&mut b[e[0]..], v - 2) });
    IndexBlock Sees "index block's signature": |s| { let at = s.raw_block(big(s), I30, leaf(s)); s.bytes[at] = b'X' };
    IndexBlock Sees "torn index block": |s| { let at = s.raw_block(big(s), I30, leaf(s)); s.bytes[at + 1022] ^= 0xFF };
    IndexBlock Sees "index block's number": |s| in_leaf(s, |b, _| Field::<u64>::at(0x10).set(b, 99));
    IndexChildPointer Sees "child flag": |s| in_leaf(s, |b, e| entry::FLAGS.set(&mut b[e[1]..], 1));
    IndexChildPointer Sees "child outside": |s| { let n = big(s); s.value(n, T::INDEX_ROOT, I30, |v| { let at = v.len() - 8; v[at..].copy_from_slice(&9999u64.to_le_bytes()) }) };
    IndexChildPointer Sees "child twice": |s| { let n = big(s); let v = leaf(s); s.value(n, T::INDEX_ROOT, I30, |b| { let at = b.len() - 8; b[at..].copy_from_slice(&v.to_le_bytes()) }) };
    IndexOrder Sees "entries swapped": |s| in_leaf(s, |b, e| swap_entries(b, e[2]));
    DuplicateKey Sees "key twice": |s| in_leaf(s, |b, e| { let n = e[3] - e[2]; b.copy_within(e[2]..e[2] + n, e[3]) });
    IndexBitmap Sees "index bitmap: bit cleared": |s| { let n = big(s); s.flip(n, T::BITMAP, I30, 0) };
    IndexBitmap Sees "index bitmap: bit set": |s| { let n = big(s); s.flip(n, T::BITMAP, I30, 63) };
    DanglingEntry Sees "stale sequence in an entry": |s| in_leaf(s, |b, e| b[e[0] + 6] ^= 0x40);
    DanglingEntry Sees "entry of a free record": |s| in_leaf(s, |b, e| b[e[0]..e[0] + 8].copy_from_slice(&[18, 0, 0, 0, 0, 0, 1, 0]));
    EntryName Sees "namespace in an entry": |s| in_leaf(s, |b, e| b[e[0] + entry::KEY + 0x41] ^= 1);
    EntryName Sees "parent in an entry": |s| in_leaf(s, |b, e| b[e[0] + entry::KEY + 6] ^= 1);
    EntryName Sees "directory bit in an entry": |s| in_leaf(s, |b, e| b[e[0] + entry::KEY + 0x3B] ^= 0x10);
    OrphanName Sees "entry missing": |s| { let (n, v) = (big(s), leaf(s)); let at = s.entries(n, I30, v)[3]; s.remove_entry(n, I30, v, at) };
    OrphanName Sees "name in the record changed": |s| { let n = plain(s); s.value(n, T::FILE_NAME, "", |v| v[name::NAME] = b'X') };
    FileNameForm Sees "long name without a short one": |s| { let n = plain(s); s.value(n, T::FILE_NAME, "", |v| v[0x41] = 1) };
    FileNameForm Sees "forbidden character": |s| { let n = plain(s); s.value(n, T::FILE_NAME, "", |v| v[name::NAME] = b'/') };
    FileNameForm Sees "no 8.3 name": |s| { let n = s.named("ALONGN~1.TEX");
        let at = s.record(n).attributes().find(|(_, a)| a.value().is_some_and(|v| v.get(0x41) == Some(&2))).unwrap().0; s.patch(n, |b| b[at + 0x18 + name::NAME] = b' ') };
    Reachability Sees "directory without an entry": |s| { let (vcn, at) = s.entry_of(5, "packed"); s.remove_entry(5, I30, vcn, at) };
    Reachability Sees "directories in a circle": |s| { s.edit(|v| v.create_dir_all("/loop/inner", &CreateOptions::default())); let inner = s.named("inner"); s.move_name("loop", 5, inner) };
    DuplicatedInformation Blind "stale times": |s| in_leaf(s, |b, e| b[e[0] + entry::KEY + 0x10] ^= 1);
    ExtendIndexes Sees "reparse point not indexed": |s| { let n = s.named("with id"); s.set_attribute((n, T::OBJECT_ID, ""), attribute::TYPE, 0xC0) };
    ExtendIndexes Sees "object id not indexed": |s| { let n = s.named("with id"); s.value(n, T::OBJECT_ID, "", |v| v[0] ^= 1) };

    SecurityDescriptor Sees "descriptor changed": |s| { for o in [0, 0x4_0000] { let at = sds(s, o + 0x18); s.bytes[at] ^= 1 } };
    SecurityDescriptor Sees "id in a descriptor's header": |s| { for o in [0, 0x4_0000] { let at = sds(s, o + 4); s.bytes[at] ^= 0x40 } };
    SecurityMirror Sees "descriptor's copy": |s| { let at = sds(s, 0x4_0020); s.bytes[at] ^= 1 };
    SecurityIndexes Sees "offset in $SII": |s| secure_entry(s, "$SII", 0x14 + 8);
    SecurityIndexes Sees "hash in $SDH": |s| secure_entry(s, "$SDH", entry::KEY);
    SecurityId Sees "security id": |s| { let n = plain(s); s.value(n, T::STANDARD_INFORMATION, "", |v| { if v.len() > 0x34 { information::SECURITY.set(v, 0x7777) } }) };
    UnusedDescriptor Blind "descriptor that no file uses": |s| s.edit(|v| v.protected_security(Protected::Top).map(|_| ()));
    ChangeJournal Blind "journal without a largest size": |s| journal_limits(s, |v| v[..8].fill(0));
    ChangeJournal Blind "journal's first USN beyond its end": |s| journal_limits(s, |v| v[26] = 1);
    ChangeJournal Blind "journal's limits cut short": |s| { let n = journal(s); s.set_attribute((n, T::DATA, "$Max"), resident::VALUE_LENGTH, 24) };
    ChangeJournal Blind "journal record's length": |s| journal_record(s, |r| r[0] += 1);
    ChangeJournal Blind "journal record's version": |s| journal_record(s, |r| r[4] = 9);
    ChangeJournal Blind "journal record's USN": |s| journal_record(s, |r| r[24] ^= 8);
    ChangeJournal Blind "journal record's name": |s| journal_record(s, |r| r[57] = 1);
    ChangeJournal Blind "journal record over the page's end": |s| journal_record(s, |r| r[..4].copy_from_slice(&4096u32.to_le_bytes()));
    MftBitmap Sees "record bit cleared": |s| { let n = plain(s); s.flip(0, T::BITMAP, "", n) };
    MftBitmap Sees "record bit set": |s| s.flip(0, T::BITMAP, "", 20);
    ClusterBitmap Sees "cluster bit cleared": |s| { let lcn = s.runs(plain(s), T::DATA, "").runs()[0].lcn.unwrap().0; s.flip(6, T::DATA, "", lcn) };
    ClusterBitmap Sees "cluster bit set": |s| s.flip(6, T::DATA, "", 2500);
    BadClustersAndMirror Sees "mirror": |s| { let at = usize::try_from(s.geometry.mirror.0 * 4096).unwrap(); s.bytes[at + 0x60] ^= 1 };
    BadClustersAndMirror Sees "size of $BadClus": |s| s.set_attribute((8, T::DATA, "$Bad"), non_resident::DATA_SIZE, 4096);
    QuotaIndexes Blind "owner without a quota": |s| { let n = s.find(|r| r.find(T::INDEX_ROOT, "$Q").is_some()); s.value(n, T::INDEX_ROOT, "$O", |v| { let data = usize::from(entry::DATA_OFFSET.get(&v[0x20..])); v[0x20 + data] ^= 0x40 }) };
    DirtyFlag Sees "dirty flag": |s| s.value(3, T::VOLUME_INFORMATION, "", |v| v[10] |= 1);
}

fn secure_entry(s: &mut Surgeon, index: &str, at: usize) {
    match s.blocks(9, index).first() {
        Some(&vcn) => {
            let first = s.entries(9, index, vcn)[0];
            s.patch_block(9, index, vcn, |b| b[first + at] ^= 1);
        }
        None => s.value(9, T::INDEX_ROOT, index, |v| v[0x20 + at] ^= 1),
    }
}

fn each_defect_is_reported() {
    let base = fixture();
    let mut missed = Vec::new();
    for defect in DEFECTS {
        let mut surgeon = Surgeon::open(base.clone());
        (defect.make)(&mut surgeon);
        assert!(surgeon.bytes != base, "{}: nothing was changed", defect.title);
        let (report, _) = run(surgeon.bytes);
        // a breach of a minor invariant is reported, and the volume stays sound
        if !report.has(defect.code) || report.is_clean() != (defect.code.severity() == Severity::Minor) {
            missed.push(format!("{} \"{}\":\n{report}", defect.code, defect.title));
        }
    }
    assert!(missed.is_empty(), "{} of {}:\n{}", missed.len(), DEFECTS.len(), missed.join("\n"));
}

fn every_code_has_a_defect() {
    let without: Vec<_> = Code::ALL.iter().filter(|code| DEFECTS.iter().all(|d| d.code != **code)).collect();
    assert!(without.is_empty(), "no hand-made corruption for {without:?}");
    println!("{} defects for {} codes", DEFECTS.len(), Code::ALL.len());
}

/// Takes all free space in files of one cluster, and frees every second one.
fn scatter(v: &mut Volume<MemoryVolume>) -> winject::Result<FileId> {
    let dir = v.create_dir_all("/scattered", &CreateOptions::default())?;
    let mut count = 0;
    while v.create_file(dir, &format!("filler {count}"), &[7; 4096], &CreateOptions::default()).is_ok() {
        count += 1;
    }
    for n in (0..count).step_by(2) {
        v.delete(&format!("/scattered/filler {n}"))?;
    }
    v.forget_freed()?;
    Ok(dir)
}

/// An extension record that holds a later extent of a file.
fn scattered_file(s: &mut Surgeon) -> u64 {
    s.edit(|v| {
        let dir = scatter(v)?;
        // all of the pieces but for a few, which the records need
        let size = v.free_space()? as usize - 16 * 4096;
        v.create_file(dir, "in pieces", &vec![8; size], &CreateOptions::default())
    });
    s.find(|r| r.base().is_some() && r.attributes().any(|(_, a)| !a.is_resident() && a.lowest_vcn().0 > 0))
}

/// A volume whose free space is in single clusters, so that `$MFT` had to grow into an attribute list.
fn scattered_mft() -> Surgeon {
    let mut s = Surgeon::open(fixture());
    s.edit(|v| {
        let dir = scatter(v)?;
        let mut made = 0;
        while made < 5000
            && v.create_file(dir, &format!("small {made}"), b"resident", &CreateOptions::default()).is_ok()
        {
            made += 1;
        }
        Ok(())
    });
    s
}

fn damage_to_the_attribute_list_of_the_master_file_table() {
    let base = scattered_mft();
    assert!(base.record(0).find(T::ATTRIBUTE_LIST, "").is_some(), "the fixture's $MFT has no attribute list");
    let (report, bytes) = run(base.bytes);
    assert!(report.is_clean(), "{report}");
    let base = Surgeon::open(bytes);
    let extension = base.find(|r| r.base().is_some_and(|b| b.record.0 == 0) && r.find(T::DATA, "").is_some());
    let listed = |s: &mut Surgeon, change: &dyn Fn(&mut [u8])| {
        let record = s.record(0);
        let list = record.find(T::ATTRIBUTE_LIST, "").unwrap();
        if list.is_resident() {
            return s.value(0, T::ATTRIBUTE_LIST, "", |v| change(v));
        }
        let (at, length) = (s.stream_at(0, T::ATTRIBUTE_LIST, "", 0), list.data_size() as usize);
        change(&mut s.bytes[at..at + length]);
    };
    let data_entry = |v: &mut [u8]| {
        let mut at = 0;
        while list::TYPE.get(&v[at..]) != T::DATA.0 || list::LOWEST_VCN.get(&v[at..]) == 0 {
            at += usize::from(list::LENGTH.get(&v[at..]));
        }
        at
    };
    type Make<'a> = &'a dyn Fn(&mut Surgeon);
    let defects: [(&str, Code, Make<'_>); 7] = [
        ("sequence in the list", Code::AttributeList, &|s| {
            listed(s, &|v| {
                let at = data_entry(v);
                let raw = list::RECORD.get(&v[at..]);
                list::RECORD.set(&mut v[at..], raw + (1 << 48));
            })
        }),
        ("name offset in the list", Code::AttributeList, &|s| {
            listed(s, &|v| {
                let at = data_entry(v);
                list::NAME_OFFSET.set(&mut v[at..], 0)
            })
        }),
        ("record without an extent", Code::MftLocation, &|s| {
            listed(s, &|v| {
                let at = data_entry(v);
                list::RECORD.set(&mut v[at..], 30 | 1 << 48);
            })
        }),
        ("an extent twice", Code::MftLocation, &|s| {
            listed(s, &|v| {
                let at = data_entry(v);
                list::LOWEST_VCN.set(&mut v[at..], 1);
            })
        }),
        ("extent elsewhere", Code::MftLocation, &|s| {
            s.set_attribute_in(extension, T::DATA, non_resident::LOWEST_VCN, 1 << 20);
        }),
        ("extension without a base record", Code::ExtensionRecord, &|s| s.set(extension, header::BASE, 0xFFFF)),
        ("extension not in use", Code::MftBitmap, &|s| s.set(extension, header::FLAGS, 0)),
    ];
    for (title, code, make) in defects {
        let mut s = Surgeon::open(base.bytes.clone());
        make(&mut s);
        assert!(s.bytes != base.bytes, "{title}: nothing was changed");
        let (report, _) = run(s.bytes);
        assert!(report.has(code) && !report.is_clean(), "{title}: no {code}:\n{report}");
    }
}

fn stale_copies_are_minor() {
    let mut surgeon = Surgeon::open(fixture());
    in_leaf(&mut surgeon, |b, e| b[e[0] + entry::KEY + 0x10] ^= 1);
    let (report, _) = run(surgeon.bytes);
    assert!(report.has(Code::DuplicatedInformation) && report.is_clean(), "{report}");
    assert!(report.faults[0].to_string().starts_with("minor[C13]: /big (record "), "{report}");
}

fn a_fault_names_path_offset_expected_and_found() {
    let mut surgeon = Surgeon::open(fixture());
    let number = plain(&surgeon);
    surgeon.set(number, header::LINKS, 7);
    let at = surgeon.record_at(number);
    let (report, _) = run(surgeon.bytes);
    let expected = format!(
        "error[B16]: /Windows/System32/config/SYSTEM (record {number}, at {at:#x}): the link count is not the number of \
         names: expected 1, found 7"
    );
    assert_eq!(report.faults[0].to_string(), expected);
}

fn the_foreign_checker_objects_too() {
    let (Some(python), Some(judge)) = (program("python3"), judge("ntfscheck.py")) else { return };
    let base = fixture();
    let folder = tempfile::tempdir().unwrap();
    let mut missed = Vec::new();
    for defect in DEFECTS.iter().filter(|d| d.judge == Sees) {
        let mut surgeon = Surgeon::open(base.clone());
        (defect.make)(&mut surgeon);
        let path = folder.path().join("volume");
        std::fs::write(&path, &surgeon.bytes).unwrap();
        let output = Command::new(&python).arg(&judge).arg(&path).output().unwrap();
        if output.status.code() != Some(1) {
            missed.push(format!("{} \"{}\": {}", defect.code, defect.title, String::from_utf8_lossy(&output.stdout)));
        }
    }
    assert!(missed.is_empty(), "{} are not seen by the foreign checker:\n{}", missed.len(), missed.join("\n"));
}

tests![
    the_fixture_is_sound,
    a_change_journal_is_no_fault,
    each_defect_is_reported,
    every_code_has_a_defect,
    damage_to_the_attribute_list_of_the_master_file_table,
    stale_copies_are_minor,
    a_fault_names_path_offset_expected_and_found,
    the_foreign_checker_objects_too,
];
