//! The open volume: what it knows, what it keeps in memory, and how changes get to the device.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::create::Crowds;
use super::log::Admission;
use super::stream::{Piece, Stream, pieces};
use crate::clock::FileTime;
use crate::error::{Error, Kind, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::allocator::free_space::FreeMap;
use crate::ntfs::btree::Index;
use crate::ntfs::format::boot::Geometry;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::file_name::Times;
use crate::ntfs::format::index_node::{Entry as IndexEntry, IndexBlock, Node};
use crate::ntfs::format::name::{Namespace, NtfsName};
use crate::ntfs::format::record::Record;
use crate::ntfs::format::units::{FileId, RecordNumber};
use crate::ntfs::format::upcase::UpcaseTable;
use crate::ntfs::pager::blocks::Blocks;
use crate::units::VolumeOffset;

/// Bytes of unchanged records that are kept.
const RECORDS_KEPT: usize = 512 << 10;
/// Bytes of unchanged index blocks that are kept: leaves …
const LEAVES_KEPT: usize = 512 << 10;
/// … and blocks with children, of which there is one for some thirty leaves, and which every search needs.
const PARENTS_KEPT: usize = 16 << 20;
/// Bytes of changed blocks in memory after which they are written to the device.
const DIRTY_MAX: usize = 512 << 10;

/// How to open a volume.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The one time that everything written gets.
    pub clock: FileTime,
    /// Only reading is wanted: the states that forbid an edit (unclean log, dirty flag, hibernation) are no error.
    pub read_only: bool,
    /// Accept a volume whose dirty flag is set.
    pub allow_dirty: bool,
    /// Empty an unclean `$LogFile` and set the dirty flag, so that Windows checks the volume.
    pub discard_log: bool,
    /// Remove the hibernation state and set the dirty flag; the saved session is lost.
    pub discard_hibernation: bool,
    /// Which 8.3 names new files get.
    pub short_names: ShortNames,
}

/// Which 8.3 names new files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShortNames {
    /// As Windows does it on this volume: none where short names are switched off on the volume, else one for every
    /// name that is not itself 8.3.
    #[default]
    AsVolume,
    /// None: every name is in namespace 0, which is legal on every volume.
    Never,
}

impl OpenOptions {
    /// For editing, with all refusals.
    #[must_use]
    pub fn new(clock: FileTime) -> Self {
        Self {
            clock,
            read_only: false,
            allow_dirty: false,
            discard_log: false,
            discard_hibernation: false,
            short_names: ShortNames::AsVolume,
        }
    }

    /// For reading only.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read_only: true, ..Self::new(FileTime(1)) }
    }
}

/// Whose protection a new file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// The same as this file's, which must have a security id; else the nearest parent's that has one.
    Like(FileId),
    /// The same as the parent directory's; if that has a descriptor of its own, the first child's that has an id.
    LikeParent,
    /// An id in `$Secure`.
    Id(u32),
}

/// What a new file or directory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct New {
    /// Protection.
    pub security: Security,
    /// DOS attributes; `None` gives 0x20 for files and 0 for directories.
    pub attributes: Option<u32>,
    /// All four times; `None`: the volume's clock.
    pub time: Option<FileTime>,
}

impl Default for New {
    fn default() -> Self {
        Self { security: Security::LikeParent, attributes: None, time: None }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: NtfsName,
    /// The file.
    pub file: FileId,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of content, as the directory remembers it.
    pub size: u64,
    /// DOS attributes, as the directory remembers them.
    pub attributes: u32,
    /// Namespace; entries of [`Namespace::Dos`] repeat a file under its short name.
    pub namespace: Namespace,
}

/// Facts about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of the unnamed stream.
    pub size: u64,
    /// Times.
    pub times: Times,
    /// DOS attributes.
    pub attributes: u32,
    /// Id in `$Secure`; `None` when the file has a descriptor of its own (or none).
    pub security: Option<u32>,
    /// Names, DOS names included.
    pub links: u16,
    /// Whether it has several names that are no DOS names: hard links.
    pub is_hard_linked: bool,
    /// Tag of the reparse point.
    pub reparse_tag: Option<u32>,
    /// Named streams.
    pub streams: Vec<NtfsName>,
}

