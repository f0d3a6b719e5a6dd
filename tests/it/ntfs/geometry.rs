//! The geometries that NTFS allows. mkntfs makes records of 4 KiB only with sectors of 4 KiB; Windows makes them on
//! sectors of 512 bytes too (`format /L`), with clusters of any size. Such volumes are made here from those of mkntfs:
//! every cluster is cut into several, so that run lists, bitmaps, VCNs and the boot sector count in the smaller unit.

use std::fs::File;
use std::os::unix::fs::FileExt;

use winject::internals::field::Field;
use winject::internals::ntfs::attribute::{
    Attribute, AttributeType as T, StreamSizes, build_non_resident, build_resident, header,
};
use winject::internals::ntfs::boot::Geometry;
use winject::internals::ntfs::index::root;
use winject::internals::ntfs::record::Record;
use winject::internals::ntfs::runlist::Runlist;
use winject::internals::ntfs::{Lcn, RecordNumber, Vcn};

use super::volume::{Shape, TestVolume};

/// Bytes of a record, an index block, and a sector of the volume that mkntfs makes.
const LARGE: u32 = 4096;

/// A geometry of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    pub shape: Shape,
    pub record: u32,
}

const fn matrix(size: u64, cluster: u32, sector: u32, record: u32) -> Matrix {
    Matrix { shape: Shape { size: size << 20, cluster, sector }, record }
}

/// Every legal pair of cluster and record size for sectors of 512 bytes, and those for sectors of 4 KiB (where neither
/// can be smaller than the sector).
pub const MATRIX: [Matrix; 15] = [
    matrix(24, 512, 512, 1024),
    matrix(24, 1024, 512, 1024),
    matrix(24, 2048, 512, 1024),
    matrix(32, 4096, 512, 1024),
    matrix(128, 65536, 512, 1024),
    matrix(1600, 2 << 20, 512, 1024),
    matrix(24, 512, 512, LARGE),
    matrix(24, 1024, 512, LARGE),
    matrix(24, 2048, 512, LARGE),
    matrix(32, 4096, 512, LARGE),
    matrix(128, 65536, 512, LARGE),
    matrix(1600, 2 << 20, 512, LARGE),
    matrix(32, 4096, 4096, LARGE),
    matrix(128, 65536, 4096, LARGE),
    matrix(1600, 2 << 20, 4096, LARGE),
];

impl Matrix {
    /// The judges that can look at it.
    pub fn judges(self) -> &'static str {
        match self.shape.cluster {
            65537.. => "ntfsfix,ntfs3g-read",
            // checkdisk looks for record 0 in the first four clusters of $MFT
            512 if self.record == LARGE => "ntfsresize,ntfsfix",
            _ => "checkdisk,ntfsresize,ntfsfix",
        }
    }

    /// A fresh volume; `None` after saying that mkntfs is not installed.
    pub fn make(self) -> Option<TestVolume> {
        let made = match (self.shape.sector, self.record) {
            (512, LARGE) => large_records(self.shape)?,
            _ => TestVolume::make(self.shape)?,
        };
        let mut boot = [0; 512];
        File::open(&made.path).unwrap().read_exact_at(&mut boot, 0).unwrap();
        let geometry = Geometry::parse(&boot).unwrap();
        let found = (geometry.sector_size, geometry.cluster_size, geometry.record_size);
        assert_eq!(found, (self.shape.sector, self.shape.cluster, self.record));
        Some(made)
    }
}

/// A volume with records of 4 KiB on sectors of 512 bytes.
fn large_records(shape: Shape) -> Option<TestVolume> {
    let test = TestVolume::make(Shape { cluster: shape.cluster.max(LARGE), sector: LARGE, ..shape })?;
    let file = File::options().read(true).write(true).open(&test.path).unwrap();
    if shape.cluster < LARGE {
        let mut bytes = std::fs::read(&test.path).unwrap();
        cut_clusters(&mut bytes, shape.cluster);
        std::fs::write(&test.path, bytes).unwrap();
    } else {
        let mut boot = vec![0; 512];
        file.read_exact_at(&mut boot, 0).unwrap();
        relabel(&mut boot, shape);
        file.write_all_at(&boot, 0).unwrap();
        file.write_all_at(&boot, shape.size - 512).unwrap();
    }
    Some(test)
}

