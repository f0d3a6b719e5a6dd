//! The kinds of qcow2 that qemu-img makes, crossed with each other: converted by us, edited in place by us, and judged by
//! qemu-img each time. Every commit takes a sample of the cells; `WINJECT_CAMPAIGN` takes them all.

use winject::internals::block::commit::{self, CommitOptions};
use winject::internals::block::convert::{Compression, ConvertOptions, convert};
use winject::internals::block::{Format, formats::qcow2};

use super::*;

const SIZE: usize = (3 << 20) + 512;

/// One cell.
#[derive(Debug, Clone, Copy)]
struct Cell {
    is_v2: bool,
    cluster: u32,
    refcount_bits: u32,
    compression: &'static str,
    is_extended: bool,
    backing: &'static str,
    has_snapshot: bool,
    preallocation: &'static str,
}

impl Cell {
    /// Whether qemu-img makes such images at all, and the refcounts have room for what is asked.
    fn is_possible(&self) -> bool {
        let is_plain = self.compression.is_empty() && self.backing.is_empty();
        let only_v3 = self.is_extended || self.refcount_bits != 16 || self.compression == "zstd";
        // A snapshot doubles the references; small compressed clusters share a host cluster by the hundred.
        let bits_needed = match (self.compression.is_empty(), self.has_snapshot) {
            (true, false) => 1,
            (true, true) => 2,
            (false, false) => 1,
            (false, true) => 16,
        };
        (is_plain || self.preallocation == "off")
            && !(self.is_v2 && only_v3)
            && !(self.is_extended && self.cluster < 16 << 10)
            && self.refcount_bits >= bits_needed
    }

    fn options(&self) -> String {
        let mut options = format!("compat={},cluster_size={}", if self.is_v2 { "0.10" } else { "1.1" }, self.cluster);
        if !self.is_v2 {
            options += &format!(",refcount_bits={}", self.refcount_bits);
        }
        if !self.compression.is_empty() && !self.is_v2 {
            options += &format!(",compression_type={}", self.compression);
        }
        if self.is_extended {
            options += ",extended_l2=on";
        }
        if self.preallocation != "off" {
            options += &format!(",preallocation={}", self.preallocation);
        }
        options
    }
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for is_v2 in [true, false] {
        for cluster in [512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 2 << 20] {
            for refcount_bits in [1, 2, 4, 8, 16, 32, 64] {
                for compression in ["", "zlib", "zstd"] {
                    for is_extended in [false, true] {
                        for backing in ["", "raw", "qcow2"] {
                            for has_snapshot in [false, true] {
                                for preallocation in ["off", "metadata", "falloc", "full"] {
                                    cells.push(Cell {
                                        is_v2,
                                        cluster,
                                        refcount_bits,
                                        compression,
                                        is_extended,
                                        backing,
                                        has_snapshot,
                                        preallocation,
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    cells.retain(Cell::is_possible);
    cells
}

/// Makes the image `top.qcow2`, whose disk is `source.raw`, and what it needs.
fn make(folder: &Path, cell: &Cell, source: &[u8]) {
    let options = cell.options();
    let compress = if cell.compression.is_empty() { "" } else { "-c" };
    let backing = if cell.backing.is_empty() {
        String::new()
    } else {
        // The parent has the disk's content in every other megabyte, and something else in the rest.
        let mut base = source.to_vec();
        base.chunks_mut(1 << 20).step_by(2).for_each(|chunk| chunk.reverse());
        write_file(folder, "base.data", &base);
        qemu_img(folder, &format!("convert -f raw -O {} base.data base", cell.backing));
        format!("-B base -F {}", cell.backing)
    };
    qemu_img(folder, &format!("convert -f raw -O qcow2 {compress} {backing} -o {options} source.raw top.qcow2"));
    if cell.has_snapshot {
        qemu_img(folder, "snapshot -c before top.qcow2");
    }
}

/// Our conversions of it hold the same disk.
fn converted(folder: &Path, number: usize) {
    let kinds = [
        (Format::Raw, None),
        (Format::Qcow2, None),
        (Format::Qcow2, Some(Compression::Zlib)),
        (Format::Qcow2, Some(Compression::Zstd)),
    ];
    let out = folder.join("out");
    for (format, compression) in [kinds[0], kinds[1 + number % 3]] {
        let options = ConvertOptions { format, compression, overwrite: true, ..ConvertOptions::default() };
        convert(&*open(&folder.join("top.qcow2")), &out, &options).unwrap();
        qemu_img(folder, &format!("compare -f {} -F raw out source.raw", format.name()));
        if format == Format::Qcow2 {
            assert_clean(&out);
        }
    }
}

/// Two edits in place: content, structure, snapshot and parent as they must be.
fn edited(folder: &Path, cell: &Cell, random: &mut Random) {
    let file = folder.join("top.qcow2");
    let mut model = std::fs::read(folder.join("source.raw")).unwrap();
    let parent = (!cell.backing.is_empty()).then(|| std::fs::read(folder.join("base")).unwrap());
    for round in 0..2 {
        let mut stage = stage(&file);
        scribble(&mut stage, &mut model, random, 8);
        commit::commit_in_place(&mut stage, &file, &CommitOptions::default())
            .unwrap_or_else(|e| panic!("{round}: {e}"));
        drop(stage);
        assert_clean(&file);
        let report = qcow2::check(&file, &OpenOptions::default()).unwrap();
        assert!(report.is_clean(), "{:?}", report.problems);
        write_file(folder, "model.raw", &model);
        qemu_img(folder, "compare -f qcow2 -F raw top.qcow2 model.raw");
    }
    if cell.has_snapshot {
        qemu_img(folder, "convert -l snapshot.name=before -f qcow2 -O raw top.qcow2 snapshot.raw");
        qemu_img(folder, "compare -f raw -F raw snapshot.raw source.raw");
    }
    if let Some(parent) = parent {
        assert_equal(&std::fs::read(folder.join("base")).unwrap(), &parent, "the parent");
    }
}

fn every_kind_is_converted_and_edited() {
    if !has_qemu() {
        return;
    }
    let all = cells();
    let is_campaign = std::env::var_os("WINJECT_CAMPAIGN").is_some();
    // A stride that shares no factor with the lengths of the axes meets all their values.
    let stride = if is_campaign { 1 } else { (all.len() / 24) | 1 };
    let (mut made, mut snapshots, mut parents) = (0, 0, 0);
    for (number, cell) in all.iter().enumerate().step_by(stride) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        println!("{number} of {}: {cell:?}", all.len());
        let source = mixed(SIZE, number as u64);
        write_file(path, "source.raw", &source);
        make(path, cell, &source);
        converted(path, number);
        edited(path, cell, &mut Random::new(number as u64));
        made += 1;
        snapshots += usize::from(cell.has_snapshot);
        parents += usize::from(!cell.backing.is_empty());
    }
    println!("{made} of {} kinds, {snapshots} with a snapshot, {parents} with a parent", all.len());
    assert!(made >= 20 && snapshots >= 4 && parents >= 4, "the sample misses an axis");
}

tests![every_kind_is_converted_and_edited,];