/// An index block in memory, and where it is on the device.
#[derive(Debug, Clone)]
pub(super) struct CachedBlock {
    pub block: IndexBlock,
    pub pieces: Vec<Piece>,
    /// Offsets of the entries, once they were asked for; `None` inside: they are not in order.
    pub offsets: OnceLock<Option<Vec<u16>>>,
}

impl CachedBlock {
    pub fn new(block: IndexBlock, pieces: Vec<Piece>) -> Self {
        Self { block, pieces, offsets: OnceLock::new() }
    }

    /// Replaces all entries; `false` when they do not fit.
    #[must_use]
    pub fn set_node(&mut self, node: &Node) -> bool {
        self.offsets = OnceLock::new();
        self.block.set_node(node)
    }

    /// Inserts an entry at its place in the order, before the one at `position` and `offset`; `false` when it does not
    /// fit.
    #[must_use]
    pub fn insert_at(&mut self, position: usize, offset: usize, entry: &IndexEntry) -> bool {
        if !self.block.insert_at(offset, entry) {
            return false;
        }
        if let Some(Some(offsets)) = self.offsets.get_mut()
            && position < offsets.len()
        {
            for behind in offsets.iter_mut().skip(position) {
                *behind = behind.saturating_add(entry.length() as u16);
            }
            offsets.insert(position, offset as u16);
        } else {
            self.offsets = OnceLock::new();
        }
        true
    }
}

impl CachedBlock {
    /// Removes the entry at `position` and `offset`, if it is not the last one of its node; `false` otherwise.
    #[must_use]
    pub fn remove_at(&mut self, position: usize, offset: usize) -> bool {
        let used = self.block.used();
        if !self.block.remove_at(offset) {
            return false;
        }
        let length = used.saturating_sub(self.block.used()) as u16;
        if let Some(Some(offsets)) = self.offsets.get_mut()
            && offsets.get(position).copied() == u16::try_from(offset).ok()
        {
            offsets.remove(position);
            for behind in offsets.iter_mut().skip(position) {
                *behind = behind.saturating_sub(length);
            }
        } else {
            self.offsets = OnceLock::new();
        }
        true
    }
}

/// Blocks in memory.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub records: Blocks<Record>,
    pub blocks: Blocks<CachedBlock>,
    pub pages: Blocks<Vec<u8>>,
    /// Indexes that were opened, by record.
    pub indexes: HashMap<RecordNumber, Vec<Arc<Index>>>,
}

impl Cache {
    /// Forgets index blocks when too many are held.
    fn shrink_blocks(&mut self, size: usize) {
        let size = size.max(1);
        self.blocks.shrink(LEAVES_KEPT / size, PARENTS_KEPT / size);
    }
}

/// What a failing call must put back besides the blocks.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub mft: Arc<Stream>,
    pub record_bitmap: Arc<Stream>,
    pub cluster_bitmap: Arc<Stream>,
    /// Where the next search for clusters begins.
    pub cluster_hint: u64,
    /// Where the next search for a record begins.
    pub record_hint: u64,
    /// Records that this session has appended to `$MFT` and not given out yet.
    pub fresh_records: Range<u64>,
    /// Bytes by which `$MFT` has grown since the volume was opened.
    pub mft_grown: u64,
}