/// Writes sizes and places into the boot sector of a volume with sectors (and perhaps clusters) of 4 KiB.
fn relabel(boot: &mut [u8], shape: Shape) {
    let old = Geometry::parse(boot).unwrap();
    let factor = u64::from(old.cluster_size / shape.cluster);
    let sectors = shape.cluster / 512;
    Field::<u16>::at(0x0B).set(boot, 512);
    boot[0x0D] = if sectors <= 128 { sectors as u8 } else { 0u8.wrapping_sub(sectors.trailing_zeros() as u8) };
    Field::<u64>::at(0x28).set(boot, shape.size / 512 - 1);
    Field::<u64>::at(0x30).set(boot, old.mft.0 * factor);
    Field::<u64>::at(0x38).set(boot, old.mirror.0 * factor);
    // whole clusters where they fit, else a power of two
    let code = if shape.cluster <= LARGE { (LARGE / shape.cluster) as u8 } else { 0xF4 };
    (boot[0x40], boot[0x44]) = (code, code);
}

/// Re-lays a fresh volume with clusters of 4 KiB for smaller ones. All of its content stays where it is, but for
/// `$Bitmap`, which grows.
fn cut_clusters(bytes: &mut [u8], cluster: u32) {
    let size = bytes.len() as u64;
    let old = Geometry::parse(&bytes[..512]).unwrap();
    let mut boot = bytes[..512].to_vec();
    relabel(&mut boot, Shape { size, cluster, sector: 512 });
    let new = Geometry::parse(&boot).unwrap();
    bytes[..512].copy_from_slice(&boot);
    let backup = bytes.len() - 512;
    bytes[backup..].copy_from_slice(&boot);

    let mut cut = Cut { old: &old, new: &new, owned: vec![false; new.cluster_count as usize], bitmap_lcn: 0 };
    let start = (old.mft.0 * u64::from(old.cluster_size)) as usize;
    let block = |number: usize| start + number * LARGE as usize..start + (number + 1) * LARGE as usize;
    let first = Record::parse(bytes[block(0)].to_vec()).unwrap();
    let data = first.find(T::DATA, "").unwrap();
    assert_eq!(data.runlist(old.cluster_count).unwrap().runs().len(), 1, "$MFT of a fresh volume is in one piece");
    let count = (data.data_size() / u64::from(LARGE)) as usize;
    // the longer bitmap goes where nothing else is
    for number in (0..count).filter(|&n| n as u64 != RecordNumber::BITMAP.0) {
        if let Ok(record) = Record::parse(bytes[block(number)].to_vec())
            && record.is_in_use()
        {
            record.attributes().for_each(|(_, a)| drop(cut.attribute(number as u64, &a)));
        }
    }
    cut.bitmap_lcn = cut.free_place(new.clusters_for(cut.bitmap_size()));
    for number in 0..count {
        let Ok(mut record) = Record::parse(bytes[block(number)].to_vec()) else { continue };
        if record.is_in_use() {
            let attributes: Vec<_> = record.attributes().map(|(_, a)| cut.attribute(number as u64, &a)).collect();
            record.set_attributes(attributes.iter().map(Vec::as_slice)).unwrap();
            bytes[block(number)].copy_from_slice(&record.seal().unwrap());
        }
    }
    let mirror = (old.mirror.0 * u64::from(old.cluster_size)) as usize;
    bytes.copy_within(start..start + 4 * LARGE as usize, mirror);
    let mut bitmap = vec![0u8; cut.bitmap_size() as usize];
    for bit in 0..bitmap.len() * 8 {
        let is_set = cut.owned.get(bit).is_none_or(|&owned| owned);
        bitmap[bit / 8] |= u8::from(is_set) << (bit % 8);
    }
    let at = (cut.bitmap_lcn * u64::from(cluster)) as usize;
    bytes[at..at + bitmap.len()].copy_from_slice(&bitmap);
}

