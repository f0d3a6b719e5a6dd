//! Broken and hostile containers. Whatever the bytes are: an error or some content, never a panic, a hang or memory
//! without bound.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use winject::internals::block::{Format, HostRun, OpenOptions, Storage, open_storage};
use winject::internals::units::ImageOffset;

use super::craft::{Grain, Vhdx, cowd, put32, put64, seal};
use super::{Random, disk, open_error, qemu_img};
use crate::support::{program, rounds};

/// A file in memory, shared between mutants; each has a few bytes of its own. Counts what is read from it.
#[derive(Debug)]
struct Mutant {
    base: Arc<Vec<u8>>,
    /// Replaced ranges, later ones win.
    patches: Vec<(u64, Vec<u8>)>,
    length: u64,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Mutant {
    fn bytes_at(&self, at: u64, length: usize) -> Vec<u8> {
        let mut buf = vec![0; length];
        self.fill(at, &mut buf);
        buf
    }

    fn fill(&self, offset: u64, buf: &mut [u8]) -> usize {
        let count = (self.length.saturating_sub(offset) as usize).min(buf.len());
        if count == 0 {
            return 0;
        }
        let start = offset as usize;
        buf[..count].copy_from_slice(&self.base[start..start + count]);
        for (at, bytes) in &self.patches {
            let from = (*at).max(offset);
            let to = (at + bytes.len() as u64).min(offset + count as u64);
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        count
    }
}

impl Storage for Mutant {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let count = self.fill(offset, buf);
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }
    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        Ok(HostRun { length: self.length.saturating_sub(offset), is_data: true })
    }
    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        panic!("a reader writes")
    }
    fn flush(&self) -> io::Result<()> {
        panic!("a reader flushes")
    }
    fn set_len(&self, _length: u64) -> io::Result<()> {
        panic!("a reader resizes")
    }
    fn reserve(&self, _offset: u64, _length: u64) -> io::Result<()> {
        panic!("a reader reserves")
    }
    fn punch(&self, _offset: u64, _length: u64) -> io::Result<()> {
        panic!("a reader punches")
    }
}

/// A container to break: its bytes, where its metadata are, and where its checksums have to be made right again.
struct Subject {
    name: &'static str,
    format: Format,
    bytes: Arc<Vec<u8>>,
    metadata: Vec<std::ops::Range<u64>>,
    seals: Vec<Seal>,
}

#[derive(Clone, Copy)]
enum Seal {
    /// CRC-32C at byte 4 of the structure.
    Vhdx { at: u64, length: usize },
    /// Sum of bytes at `field` of the structure.
    Vhd { at: u64, length: usize, field: usize },
}

impl Seal {
    fn apply(self, mutant: &mut Mutant) {
        let (at, length) = match self {
            Self::Vhdx { at, length } | Self::Vhd { at, length, .. } => (at, length),
        };
        if at + length as u64 > mutant.length {
            return;
        }
        let mut bytes = mutant.bytes_at(at, length);
        match self {
            Self::Vhdx { .. } => {
                seal(&mut bytes);
                mutant.patches.push((at + 4, bytes[4..8].to_vec()));
            }
            Self::Vhd { field, .. } => {
                bytes[field..field + 4].fill(0);
                let sum = !bytes.iter().fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
                mutant.patches.push((at + field as u64, sum.to_be_bytes().to_vec()));
            }
        }
    }
}

impl Subject {
    fn new(
        name: &'static str,
        format: Format,
        bytes: Vec<u8>,
        metadata: &[std::ops::Range<u64>],
        seals: &[Seal],
    ) -> Self {
        Self { name, format, bytes: Arc::new(bytes), metadata: metadata.to_vec(), seals: seals.to_vec() }
    }