/// An open NTFS volume.
///
/// Reading works on `&self`. Every changing call either succeeds or leaves the volume as it was. Changed metadata is
/// kept in memory until [`flush`](Self::flush); file content goes straight to the device, into clusters that were free.
///
/// ```
/// # use std::io::Read;
/// # let packed = std::fs::File::open("test-images/ntfs/small.img.gz")?;
/// # let mut image = Vec::new();
/// # flate2::read::GzDecoder::new(packed).read_to_end(&mut image)?;
/// use winject::internals::clock::FileTime;
/// use winject::internals::io::MemoryVolume;
/// use winject::internals::ntfs::{FileId, New, OpenOptions, Volume};
///
/// let options = OpenOptions::new(FileTime::from_unix_seconds(1_700_000_000).unwrap());
/// let mut volume = Volume::open(MemoryVolume(image), &options)?;
///
/// let folder = volume.create_dir_all("/new/folder", &New::default())?;
/// let file = volume.create_file(folder, "hello.txt", b"Hello", &New::default())?;
/// volume.replace_file("/new/folder/hello.txt", b"Hello again", &New::default())?;
/// volume.rename("/new/folder/hello.txt", "/greeting.txt")?;
///
/// for entry in volume.entries(FileId::ROOT)? {
///     println!("{:>8}  {}", entry.size, entry.name);
/// }
/// let file = volume.find("/GREETING.TXT")?.expect("names ignore case");
/// assert_eq!(volume.read(file, 1 << 20)?, b"Hello again");
/// volume.delete("/greeting.txt")?;
/// volume.flush()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Volume<D> {
    pub(super) device: D,
    pub(super) geometry: Geometry,
    pub(super) upcase: Arc<UpcaseTable>,
    pub(super) options: OpenOptions,
    /// New names get 8.3 partners.
    pub(super) short_names: bool,
    pub(super) cache: RefCell<Cache>,
    pub(super) state: State,
    /// Clusters freed in this session, and the starts in the order of freeing.
    pub(super) freed_clusters: BTreeMap<u64, u64>,
    pub(super) freed_log: Vec<u64>,
    /// Records freed in this session.
    pub(super) freed_records: HashSet<u64>,
    pub(super) freed_records_log: Vec<u64>,
    /// Clusters of the volume's own structures.
    pub(super) protected: Vec<Range<u64>>,
    /// Clusters of `$MFTMirr`.
    pub(super) mirror: Arc<Stream>,
    /// What must be done before the first edit, because the user overrode a refusal.
    pub(super) admission: Admission,
    /// What is known of the free clusters.
    pub(super) free: RefCell<FreeMap>,
    /// Where short names were found taken.
    pub(super) crowds: RefCell<Crowds>,
    /// What goes to the device next; kept for its memory.
    gathered: Vec<u8>,
    running: bool,
}

/// The parts from which [`Volume::open`] builds a volume.
pub(super) struct Parts<D> {
    pub device: D,
    pub geometry: Geometry,
    pub options: OpenOptions,
    pub mft: Stream,
}

impl<D> Volume<D> {
    /// A volume that can read records; `open` fills in the rest.
    pub(super) fn from_parts(parts: Parts<D>) -> Self {
        let empty = || Arc::new(Stream::Resident(Vec::new()));
        Self {
            device: parts.device,
            geometry: parts.geometry,
            upcase: Arc::new(UpcaseTable::ascii()),
            options: parts.options,
            short_names: false,
            cache: RefCell::default(),
            state: State {
                mft: Arc::new(parts.mft),
                record_bitmap: empty(),
                cluster_bitmap: empty(),
                cluster_hint: 0,
                record_hint: RecordNumber::FIRST_USER.0,
                fresh_records: 0..0,
                mft_grown: 0,
            },
            freed_clusters: BTreeMap::new(),
            freed_log: Vec::new(),
            freed_records: HashSet::new(),
            freed_records_log: Vec::new(),
            protected: Vec::new(),
            mirror: empty(),
            admission: Admission::default(),
            free: RefCell::default(),
            crowds: RefCell::default(),
            gathered: Vec::new(),
            running: false,
        }
    }

    /// The geometry.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The volume's upper-case table.
    #[must_use]
    pub fn upcase(&self) -> &UpcaseTable {
        &self.upcase
    }

    /// The device below. What is not flushed is not there yet.
    #[must_use]
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Gives the device back. What is not flushed is lost.
    #[must_use]
    pub fn into_device(self) -> D {
        self.device
    }

    /// Stores a changed record in memory.
    pub(super) fn put_record(&mut self, number: RecordNumber, record: Record) {
        let cache = self.cache.get_mut();
        let owner = record.base().map_or(number, |b| b.record);
        cache.indexes.remove(&owner);
        cache.records.put(number.0, Arc::new(record));
    }

    /// Stores a record in which only values changed, no attribute's place.
    pub(super) fn patch_record(&mut self, number: RecordNumber, record: Record) {
        self.cache.get_mut().records.put(number.0, Arc::new(record));
    }
}

