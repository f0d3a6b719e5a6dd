//! Opens a volume and changes single fields of it, fix-ups recomputed: one defect at a time.

use winject::internals::clock::FileTime;
use winject::internals::field::Field;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::attribute::{
    Attribute, AttributeType, build_resident, header as attribute, non_resident, resident,
};
use winject::internals::ntfs::attribute_list;
use winject::internals::ntfs::boot::Geometry;
use winject::internals::ntfs::file_name::name_bytes;
use winject::internals::ntfs::fixup::{self, FILE, INDX};
use winject::internals::ntfs::index::{IndexBlock, entry, node, root as index_root};
use winject::internals::ntfs::record::{Record, header};
use winject::internals::ntfs::runlist::Runlist;
use winject::internals::ntfs::{NtfsName, OpenOptions, Vcn, Volume};

use crate::support::root;

pub struct Surgeon {
    pub bytes: Vec<u8>,
    pub geometry: Geometry,
    mft: Runlist,
    pub records: u64,
}

/// The fixture: a 10 MiB volume with one of everything.
pub fn fixture() -> Vec<u8> {
    let packed = std::fs::read(root().join("test-images/check/volume.raw.xz")).unwrap();
    let mut out = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut out).unwrap();
    out
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

impl Surgeon {
    pub fn open(bytes: Vec<u8>) -> Self {
        let geometry = Geometry::parse(&bytes[..512]).unwrap();
        let start = size(geometry.mft.0 * u64::from(geometry.cluster_size));
        let first = Record::parse(bytes[start..start + geometry.record_size as usize].to_vec()).unwrap();
        let data = first.find(AttributeType::DATA, "").unwrap();
        let mft = data.runlist(geometry.cluster_count).unwrap();
        let records = data.data_size() / u64::from(geometry.record_size);
        let mut this = Self { bytes, geometry, mft, records };
        this.follow_list(&first);
        this
    }

    /// Appends the extents of `$MFT` that its attribute list names.
    fn follow_list(&mut self, first: &Record) {
        let Some(list) = first.find(AttributeType::ATTRIBUTE_LIST, "") else { return };
        let value = match list.value() {
            Some(value) => value.to_vec(),
            None => {
                let runs = list.runlist(self.geometry.cluster_count).unwrap();
                let at = self.place(&runs, 0);
                self.bytes[at..at + size(list.data_size())].to_vec()
            }
        };
        let mut extents = attribute_list::parse(&value).unwrap();
        extents.retain(|e| e.kind == AttributeType::DATA && e.lowest > Vcn(0));
        extents.sort_by_key(|e| e.lowest);
        for extent in extents {
            let record = self.record(extent.record.record.0);
            let (_, part) = record.find_instance(AttributeType::DATA, extent.instance).unwrap();
            self.mft.append(&part.runlist(self.geometry.cluster_count).unwrap()).unwrap();
        }
    }

    /// Edits the volume with the writer.
    pub fn edit<T>(&mut self, change: impl FnOnce(&mut Volume<MemoryVolume>) -> winject::Result<T>) -> T {
        let options = OpenOptions::new(FileTime(132_000_000_000_000_000));
        let mut volume = Volume::open(MemoryVolume(std::mem::take(&mut self.bytes)), &options).unwrap();
        let result = change(&mut volume).unwrap();
        volume.flush().unwrap();
        *self = Self::open(volume.into_device().0);
        result
    }

    /// Moves a name behind the writer's back: from a leaf of one directory to the end of the resident root of another.
    pub fn move_name(&mut self, name: &str, from: u64, to: u64) {
        let number = self.named(name);
        let parent = to | u64::from(self.sequence(to)) << 48;
        self.value(number, AttributeType::FILE_NAME, "", |v| v[..8].copy_from_slice(&parent.to_le_bytes()));
        let (vcn, at) = self.entry_of(from, name);
        let block = self.block(from, "$I30", vcn);
        let length = usize::from(entry::LENGTH.get(&block.bytes()[at..]));
        let mut moved = block.bytes()[at..at + length].to_vec();
        moved[entry::KEY..entry::KEY + 8].copy_from_slice(&parent.to_le_bytes());
        self.remove_entry(from, "$I30", vcn, at);

        let mut record = self.record(to);
        let attributes: Vec<Vec<u8>> = record
            .attributes()
            .map(|(_, a)| {
                if a.kind() != AttributeType::INDEX_ROOT {
                    return a.bytes().to_vec();
                }
                let mut value = a.value().unwrap().to_vec();
                let last = value.split_off(value.len() - entry::KEY);
                value.extend_from_slice(&moved);
                value.extend_from_slice(&last);
                let used = u32::try_from(value.len() - index_root::NODE).unwrap();
                node::USED.set(&mut value[index_root::NODE..], used);
                node::ALLOCATED.set(&mut value[index_root::NODE..], used);
                let mut bytes = build_resident(a.kind(), &a.name(), &value);
                attribute::INSTANCE.set(&mut bytes, a.instance());
                bytes
            })
            .collect();
        record.set_attributes(attributes.iter().map(Vec::as_slice)).unwrap();
        let sealed = record.seal().unwrap();
        let at = self.record_at(to);
        self.bytes[at..at + sealed.len()].copy_from_slice(&sealed);
    }