    fn mutant(&self, random: &mut Random) -> Mutant {
        let mut mutant = Mutant {
            base: Arc::clone(&self.bytes),
            patches: Vec::new(),
            length: self.bytes.len() as u64,
            reads: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        if random.below(20) == 0 {
            mutant.length = random.below(mutant.length + 1);
        }
        for _ in 0..=random.below(4) {
            let range = &self.metadata[random.below(self.metadata.len() as u64) as usize];
            let at = range.start + random.below(range.end - range.start);
            let (at, bytes) = mutation(at, self.bytes.len() as u64, self.bytes[at as usize], random);
            if at + bytes.len() as u64 <= self.bytes.len() as u64 {
                mutant.patches.push((at, bytes));
            }
        }
        if random.below(8) != 0 {
            for seal in &self.seals {
                seal.apply(&mut mutant);
            }
        }
        mutant
    }
}

/// A changed byte, or a field of 2, 4 or 8 bytes with a value that likes to break things.
fn mutation(at: u64, length: u64, old: u8, random: &mut Random) -> (u64, Vec<u8>) {
    let odd =
        [0, 1, 2, 0x7F, 0xFF, 0x200, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 32, 1 << 55, u64::MAX, u64::MAX - 511];
    let value = match random.below(4) {
        0 => odd[random.below(odd.len() as u64) as usize],
        1 => (length / 512 + random.below(5)).wrapping_sub(2),
        2 => length.wrapping_add(random.below(4096)).wrapping_sub(2048),
        _ => random.next() >> random.below(64),
    };
    match random.below(6) {
        0 => (at, vec![random.next() as u8]),
        1 => (at, vec![old ^ (1 << random.below(8))]),
        2 => (at & !1, (value as u16).to_le_bytes().to_vec()),
        3 => (at & !3, (value as u32).to_le_bytes().to_vec()),
        4 => (at & !7, value.to_be_bytes().to_vec()),
        _ => (at & !7, value.to_le_bytes().to_vec()),
    }
}

/// Opens the mutant and reads here and there; says whether it opened.
fn exercise(mutant: Mutant, format: Format, random: &mut Random) -> bool {
    let options = OpenOptions::default();
    let storage = Arc::new(mutant);
    let opened = open_storage(Arc::clone(&storage) as Arc<dyn Storage>, Path::new("mutant"), Some(format), &options);
    let mut is_open = false;
    if let Ok(image) = opened {
        is_open = true;
        let mut buf = vec![0; 9000];
        let size = image.len();
        for _ in 0..6 {
            let at = random.below(size);
            let length = (random.below(buf.len() as u64)).min(size - at.min(size)) as usize;
            let _ = image.read_at(ImageOffset(at), &mut buf[..length]);
        }
        let mut at = 0;
        for _ in 0..12 {
            if at >= size {
                break;
            }
            let Ok(extent) = image.extent_at(ImageOffset(at), size - at) else { break };
            assert!(extent.length > 0 && extent.length <= size - at, "an extent of impossible length");
            at += extent.length;
        }
        assert!(image.read_at(ImageOffset(size), &mut buf[..1]).is_err());
        assert!(image.read_at(ImageOffset(u64::MAX), &mut buf[..1]).is_err());
    }
    // A hang would show here: the work is bounded whatever the tables say.
    let (reads, bytes) = (storage.reads.load(Ordering::Relaxed), storage.bytes.load(Ordering::Relaxed));
    assert!(reads < 20_000 && bytes < 64 << 20, "{reads} reads, {bytes} bytes");
    is_open
}

fn campaign(subject: &Subject, count: u64) {
    let mut opened = 0;
    for seed in 0..count {
        let mut random = Random(seed.wrapping_mul(0x1_0000_0001) ^ subject.name.len() as u64);
        let mutant = subject.mutant(&mut random);
        let described = format!("{} seed {seed}: {:?} length {}", subject.name, mutant.patches, mutant.length);
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exercise(mutant, subject.format, &mut random)));
        match result {
            Ok(is_open) => opened += u64::from(is_open),
            Err(_) => panic!("{described}"),
        }
    }
    println!("{}: {count} mutants, {opened} opened", subject.name);
    assert!(opened * 50 > count, "{}: hardly any mutant opens, so hardly anything is tested", subject.name);
}

/// What qemu-img writes, in the smallest useful size.
fn by_qemu(format: &str, options: &str, size: usize) -> Option<Vec<u8>> {
    program("qemu-img")?;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("source.raw"), disk(size, 5)).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", format, "-o", options, &at("source.raw"), &at("out")]);
    Some(std::fs::read(at("out")).unwrap())
}

/// A stream-optimised VMDK that has to be read by its markers: the footer is gone, the mark of the directory is there.
pub fn without_footer(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    put64(&mut file, 56, u64::MAX);
    file.resize(file.len().next_multiple_of(512), 0);
    // QEMU, which has its directory in front, ends with an end mark alone.
    while file.ends_with(&[0; 512]) {
        file.truncate(file.len() - 512);
    }
    // The directory's marker (one sector of it follows), then the end of the stream.
    let mut marker = [0; 512];
    marker[0] = 1;
    marker[12] = 2;
    file.extend(marker);
    file.extend([0; 1024]);
    file
}