impl<D: VolumeRead> Volume<D> {
    /// Where a record is on the device.
    fn record_pieces(&self, number: RecordNumber) -> Result<Vec<Piece>> {
        let size = u64::from(self.geometry.record_size);
        let outside = || damaged(format!("reference to record {number} beyond the end of $MFT"));
        let offset = number.0.checked_mul(size).ok_or_else(outside)?;
        match &*self.state.mft {
            Stream::Runs { runs, sizes } if offset.saturating_add(size) <= sizes.data => {
                pieces(&self.geometry, runs, offset, size as usize)
            }
            _ => Err(outside()),
        }
    }

    /// An offset of the volume as an offset of the image that holds it, for messages.
    pub(super) fn image_offset(&self, offset: u64) -> u64 {
        self.device.image_offset().saturating_add(offset)
    }

    /// An error in a block that lies in `pieces`: its offset in the block becomes one of the image.
    fn locate_error(&self, error: Error, pieces: &[Piece]) -> Error {
        error.inside_pieces(|mut inside| {
            for &(place, length) in pieces {
                if let Some(place) = place.filter(|_| inside < length as u64) {
                    return Some(self.image_offset(place.saturating_add(inside)));
                }
                inside = inside.saturating_sub(length as u64);
            }
            None
        })
    }

    /// Adds where a file's record is to an error that does not say more exactly where the damage lies.
    pub(super) fn in_record<T>(&self, number: RecordNumber, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let is_ours = error.layer() == Layer::Ntfs && error.kind() == Kind::Damaged;
            let pieces = if is_ours { self.record_pieces(number).ok() } else { None };
            match pieces.and_then(|pieces| pieces.first()?.0) {
                Some(place) => error.inside(self.image_offset(place)),
                None if is_ours => error.at(number),
                None => error,
            }
        })
    }

    /// A record as it is on the device, or as it is to be written.
    pub(super) fn raw_record(&self, number: RecordNumber) -> Result<Vec<u8>> {
        if let Some(record) = self.cache.borrow().records.get(number.0) {
            return Ok(record.bytes().to_vec());
        }
        self.read_pieces(&self.record_pieces(number)?)
    }

    /// Reads a block that may lie in several pieces.
    pub(super) fn read_pieces(&self, pieces: &[Piece]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; pieces.iter().map(|p| p.1).sum()];
        self.read_pieces_into(pieces, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from pieces of the same length.
    fn read_pieces_into(&self, pieces: &[Piece], bytes: &mut [u8]) -> Result<()> {
        let mut done = 0;
        for (place, length) in pieces {
            let place = place.ok_or_else(|| damaged("metadata in a hole"))?;
            self.device.read_at(VolumeOffset(place), &mut bytes[done..done + length])?;
            done += length;
        }
        Ok(())
    }

    /// A record.
    pub(super) fn record(&self, number: RecordNumber) -> Result<Arc<Record>> {
        if let Some(record) = self.cache.borrow().records.get(number.0) {
            return Ok(record);
        }
        let pieces = self.record_pieces(number)?;
        let place = pieces.first().and_then(|p| p.0).unwrap_or(0);
        let record = Record::parse(self.read_pieces(&pieces)?).map_err(|e| self.locate_error(e, &pieces))?;
        if record.number().is_some_and(|found| found != number.0 & 0xFFFF_FFFF) {
            return Err(damaged("an MFT record has the number of another one")
                .expected_found(number, record.number().unwrap_or_default())
                .at(self.image_offset(place)));
        }
        let record = Arc::new(record);
        let limit = RECORDS_KEPT / self.geometry.record_size as usize;
        self.cache.borrow_mut().records.remember(number.0, Arc::clone(&record), limit);
        Ok(record)
    }

    /// An index block in memory, by its place on the device.
    pub(super) fn cached_block(&self, key: u64, vcn: u64, size: usize) -> Result<Option<Arc<CachedBlock>>> {
        let Some(cached) = self.cache.borrow().blocks.get(key) else { return Ok(None) };
        let known = crate::ntfs::format::index_node::block::VCN.get(cached.block.bytes());
        if known != vcn || cached.block.bytes().len() != size {
            return Err(damaged("one index block used in two places")
                .expected_found(vcn, known)
                .at(self.image_offset(key)));
        }
        Ok(Some(cached))
    }

    /// Reads an index block that is not in memory.
    pub(super) fn read_block(&self, pieces: Vec<Piece>, vcn: u64) -> Result<Arc<CachedBlock>> {
        let key = pieces.first().and_then(|p| p.0).ok_or_else(|| damaged("index block in a hole"))?;
        let spare = self.cache.borrow_mut().blocks.spare();
        let mut bytes = spare.map(|cached| cached.block.into_bytes()).unwrap_or_default();
        bytes.resize(pieces.iter().map(|p| p.1).sum(), 0);
        self.read_pieces_into(&pieces, &mut bytes)?;
        let block = IndexBlock::parse(bytes, vcn).map_err(|e| self.locate_error(e, &pieces))?;
        let cached = Arc::new(CachedBlock::new(block, pieces));
        let mut cache = self.cache.borrow_mut();
        cache.shrink_blocks(cached.block.bytes().len());
        let has_children = cached.block.node()?.has_children();
        cache.blocks.insert_clean(key, Arc::clone(&cached), has_children);
        Ok(cached)
    }

    /// The file that is `$MFT`.
    pub(super) fn mft_id(&self) -> Result<FileId> {
        Ok(FileId { record: RecordNumber::MFT, sequence: self.record(RecordNumber::MFT)?.sequence() })
    }

    /// Bytes in free clusters.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn free_space(&self) -> Result<u64> {
        Ok(self.geometry.bytes_in(self.count_free_clusters()?))
    }
}

