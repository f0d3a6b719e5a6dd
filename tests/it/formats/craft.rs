//! Containers that no program at hand writes, built byte by byte: COWD, seSparse, VHDX with 4096-byte sectors
//! or with a parent.

use std::collections::BTreeMap;

/// Sets little-endian numbers.
pub fn put32(buf: &mut [u8], at: usize, value: u32) {
    buf[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub fn put64(buf: &mut [u8], at: usize, value: u64) {
    buf[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// What a grain of a sparse extent is.
#[derive(Debug, Clone)]
pub enum Grain {
    Zero,
    Data(Vec<u8>),
}

/// A VMFS sparse ("COWD") extent of `capacity` sectors.
pub fn cowd(capacity: u32, grain_sectors: u32, root: bool, grains: &BTreeMap<u64, Grain>) -> Vec<u8> {
    const ENTRIES: u64 = 4096;
    let grain_bytes = grain_sectors as usize * 512;
    let tables = u64::from(capacity).div_ceil(u64::from(grain_sectors) * ENTRIES);
    let directory_sectors = (tables * 4).div_ceil(512);
    let mut file = vec![0; 2048 + directory_sectors as usize * 512];
    file[..4].copy_from_slice(b"COWD");
    for (at, value) in
        [(4, 1), (8, 2 | u32::from(root)), (12, capacity), (16, grain_sectors), (20, 4), (24, tables as u32)]
    {
        put32(&mut file, at, value);
    }
    let mut table_at = BTreeMap::new();
    for number in grains.keys() {
        table_at.entry(number / ENTRIES).or_insert_with(|| {
            let at = file.len();
            file.resize(at + ENTRIES as usize * 4, 0);
            at
        });
    }
    for (table, at) in &table_at {
        put32(&mut file, 2048 + *table as usize * 4, (*at / 512) as u32);
    }
    for (number, grain) in grains {
        let slot = table_at[&(number / ENTRIES)] + (number % ENTRIES) as usize * 4;
        match grain {
            Grain::Zero => put32(&mut file, slot, 1),
            Grain::Data(data) => {
                let at = (file.len() / 512) as u32;
                put32(&mut file, slot, at);
                file.extend(data);
                file.resize((at as usize * 512) + grain_bytes, 0);
            }
        }
    }
    let end = (file.len() / 512) as u32;
    put32(&mut file, 28, end);
    file
}

/// An seSparse extent of `capacity` sectors, grains of 4096 bytes.
pub fn sesparse(capacity: u64, grains: &BTreeMap<u64, Grain>) -> Vec<u8> {
    const ENTRIES: u64 = 4096;
    let tables = capacity.div_ceil(8 * ENTRIES);
    let directory_sectors = (tables * 8).div_ceil(512).next_multiple_of(8);
    let used: Vec<u64> = {
        let mut used: Vec<u64> = grains.keys().map(|g| g / ENTRIES).collect();
        used.dedup();
        used
    };
    let (volatile, journal, directory) = (1u64, 8u64, 16u64);
    let tables_at = directory + directory_sectors;
    let table_sectors = used.len().max(1) as u64 * 64;
    let grains_at = (tables_at + table_sectors).next_multiple_of(8);
    let mut file = vec![0; grains_at as usize * 512];
    let header = [
        0xCAFE_BABE,
        0x2_0000_0001,
        capacity,
        8,
        64,
        0,
        0,
        0,
        0,
        0,
        volatile,
        1,
        journal,
        4,
        journal,
        4,
        directory,
        directory_sectors,
        tables_at,
        table_sectors,
        0,
        0,
        0,
        0,
        grains_at,
        0,
    ];
    for (i, value) in header.into_iter().enumerate() {
        put64(&mut file, i * 8, value);
    }
    put64(&mut file, volatile as usize * 512, 0xCAFE_CAFE);
    for (i, table) in used.iter().enumerate() {
        put64(&mut file, directory as usize * 512 + *table as usize * 8, 0x1000_0000 << 32 | i as u64);
    }
    let mut next = 0u64;
    for (number, grain) in grains {
        let table = used.iter().position(|t| *t == number / ENTRIES).unwrap();
        let slot = tables_at as usize * 512 + table * 32_768 + (number % ENTRIES) as usize * 8;
        match grain {
            Grain::Zero => put64(&mut file, slot, if number % 2 == 0 { 2 } else { 1 } << 60),
            Grain::Data(data) => {
                put64(&mut file, slot, 3 << 60 | (next & 0xFFF) << 48 | next >> 12);
                file.extend(data);
                next += 1;
                file.resize((grains_at + next * 8) as usize * 512, 0);
            }
        }
    }
    file
}

/// The pieces of a small VHDX.
pub struct Vhdx {
    pub virtual_size: u64,
    pub sector: u32,
    pub block_size: u32,
    /// Present payload blocks.
    pub blocks: BTreeMap<u64, Vec<u8>>,
    /// Of a differencing disk: the file name of its parent, and that one's `DataWriteGuid`.
    pub parent: Option<(String, [u8; 16])>,
}

const MIB: usize = 1 << 20;

fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&a.to_le_bytes());
    out[4..6].copy_from_slice(&b.to_le_bytes());
    out[6..8].copy_from_slice(&c.to_le_bytes());
    out[8..].copy_from_slice(&d);
    out
}

/// Puts the right CRC-32C at byte 4 of a structure.
pub fn seal(structure: &mut [u8]) {
    put32(structure, 4, 0);
    let crc = crc32c::crc32c(structure);
    put32(structure, 4, crc);
}

impl Vhdx {
    /// File layout: headers, log at 1 MiB, metadata at 2, BAT at 3, blocks from 4 on.
    pub fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 4 * MIB];
        file[..8].copy_from_slice(b"vhdxfile");
        for (i, at) in [64 << 10, 128 << 10].into_iter().enumerate() {
            let header = &mut file[at..at + 4096];
            header[..4].copy_from_slice(b"head");
            put64(header, 8, i as u64 + 7);
            header[32..48].copy_from_slice(&[0x5A; 16]);
            header[66] = 1;
            put32(header, 68, MIB as u32);
            put64(header, 72, MIB as u64);
            seal(header);
        }
        for at in [192 << 10, 256 << 10] {
            let table = &mut file[at..at + 65_536];
            table[..4].copy_from_slice(b"regi");
            put32(table, 8, 2);
            let bat = guid(0x2DC2_7766, 0xF623, 0x4200, [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08]);
            let metadata = guid(0x8B7C_A206, 0x4790, 0x4B9A, [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E]);
            for (i, (guid, offset)) in [(bat, 3 * MIB), (metadata, 2 * MIB)].into_iter().enumerate() {
                let entry = &mut table[16 + 32 * i..48 + 32 * i];
                entry[..16].copy_from_slice(&guid);
                put64(entry, 16, offset as u64);
                put32(entry, 24, MIB as u32);
                put32(entry, 28, 1);
            }
            seal(table);
        }
        self.metadata(&mut file[2 * MIB..3 * MIB]);
        let ratio = (u64::from(self.sector) << 23) / u64::from(self.block_size);
        for (block, data) in &self.blocks {
            let at = file.len();
            assert!(at.is_multiple_of(MIB) && data.len() == self.block_size as usize);
            put64(&mut file, 3 * MIB + (block + block / ratio) as usize * 8, at as u64 | 6);
            file.extend(data);
        }
        file
    }

    fn metadata(&self, region: &mut [u8]) {
        region[..8].copy_from_slice(b"metadata");
        let has_parent = u32::from(self.parent.is_some()) << 1;
        let mut items: Vec<([u8; 16], Vec<u8>)> = vec![
            (
                guid(0xCAA1_6737, 0xFA36, 0x4D43, [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B]),
                [self.block_size.to_le_bytes(), has_parent.to_le_bytes()].concat(),
            ),
            (
                guid(0x2FA5_4224, 0xCD1B, 0x4876, [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8]),
                self.virtual_size.to_le_bytes().to_vec(),
            ),
            (guid(0xBECA_12AB, 0xB2E6, 0x4523, [0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46]), vec![0x83; 16]),
            (
                guid(0x8141_BF1D, 0xA96F, 0x4709, [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F]),
                self.sector.to_le_bytes().to_vec(),
            ),
            (
                guid(0xCDA3_48C7, 0x445D, 0x4471, [0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56]),
                4096u32.to_le_bytes().to_vec(),
            ),
        ];
        if let Some((name, data_write)) = &self.parent {
            let item = guid(0xA8D3_5F2D, 0xB30B, 0x454D, [0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C]);
            items.push((item, locator(name, data_write)));
        }
        region[10] = items.len() as u8;
        let mut at = 65_536;
        for (i, (guid, value)) in items.into_iter().enumerate() {
            let entry = 32 + 32 * i;
            region[entry..entry + 16].copy_from_slice(&guid);
            put32(region, entry + 16, at as u32);
            put32(region, entry + 20, value.len() as u32);
            // The file parameters and the parent are of the file, the others of the disk.
            put32(region, entry + 24, if [0, 5].contains(&i) { 4 } else { 6 });
            region[at..at + value.len()].copy_from_slice(&value);
            at += value.len();
        }
    }
}