fn vmdk_sparse() {
    let Some(bytes) = by_qemu("vmdk", "subformat=monolithicSparse", 1 << 20) else { return };
    let subject = Subject::new(
        "sparse VMDK",
        Format::Vmdk,
        bytes,
        &[0..512, 0..80, 512..2048, 10_752..12_800, 21 * 512..24 * 512],
        &[],
    );
    campaign(&subject, rounds(4_000, 13_000));
}

fn vmdk_stream() {
    let Some(bytes) = by_qemu("vmdk", "subformat=streamOptimized", 1 << 20) else { return };
    let data = u64::from(u32::from_le_bytes(bytes[64..68].try_into().unwrap())) * 512;
    let walked = without_footer(&bytes);
    let length = bytes.len() as u64;
    let subject = Subject::new(
        "stream VMDK",
        Format::Vmdk,
        bytes,
        &[0..80, 512..1200, 10_752..12_800, data..data + 64, data..length],
        &[],
    );
    campaign(&subject, rounds(3_000, 8_000));
    let length = walked.len() as u64;
    let subject = Subject::new("walked VMDK", Format::Vmdk, walked, &[0..80, data..data + 64, data..length], &[]);
    campaign(&subject, rounds(3_000, 8_000));
}

fn vmdk_cowd() {
    let grains =
        (0..64).map(|i| (i * 3, if i % 5 == 0 { Grain::Zero } else { Grain::Data(vec![i as u8; 512]) })).collect();
    let bytes = cowd(8192, 1, true, &grains);
    let subject = Subject::new("COWD", Format::Vmdk, bytes, &[0..40, 2048..2560, 2560..3400], &[]);
    campaign(&subject, rounds(3_000, 8_000));
}

fn vmdk_descriptor() {
    let text = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=12345678\nparentCID=ffffffff\n\
        createType=\"custom\"\nRW 2048 ZERO\nRDONLY 16 ZERO\nNOACCESS 8 FLAT \"x\" 0\nRW 100 ZERO \"\"\n";
    let bytes = text.as_bytes().to_vec();
    let length = bytes.len() as u64;
    let subject = Subject::new("VMDK descriptor", Format::Vmdk, bytes, std::slice::from_ref(&(0..length)), &[]);
    campaign(&subject, rounds(3_000, 7_000));
}

fn vhd_dynamic() {
    let Some(bytes) = by_qemu("vpc", "subformat=dynamic,force_size=on", 5 << 20) else { return };
    let end = bytes.len() as u64 - 512;
    let seals = [
        Seal::Vhd { at: 0, length: 512, field: 64 },
        Seal::Vhd { at: 512, length: 1024, field: 36 },
        Seal::Vhd { at: end, length: 512, field: 64 },
    ];
    let metadata = [0..85, 512..600, 512 + 576..512 + 768, 1536..1536 + 32, end..end + 85];
    campaign(&Subject::new("dynamic VHD", Format::Vhd, bytes, &metadata, &seals), rounds(4_000, 10_000));
}

fn vhd_fixed() {
    let Some(bytes) = by_qemu("vpc", "subformat=fixed", 1 << 20) else { return };
    let end = bytes.len() as u64 - 512;
    let seals = [Seal::Vhd { at: end, length: 512, field: 64 }];
    campaign(&Subject::new("fixed VHD", Format::Vhd, bytes, &[end..end + 85, 446..520], &seals), rounds(2_000, 3_000));
}

fn vdi() {
    let Some(bytes) = by_qemu("vdi", "static=off", 5 << 20) else { return };
    campaign(
        &Subject::new("VDI", Format::Vdi, bytes, &[64..84, 340..400, 440..460, 512..560], &[]),
        rounds(3_000, 7_000),
    );
}

const VHDX_SEALS: [Seal; 4] = [
    Seal::Vhdx { at: 64 << 10, length: 4096 },
    Seal::Vhdx { at: 128 << 10, length: 4096 },
    Seal::Vhdx { at: 192 << 10, length: 65_536 },
    Seal::Vhdx { at: 256 << 10, length: 65_536 },
];