    fn place(&self, runs: &Runlist, offset: u64) -> usize {
        let cluster = u64::from(self.geometry.cluster_size);
        let run = runs.find(Vcn(offset / cluster)).unwrap();
        size((run.lcn.unwrap().0 + offset / cluster - run.vcn.0) * cluster + offset % cluster)
    }

    pub fn record_at(&self, number: u64) -> usize {
        self.place(&self.mft, number * u64::from(self.geometry.record_size))
    }

    fn raw(&self, number: u64) -> &[u8] {
        let at = self.record_at(number);
        &self.bytes[at..at + self.geometry.record_size as usize]
    }

    pub fn record(&self, number: u64) -> Record {
        Record::parse(self.raw(number).to_vec()).unwrap()
    }

    /// All records that hold no damage.
    pub fn all(&self) -> impl Iterator<Item = (u64, Record)> + '_ {
        (0..self.records).filter_map(|n| Record::parse(self.raw(n).to_vec()).ok().map(|r| (n, r)))
    }

    /// The record with this name (the first one).
    pub fn named(&self, name: &str) -> u64 {
        let has = |record: &Record| {
            record.attributes().any(|(_, a)| {
                a.kind() == AttributeType::FILE_NAME
                    && a.value().and_then(name_bytes).is_some_and(|n| NtfsName::from_le_bytes(n) == name)
            })
        };
        self.all().find(|(_, r)| r.is_in_use() && has(r)).map(|(n, _)| n).unwrap_or_else(|| panic!("no {name}"))
    }

    /// The first record in use for which `pick` says yes.
    pub fn find(&self, pick: impl Fn(&Record) -> bool) -> u64 {
        self.all().find(|(_, r)| r.is_in_use() && pick(r)).unwrap().0
    }

    /// Changes a record; the mirror follows for the first ones.
    pub fn patch(&mut self, number: u64, change: impl FnOnce(&mut [u8])) {
        let mut block = self.raw(number).to_vec();
        fixup::unseal(&mut block, FILE).unwrap();
        change(&mut block);
        fixup::seal(&mut block).unwrap();
        let at = self.record_at(number);
        self.bytes[at..at + block.len()].copy_from_slice(&block);
        if number < 4 {
            let mirror = size(self.geometry.mirror.0 * u64::from(self.geometry.cluster_size));
            let at = mirror + size(number) * block.len();
            self.bytes[at..at + block.len()].copy_from_slice(&block);
        }
    }

    pub fn set<T: winject::internals::field::Le>(&mut self, number: u64, field: Field<T>, value: T) {
        self.patch(number, |b| field.set(b, value));
    }

    /// The records of a file.
    fn records_of(&self, number: u64) -> Vec<Record> {
        let is_extension = |r: &Record| r.is_in_use() && r.base().is_some_and(|b| b.record.0 == number);
        let extensions = self.all().filter(|(_, r)| is_extension(r)).map(|(_, r)| r);
        std::iter::once(self.record(number)).chain(extensions).collect()
    }

    /// The record that holds (the first extent of) an attribute of a file.
    pub fn home(&self, number: u64, kind: AttributeType, name: &str) -> u64 {
        let holds = |r: &Record| r.find(kind, name).is_some_and(|a| a.lowest_vcn() == Vcn(0));
        let found = self.records_of(number).into_iter().find(holds);
        found
            .map(|r| u64::from(header::NUMBER.get(r.bytes())))
            .unwrap_or_else(|| panic!("{number} has no {kind}:{name}"))
    }

    /// Offset of an attribute in its record.
    fn attribute(&self, number: u64, kind: AttributeType, name: &str) -> usize {
        let record = self.record(number);
        record.attributes().find(|(_, a)| a.kind() == kind && a.is_named(name)).unwrap().0
    }

    pub fn set_attribute<T: winject::internals::field::Le>(
        &mut self,
        (number, kind, name): (u64, AttributeType, &str),
        field: Field<T>,
        value: T,
    ) {
        let number = self.home(number, kind, name);
        let at = self.attribute(number, kind, name);
        self.patch(number, |b| field.set(&mut b[at..], value));
    }

    fn put_record(&mut self, number: u64, mut record: Record) {
        let sealed = record.seal().unwrap();
        let at = self.record_at(number);
        self.bytes[at..at + sealed.len()].copy_from_slice(&sealed);
        if number < 4 {
            self.patch(number, |_| {});
        }
    }

    /// Puts another attribute in the place of one; its instance stays.
    pub fn replace_attribute(&mut self, number: u64, kind: AttributeType, name: &str, new: &[u8]) {
        let mut record = self.record(number);
        let attributes: Vec<Vec<u8>> = record
            .attributes()
            .map(|(_, a)| {
                let is_it = a.kind() == kind && a.is_named(name);
                let mut bytes = if is_it { new.to_vec() } else { a.bytes().to_vec() };
                attribute::INSTANCE.set(&mut bytes, a.instance());
                bytes
            })
            .collect();
        record.set_attributes(attributes.iter().map(Vec::as_slice)).unwrap();
        self.put_record(number, record);
    }

    /// Adds an attribute as the last one of a record.
    pub fn add_attribute(&mut self, number: u64, new: &[u8]) {
        let mut record = self.record(number);
        let mut attributes: Vec<Vec<u8>> = record.attributes().map(|(_, a)| a.bytes().to_vec()).collect();
        attributes.push(new.to_vec());
        let instance = record.next_instance().unwrap();
        attribute::INSTANCE.set(attributes.last_mut().unwrap(), instance);
        record.set_attributes(attributes.iter().map(Vec::as_slice)).unwrap();
        self.put_record(number, record);
    }

    /// Writes another name of the same length over one, in the record and in the directory's entry.
    pub fn respell(&mut self, directory: u64, old: &str, new: &str) {
        let number = self.named(old);
        let units: Vec<u8> = new.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.value(number, AttributeType::FILE_NAME, "", |v| v[0x42..].copy_from_slice(&units));
        let root = self.record(directory).find(AttributeType::INDEX_ROOT, "$I30").unwrap().value().unwrap().to_vec();
        let raw: Vec<u8> = old.encode_utf16().flat_map(u16::to_le_bytes).collect();
        if let Some(at) = root.windows(raw.len()).position(|w| w == raw) {
            return self.value(directory, AttributeType::INDEX_ROOT, "$I30", |v| {
                v[at..at + units.len()].copy_from_slice(&units)
            });
        }
        let (vcn, at) = self.entry_of(directory, old);
        let at = at + entry::KEY + 0x42;
        self.patch_block(directory, "$I30", vcn, |b| b[at..at + units.len()].copy_from_slice(&units));
    }

    /// As [`set_attribute`](Self::set_attribute), in exactly this record.
    pub fn set_attribute_in<T: winject::internals::field::Le>(
        &mut self,
        number: u64,
        kind: AttributeType,
        field: Field<T>,
        value: T,
    ) {
        let at = self.record(number).attributes().find(|(_, a)| a.kind() == kind).unwrap().0;
        self.patch(number, |b| field.set(&mut b[at..], value));
    }

    /// Changes the value of a resident attribute.
    pub fn value(&mut self, number: u64, kind: AttributeType, name: &str, change: impl FnOnce(&mut [u8])) {
        let number = self.home(number, kind, name);
        let at = self.attribute(number, kind, name);
        self.patch(number, |b| {
            let start = at + usize::from(resident::VALUE_OFFSET.get(&b[at..]));
            let length = resident::VALUE_LENGTH.get(&b[at..]) as usize;
            change(&mut b[start..start + length]);
        });
    }

    /// The joined runs of a stream.
    pub fn runs(&self, number: u64, kind: AttributeType, name: &str) -> Runlist {
        let records = self.records_of(number);
        let attributes = records.iter().flat_map(|r| r.attributes().map(|(_, a)| a));
        let extents = attributes.filter(|a| a.kind() == kind && a.is_named(name) && !a.is_resident());
        let mut extents: Vec<_> = extents.map(|a| a.runlist(self.geometry.cluster_count).unwrap()).collect();
        extents.sort_by_key(Runlist::first);
        let mut joined = Runlist::default();
        for extent in &extents {
            joined.append(extent).unwrap();
        }
        joined
    }

    /// Where a byte of a non-resident stream is on the volume.
    pub fn stream_at(&self, number: u64, kind: AttributeType, name: &str, offset: u64) -> usize {
        self.place(&self.runs(number, kind, name), offset)
    }

    pub fn is_resident(&self, number: u64, kind: AttributeType, name: &str) -> bool {
        self.record(self.home(number, kind, name)).find(kind, name).unwrap().is_resident()
    }

    /// Flips a bit of a bitmap, resident or not.
    pub fn flip(&mut self, number: u64, kind: AttributeType, name: &str, bit: u64) {
        if self.is_resident(number, kind, name) {
            self.value(number, kind, name, |v| v[size(bit / 8)] ^= 1 << (bit % 8));
        } else {
            let at = self.stream_at(number, kind, name, bit / 8);
            self.bytes[at] ^= 1 << (bit % 8);
        }
    }

    /// VCNs of the blocks in use of an index.
    pub fn blocks(&self, number: u64, name: &str) -> Vec<u64> {
        let block = u64::from(self.geometry.index_block_size);
        let unit = u64::from(self.geometry.index_unit(self.geometry.index_block_size));
        let count = self.runs(number, AttributeType::INDEX_ALLOCATION, name).end()
            * u64::from(self.geometry.cluster_size)
            / block;
        (0..count).map(|n| n * block / unit).filter(|&vcn| self.try_block(number, name, vcn).is_some()).collect()
    }

    fn block_at(&self, number: u64, name: &str, vcn: u64) -> usize {
        let unit = u64::from(self.geometry.index_unit(self.geometry.index_block_size));
        self.stream_at(number, AttributeType::INDEX_ALLOCATION, name, vcn * unit)
    }

    fn try_block(&self, number: u64, name: &str, vcn: u64) -> Option<IndexBlock> {
        let at = self.block_at(number, name, vcn);
        let raw = self.bytes[at..at + self.geometry.index_block_size as usize].to_vec();
        IndexBlock::parse(raw, Vcn(vcn)).ok()
    }

    pub fn block(&self, number: u64, name: &str, vcn: u64) -> IndexBlock {
        self.try_block(number, name, vcn).unwrap()
    }

    /// Changes an index block: its raw position, then its unsealed bytes.
    pub fn patch_block(&mut self, number: u64, name: &str, vcn: u64, change: impl FnOnce(&mut [u8])) {
        let at = self.block_at(number, name, vcn);
        let length = self.geometry.index_block_size as usize;
        let mut block = self.bytes[at..at + length].to_vec();
        fixup::unseal(&mut block, INDX).unwrap();
        change(&mut block);
        fixup::seal(&mut block).unwrap();
        self.bytes[at..at + length].copy_from_slice(&block);
    }

    /// Volume offset of a block.
    pub fn raw_block(&self, number: u64, name: &str, vcn: u64) -> usize {
        self.block_at(number, name, vcn)
    }

    /// Offsets (in the block) of the entries of a block, the last one included.
    pub fn entries(&self, number: u64, name: &str, vcn: u64) -> Vec<usize> {
        let block = self.block(number, name, vcn);
        block.node().unwrap().entries().map(|e| e.unwrap().offset + 0x18).collect()
    }

    /// A leaf of a directory, and the offset in it of its entry for `name`.
    pub fn entry_of(&self, directory: u64, name: &str) -> (u64, usize) {
        for vcn in self.blocks(directory, "$I30") {
            let block = self.block(directory, "$I30", vcn);
            for e in block.node().unwrap().entries() {
                let e = e.unwrap();
                if name_bytes(e.key()).is_some_and(|n| NtfsName::from_le_bytes(n) == name) {
                    return (vcn, e.offset + 0x18);
                }
            }
        }
        panic!("no entry {name}");
    }

    /// Removes the entry at `offset` of a leaf.
    pub fn remove_entry(&mut self, directory: u64, name: &str, vcn: u64, offset: usize) {
        self.patch_block(directory, name, vcn, |b| {
            let length = usize::from(entry::LENGTH.get(&b[offset..]));
            let used = Field::<u32>::at(0x18 + 4);
            let end = 0x18 + used.get(b) as usize;
            b.copy_within(offset + length..end, offset);
            used.set(b, used.get(b) - u32::try_from(length).unwrap());
        });
    }

    /// Sets a field of the non-resident attribute and of nothing else.
    pub fn sizes(&self, number: u64, kind: AttributeType, name: &str) -> (u64, u64, u64) {
        let record = self.record(self.home(number, kind, name));
        let a: Attribute<'_> = record.find(kind, name).unwrap();
        let get = |f: Field<u64>| f.get(a.bytes());
        (get(non_resident::ALLOCATED), get(non_resident::DATA_SIZE), get(non_resident::INITIALIZED))
    }

    pub fn sequence(&self, number: u64) -> u16 {
        header::SEQUENCE.get(self.record(number).bytes())
    }
}