/// A parent locator: what parent it must be, and where it lies.
fn locator(name: &str, data_write: &[u8; 16]) -> Vec<u8> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let [mut a, mut b, mut c] = [0..4, 4..6, 6..8].map(|part| data_write[part].to_vec());
    [&mut a, &mut b, &mut c].into_iter().for_each(|number| number.reverse());
    let linkage =
        format!("{{{}-{}-{}-{}-{}}}", hex(&a), hex(&b), hex(&c), hex(&data_write[8..10]), hex(&data_write[10..]));
    let entries = [("parent_linkage", linkage), ("relative_path", format!(".\\{name}"))];
    let mut out = guid(0xB04A_EFB7, 0xD19E, 0x4A81, [0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59, 0x13]).to_vec();
    out.extend([0, 0, entries.len() as u8, 0]);
    let mut texts = Vec::new();
    let begin = out.len() + 12 * entries.len();
    for (key, value) in &entries {
        let [key, value] =
            [*key, value].map(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        let at = begin + texts.len();
        out.extend((at as u32).to_le_bytes());
        out.extend(((at + key.len()) as u32).to_le_bytes());
        out.extend((key.len() as u16).to_le_bytes());
        out.extend((value.len() as u16).to_le_bytes());
        texts.extend([key, value].concat());
    }
    out.extend(texts);
    out
}