impl<D: VolumeWrite> Volume<D> {
    /// Runs a call so that it either succeeds or changes nothing.
    pub(super) fn transaction<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.running {
            return call(self);
        }
        if self.options.read_only {
            return Err(Error::refused(Layer::Ntfs, "the volume was opened for reading only")
                .hint("open it with OpenOptions::new"));
        }
        if self.dirty_bytes() > DIRTY_MAX {
            self.write_out()?;
        }
        self.running = true;
        // what an override asks for is a call of its own: it stays when the caller's is refused
        let admitted = if self.admission.is_nothing() { Ok(()) } else { self.attempt(Self::admit) };
        let result = match admitted {
            Ok(()) => self.attempt(call),
            Err(e) => Err(e),
        };
        self.running = false;
        result
    }

    fn attempt<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let state = self.state.clone();
        let admission = self.admission;
        let (clusters, records) = (self.freed_log.len(), self.freed_records_log.len());
        let cache = self.cache.get_mut();
        cache.records.begin();
        cache.blocks.begin();
        cache.pages.begin();
        self.free.get_mut().begin();
        let result = call(self);
        let cache = self.cache.get_mut();
        if result.is_ok() {
            cache.records.commit();
            cache.blocks.commit();
            cache.pages.commit();
            return result;
        }
        cache.records.rollback();
        cache.blocks.rollback();
        cache.pages.rollback();
        cache.indexes.clear();
        self.free.get_mut().rollback();
        self.state = state;
        self.admission = admission;
        for start in self.freed_log.drain(clusters..) {
            self.freed_clusters.remove(&start);
        }
        for record in self.freed_records_log.drain(records..) {
            self.freed_records.remove(&record);
        }
        result
    }

    fn dirty_bytes(&self) -> usize {
        let cache = self.cache.borrow();
        cache.records.dirty().len() * self.geometry.record_size as usize
            + cache.blocks.dirty().len() * self.geometry.index_block_size as usize
            + cache.pages.dirty().len() * self.page_size()
    }

    /// Does now what the overrides of [`OpenOptions`] ask for (emptying the log, removing the hibernation state, marking
    /// the volume to be checked), which the first changing call does otherwise. Does nothing where nothing was overridden.
    ///
    /// # Errors
    /// As any changing call.
    pub fn apply_overrides(&mut self) -> Result<()> {
        if self.admission.is_nothing() { Ok(()) } else { self.transaction(|_| Ok(())) }
    }

    /// Writes everything that is still in memory to the device.
    ///
    /// # Errors
    /// When the device does.
    pub fn flush(&mut self) -> Result<()> {
        self.write_out()
    }

    /// [`flush`](Self::flush), and lets what was freed be used again. Call it only after the device's content has been
    /// made durable: from then on the old volume no longer needs to survive.
    ///
    /// # Errors
    /// When the device does.
    pub fn forget_freed(&mut self) -> Result<()> {
        self.write_out()?;
        self.freed_clusters.clear();
        self.freed_log.clear();
        self.freed_records.clear();
        self.freed_records_log.clear();
        self.free.get_mut().clear();
        let cache = self.cache.get_mut();
        cache.records.forget_clean();
        cache.blocks.forget_clean();
        cache.pages.forget_clean();
        cache.indexes.clear();
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        let cache = self.cache.get_mut();
        self.gathered.clear();
        let mut out = Writer { device: &mut self.device, start: 0, gathered: &mut self.gathered };
        cache.pages.visit_dirty(|place, page| {
            out.go_to(place, page.len())?.extend_from_slice(page);
            Ok::<_, Error>(())
        })?;
        cache.blocks.visit_dirty(|_, cached| {
            let CachedBlock { block, pieces, .. } = cached;
            out.write_sealed(pieces, |sealed| block.seal_into(sealed))
        })?;
        let size = u64::from(self.geometry.record_size);
        let mirrored = (self.mirror.len() / size).min(RecordNumber::FIRST_USER.0);
        let mft = self.state.mft.runs().ok_or_else(|| damaged("$MFT is resident"))?;
        cache.records.visit_dirty(|number, record| {
            let places = |runs| pieces(&self.geometry, runs, number * size, size as usize);
            if number < mirrored
                && let Some(runs) = self.mirror.runs()
            {
                let sealed = record.seal()?;
                for at in [places(mft)?, places(runs)?] {
                    out.write_sealed(&at, |out| {
                        out.extend_from_slice(&sealed);
                        Ok(())
                    })?;
                }
                return Ok(());
            }
            out.write_sealed(&places(mft)?, |sealed| record.seal_into(sealed))
        })?;
        out.finish()?;
        cache.pages.written();
        cache.blocks.written();
        cache.records.written();
        let page_size = self.page_size();
        let cache = self.cache.get_mut();
        cache.records.shrink(RECORDS_KEPT / self.geometry.record_size as usize, 0);
        cache.shrink_blocks(self.geometry.index_block_size as usize);
        cache.pages.shrink(super::stream::PAGES_KEPT / page_size, 0);
        Ok(())
    }
}

