//! Logs that were forged to overwrite what their own last state does not name.

use std::io::Read as _;

use super::logfile::LogFile;
use super::operation::Operation;
use super::overlay::Changes;
use super::replay::replay;
use super::summary::Replayed;
use super::testing::LogWriter;
use crate::error::Result;
use crate::io::{MemoryVolume, VolumeRead};
use crate::ntfs::attribute::{AttributeType, non_resident};
use crate::ntfs::boot::{BOOT_SECTOR_SIZE, Geometry};
use crate::ntfs::record::Record;
use crate::ntfs::runlist::Runlist;
use crate::ntfs::units::{Lcn, Vcn};
use crate::units::VolumeOffset;

const TRANSACTION: u32 = 0x18;
/// Numbers of the open attributes.
const MFT: u16 = 0x18;
const SECURITY: u16 = 0x40;
const BITMAP: u16 = 0x68;
/// Record number of `$Secure`, and the name of its stream.
const SECURE: u64 = 9;
const SDS: &str = "$SDS";

/// What a forged record writes to a cluster.
const EVIL: &[u8] = b"overwritten";

/// A volume, and a transaction that never ends in its log.
struct Forgery {
    image: Vec<u8>,
    geometry: Geometry,
    log: LogWriter,
    last: u64,
}

/// A record of the log.
struct Entry<'a> {
    target: u16,
    redo: (Operation, &'a [u8]),
    undo: (Operation, &'a [u8]),
    /// Offsets of the attribute in its record, and in the attribute.
    inside: (usize, usize),
    /// First cluster of the attribute, block in it in units of 512 bytes, and the cluster of the volume.
    place: Option<(u64, u64, u64)>,
}

impl Forgery {
    fn new() -> Self {
        let packed = std::fs::File::open("test-images/ntfs/small.img.gz").unwrap();
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut image).unwrap();
        let geometry = Geometry::parse(&image[..BOOT_SECTOR_SIZE]).unwrap();
        let size = LogFile::open(&MemoryVolume(image.clone())).unwrap().size;
        let mut forgery = Self { image, geometry, log: LogWriter::of_size(size as usize), last: 0 };
        forgery.open(MFT, 0, "");
        forgery.open(SECURITY, SECURE, SDS);
        forgery.open(BITMAP, 6, "");
        forgery
    }

    fn record_at(&self, number: u64) -> u64 {
        self.geometry.bytes_in(self.geometry.mft.0) + number * u64::from(self.geometry.record_size)
    }

    fn record(&self, number: u64) -> Record {
        let at = self.record_at(number) as usize;
        Record::parse(self.image[at..at + self.geometry.record_size as usize].to_vec()).unwrap()
    }

    fn add(&mut self, entry: &Entry<'_>) {
        let lcns: Vec<u64> = entry.place.iter().map(|place| place.2).collect();
        let redo_at = 0x20 + 8 * lcns.len().max(1);
        let undo_at = (redo_at + entry.redo.1.len()).next_multiple_of(8);
        let (vcn, block) = entry.place.map_or((0, 0), |(vcn, block, _)| (vcn, block));
        let fields = [
            entry.redo.0 as usize,
            entry.undo.0 as usize,
            redo_at,
            entry.redo.1.len(),
            undo_at,
            entry.undo.1.len(),
            entry.target.into(),
            lcns.len(),
            entry.inside.0,
            entry.inside.1,
            block as usize,
            0,
        ];
        let mut data: Vec<u8> = fields.iter().flat_map(|&field| (field as u16).to_le_bytes()).collect();
        data.extend(vcn.to_le_bytes());
        data.extend(lcns.iter().flat_map(|lcn| lcn.to_le_bytes()));
        for (at, bytes) in [(redo_at, entry.redo.1), (undo_at, entry.undo.1)] {
            data.resize(at, 0);
            data.extend(bytes);
        }
        data.resize(data.len().next_multiple_of(8), 0);
        self.last = self.log.add(TRANSACTION, self.last, &data);
    }

    fn open(&mut self, index: u16, number: u64, name: &str) {
        let mut entry = [0; 0x28];
        let sequence = u64::from(self.record(number).sequence());
        entry[0x08..0x0C].copy_from_slice(&AttributeType::DATA.0.to_le_bytes());
        entry[0x10..0x18].copy_from_slice(&(sequence << 48 | number).to_le_bytes());
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (redo, undo) = ((Operation::OpenNonresidentAttribute, &entry[..]), (Operation::Noop, &name[..]));
        self.add(&Entry { target: index, redo, undo, inside: (0, 0), place: None });
    }

    /// Makes the stream of `$Secure` consist of one cluster, which is taken back with the transaction.
    fn point_security_to(&mut self, lcn: u64) {
        let record = self.record(SECURE);
        let is_stream = |a: &crate::ntfs::attribute::Attribute<'_>| a.kind() == AttributeType::DATA && a.is_named(SDS);
        let (at, stream) = record.attributes().find(|(_, attribute)| is_stream(attribute)).unwrap();
        let pairs_at = usize::from(non_resident::PAIRS_OFFSET.get(stream.bytes()));
        let mut runs = Runlist::default();
        runs.push(Some(Lcn(lcn)), 1);
        let (new, old) = (runs.encode(), &stream.bytes()[pairs_at..]);
        let place = self.record_at(SECURE) - self.geometry.bytes_in(self.geometry.mft.0);
        let cluster = u64::from(self.geometry.cluster_size);
        let place = (place / cluster, place % cluster / 512, self.geometry.mft.0 + place / cluster);
        let (redo, undo) = ((Operation::UpdateMappingPairs, &new[..]), (Operation::UpdateMappingPairs, old));
        self.add(&Entry { target: MFT, redo, undo, inside: (at, pairs_at), place: Some(place) });
    }

    /// Writes to a cluster as the first one of the stream; nothing takes that back.
    fn write_as_security(&mut self, lcn: u64) {
        let (redo, undo) = ((Operation::UpdateNonresidentValue, EVIL), (Operation::Noop, &[][..]));
        self.add(&Entry { target: SECURITY, redo, undo, inside: (0, 0), place: Some((0, 0, lcn)) });
    }

    /// Marks a cluster as free; nothing takes that back.
    fn mark_free(&mut self, lcn: u64) {
        let range = [(lcn as u32).to_le_bytes(), 1u32.to_le_bytes()].concat();
        let bitmap = self.record(6).find(AttributeType::DATA, "").unwrap().runlist(u64::MAX).unwrap();
        let place = (0, 0, bitmap.find(Vcn(0)).unwrap().lcn.unwrap().0);
        let (redo, undo) = ((Operation::ClearBitsInNonresidentBitMap, &range[..]), (Operation::Noop, &[][..]));
        self.add(&Entry { target: BITMAP, redo, undo, inside: (0, 0), place: Some(place) });
    }

    /// First cluster of the stream of `$Secure`, or of another non-resident stream.
    fn first_cluster(&self, number: u64, name: &str) -> u64 {
        let record = self.record(number);
        let runs = record.find(AttributeType::DATA, name).unwrap().runlist(self.geometry.cluster_count).unwrap();
        runs.find(Vcn(0)).unwrap().lcn.unwrap().0
    }

    /// First cluster of a file of the user.
    fn users_cluster(&self) -> u64 {
        let is_stream =
            |number: &u64| self.record(*number).find(AttributeType::DATA, "").is_some_and(|a| !a.is_resident());
        let number = (64..80).find(is_stream).unwrap();
        self.first_cluster(number, "")
    }

    /// A cluster that nothing owns.
    fn free_cluster(&self) -> u64 {
        let bitmap = self.geometry.bytes_in(self.first_cluster(6, "")) as usize;
        let is_free = |lcn: &u64| self.image[bitmap + *lcn as usize / 8] >> (lcn % 8) & 1 == 0;
        (0..self.geometry.cluster_count).find(is_free).unwrap()
    }

    /// The volume after the replay of the log.
    fn replayed(self) -> Result<Vec<u8>> {
        let mut device = MemoryVolume(self.image);
        let log = self.log.into_bytes();
        let writes = {
            let file = LogFile::open(&device).unwrap();
            let mut changes = Changes::new(&device);
            file.write(&mut changes, 0, &log).unwrap();
            changes.into_overlay().unwrap()
        };
        writes.patch(VolumeOffset(0), &mut device.0);
        let Replayed { overlay, report } = replay(&device)?.unwrap();
        assert_eq!(report.transactions, 1, "the transaction is taken back");
        let mut out = vec![0; device.0.len()];
        device.read_at(VolumeOffset(0), &mut out).unwrap();
        overlay.patch(VolumeOffset(0), &mut out);
        Ok(out)
    }
}