fn small_vhdx() -> Vec<u8> {
    let blocks = [(0, vec![1; 1 << 20]), (5, vec![2; 1 << 20])].into_iter().collect();
    Vhdx { virtual_size: 8 << 20, sector: 512, block_size: 1 << 20, blocks, parent: None }.build()
}

fn vhdx() {
    let k = 1u64 << 10;
    let metadata = [
        64 * k..64 * k + 80,
        128 * k..128 * k + 80,
        192 * k..192 * k + 80,
        256 * k..256 * k + 80,
        2048 * k..2048 * k + 192,
        2112 * k..2112 * k + 60,
        3072 * k..3072 * k + 64,
    ];
    campaign(&Subject::new("VHDX", Format::Vhdx, small_vhdx(), &metadata, &VHDX_SEALS), rounds(3_000, 7_000));
}

fn vhdx_log() {
    let (bytes, range) = crate::formats::vhdx_log::for_mutation(small_vhdx());
    let seals =
        [VHDX_SEALS[0], VHDX_SEALS[1], Seal::Vhdx { at: range.start, length: (range.end - range.start) as usize }];
    let metadata = [range.start..range.start + 160, range.clone(), 65_536 + 48..65_536 + 80, 3 << 20..(3 << 20) + 64];
    campaign(&Subject::new("VHDX log", Format::Vhdx, bytes, &metadata, &seals), rounds(1_000, 2_000));
}

/// A grain that unpacks to far more than a grain.
fn a_bomb_in_a_grain_is_cut_short() {
    let Some(mut file) = by_qemu("vmdk", "subformat=streamOptimized", 1 << 20) else { return };
    let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![0; 64 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 120_000);
    let at = file.len().next_multiple_of(512);
    file.resize(at + 12, 0);
    put32(&mut file, at + 8, bomb.len() as u32);
    file.extend(bomb);
    file.resize(file.len().next_multiple_of(512), 0);
    // The first entry of the first grain table points at the bomb.
    let directory = u32::from_le_bytes(file[56..60].try_into().unwrap()) as usize * 512;
    let table = u32::from_le_bytes(file[directory..directory + 4].try_into().unwrap()) as usize * 512;
    put32(&mut file, table, (at / 512) as u32);
    let storage = Arc::new(winject::internals::block::MemoryStorage::new(file));
    let options = OpenOptions::default();
    let image = open_storage(storage, Path::new("bomb"), None, &options).unwrap();
    for length in [65_536, 512] {
        let error = image.read_at(ImageOffset(0), &mut vec![0; length]).unwrap_err();
        assert_eq!(error.kind(), winject::Kind::Damaged, "{error}");
    }
}

/// Counts that would need terabytes of tables are refused by arithmetic, not by running out of memory.
fn huge_tables_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge");
    let mut header = vec![0; 65_536];
    header[..4].copy_from_slice(b"KDMV");
    put32(&mut header, 4, 1);
    put64(&mut header, 12, u64::MAX / 512);
    put64(&mut header, 20, 1);
    put32(&mut header, 44, 1);
    put64(&mut header, 56, 21);
    std::fs::write(&path, &header).unwrap();
    assert_eq!(open_error(&path).kind(), winject::Kind::Damaged);

    let mut vdi = vec![0; 65_536];
    for (at, value) in [
        (64, 0xBEDA_107F),
        (68, 0x1_0001),
        (72, 400),
        (76, 1),
        (340, 512),
        (344, 1024),
        (360, 512),
        (376, 1 << 20),
        (384, u32::MAX),
    ] {
        put32(&mut vdi, at, value);
    }
    put64(&mut vdi, 368, 1 << 40);
    std::fs::write(&path, &vdi).unwrap();
    assert_eq!(open_error(&path).kind(), winject::Kind::Damaged);

    let text = format!("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW {} ZERO\n", u64::MAX);
    std::fs::write(&path, text).unwrap();
    assert_eq!(open_error(&path).kind(), winject::Kind::Damaged);
}

tests![
    vmdk_sparse,
    vmdk_stream,
    vmdk_cowd,
    vmdk_descriptor,
    vhd_dynamic,
    vhd_fixed,
    vdi,
    vhdx,
    vhdx_log,
    a_bomb_in_a_grain_is_cut_short,
    huge_tables_are_refused,
];