/// Bytes that go to the device at once, at most.
const WRITE_MAX: usize = 64 << 10;

/// Writes blocks to the device; what is one behind the other there goes there at once.
struct Writer<'a, D> {
    device: &'a mut D,
    /// Where what is gathered belongs.
    start: u64,
    gathered: &'a mut Vec<u8>,
}

impl<D: VolumeWrite> Writer<'_, D> {
    /// The buffer to which `length` bytes that belong to `place` are to be appended.
    fn go_to(&mut self, place: u64, length: usize) -> Result<&mut Vec<u8>> {
        let follows = self.start.checked_add(self.gathered.len() as u64) == Some(place);
        if !follows || self.gathered.len() + length > WRITE_MAX {
            self.finish()?;
            self.start = place;
        }
        Ok(self.gathered)
    }

    /// Writes the block that `seal` appends to a buffer.
    fn write_sealed(&mut self, pieces: &[Piece], seal: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        if let &[(Some(place), length)] = pieces {
            return seal(self.go_to(place, length)?);
        }
        let mut sealed = Vec::new();
        seal(&mut sealed)?;
        let mut rest = &sealed[..];
        for (place, length) in pieces {
            let place = place.ok_or_else(|| damaged("metadata in a hole"))?;
            let (now, later) = rest.split_at(rest.len().min(*length));
            self.go_to(place, now.len())?.extend_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if !self.gathered.is_empty() {
            self.device.write_at(VolumeOffset(self.start), self.gathered)?;
            self.gathered.clear();
        }
        Ok(())
    }
}