fn refusal_of(forgery: Forgery) -> String {
    forgery.replayed().unwrap_err().to_string()
}

#[test]
fn an_open_transaction_cannot_borrow_a_users_cluster() {
    let mut forgery = Forgery::new();
    let lcn = forgery.users_cluster();
    forgery.point_security_to(lcn);
    forgery.write_as_security(lcn);
    let text = refusal_of(forgery);
    let words = format!("it writes to cluster {lcn}, as cluster 0 of $DATA of file 9.9, to which that does not belong");
    assert!(text.contains(&words), "{text}");
}

#[test]
fn a_users_cluster_that_the_log_marks_as_free_is_refused_with_its_owner() {
    let mut forgery = Forgery::new();
    let lcn = forgery.users_cluster();
    forgery.point_security_to(lcn);
    forgery.write_as_security(lcn);
    forgery.mark_free(lcn);
    let text = refusal_of(forgery);
    assert!(text.contains("it belongs to file 6") && text.contains("although $Bitmap has it as free"), "{text}");
}

#[test]
fn a_free_cluster_and_an_own_one_may_be_written() {
    let written = |lcn: u64, image: &[u8], geometry: &Geometry| {
        let at = geometry.bytes_in(lcn) as usize;
        image[at..].starts_with(EVIL)
    };
    let forgery = Forgery::new();
    for lcn in [forgery.free_cluster(), forgery.first_cluster(SECURE, SDS)] {
        let mut forgery = Forgery::new();
        let geometry = forgery.geometry.clone();
        let before = forgery.record(SECURE).find(AttributeType::DATA, SDS).unwrap().bytes().to_vec();
        forgery.point_security_to(lcn);
        forgery.write_as_security(lcn);
        let after = forgery.replayed().unwrap();
        assert!(written(lcn, &after, &geometry), "cluster {lcn}");
        let forgery = Forgery { image: after, ..Forgery::new() };
        let stream = forgery.record(SECURE).find(AttributeType::DATA, SDS).unwrap().bytes().to_vec();
        assert_eq!(stream, before, "the runs are as before");
    }
}