struct Cut<'a> {
    old: &'a Geometry,
    new: &'a Geometry,
    owned: Vec<bool>,
    bitmap_lcn: u64,
}

impl Cut<'_> {
    /// How many new clusters an old one becomes.
    fn factor(&self) -> u64 {
        u64::from(self.old.cluster_size / self.new.cluster_size)
    }
    fn bitmap_size(&self) -> u64 {
        self.new.cluster_count.div_ceil(8).next_multiple_of(8)
    }
    /// The last place with room for `length` clusters.
    fn free_place(&self, length: u64) -> u64 {
        let length = length as usize;
        let is_free = |&at: &usize| self.owned[at..at + length].iter().all(|&owned| !owned);
        (0..=self.owned.len() - length).rev().find(is_free).expect("a fresh volume has room") as u64
    }

    /// One attribute as it is to be.
    fn attribute(&mut self, record: u64, a: &Attribute<'_>) -> Vec<u8> {
        let mut bytes = match a.value() {
            Some(value) if a.kind() == T::INDEX_ROOT => {
                let mut value = value.to_vec();
                root::UNITS_PER_BLOCK.set(&mut value, self.factor() as u8);
                build_resident(a.kind(), &a.name(), &value)
            }
            Some(_) => a.bytes().to_vec(),
            None => self.runs(record, a),
        };
        header::INSTANCE.set(&mut bytes, a.instance());
        bytes
    }

    fn runs(&mut self, record: u64, a: &Attribute<'_>) -> Vec<u8> {
        let mut runs = Runlist::starting_at(Vcn(0));
        let mut sizes = StreamSizes::of(a);
        if record == RecordNumber::BITMAP.0 && a.kind() == T::DATA {
            runs.push(Some(Lcn(self.bitmap_lcn)), self.new.clusters_for(self.bitmap_size()));
            sizes.data = self.bitmap_size();
            sizes.initialized = sizes.data;
            sizes.allocated = self.new.bytes_in(runs.end());
        } else if record == RecordNumber::BAD_CLUSTERS.0 {
            runs.push(None, self.new.cluster_count);
            sizes.data = self.new.bytes_in(self.new.cluster_count);
            sizes.allocated = sizes.data;
            sizes.initialized = sizes.initialized.min(sizes.data);
        } else {
            let old = a.runlist(self.old.cluster_count).unwrap();
            let is_index = a.kind() == T::INDEX_ALLOCATION;
            assert!(!is_index || old.end() == 1, "the first block has VCN 0 in every unit");
            for run in old.runs() {
                runs.push(run.lcn.map(|lcn| Lcn(lcn.0 * self.factor())), run.length * self.factor());
            }
        }
        for (lcn, length) in runs.real() {
            self.owned[lcn.0 as usize..(lcn.0 + length) as usize].fill(true);
        }
        build_non_resident(a.kind(), &a.name(), &runs, &sizes, 0)
    }
}

fn the_matrix_is_sound_before_it_is_used() {
    let small = [(3, 512), (6, 512), (3, 1024), (6, 2048)].map(|(size, cluster)| matrix(size, cluster, 512, LARGE));
    for geometry in MATRIX.into_iter().chain(small) {
        let Some(test) = geometry.make() else { return };
        test.assert_clean(&format!("{geometry:?}"));
        test.assert_judges(geometry.judges(), &format!("{geometry:?}"));
    }
}

tests![the_matrix_is_sound_before_it_is_used,];
