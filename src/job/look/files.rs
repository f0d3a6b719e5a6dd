//! The files of one volume of an image, NTFS or FAT.

use std::path::PathBuf;

use serde::Serialize;

use crate::block::{self, Image};
use crate::error::{Error, Kind, Layer, Result};
use crate::fat::{FatEntry, FatFile, FatVolume};
use crate::job::explain::explain;
use crate::job::locate::locate_partition;
use crate::job::log_replay::unreplayed;
use crate::ntfs::format::name::{Namespace, NtfsName};
use crate::ntfs::format::units::{FileId, RecordNumber};
use crate::ntfs::{OpaqueAttributes, OpenContent, OpenOptions, Replay, Volume};
use crate::partition::{BitLockerKeys, Content, Disk, Partition, PartitionTable, PartitionView};

/// `FILE_ATTRIBUTE_REPARSE_POINT`.
const REPARSE_POINT: u32 = 0x400;

/// The volume to look into.
#[derive(Debug, Clone)]
pub struct LookRequest {
    /// Path of the image.
    pub image: PathBuf,
    /// How the image is opened: format, disk of an OVA, files that it may refer to.
    pub options: block::OpenOptions,
    /// Whether an open NTFS log is replayed in memory.
    pub replay: Replay,
    /// What opens the BitLocker volumes of the image.
    pub bitlocker: BitLockerKeys,
    /// Number of the partition, as Linux counts; `None`: the one with Windows, or the only one that can be read.
    pub partition: Option<u32>,
}

/// Opens a volume and shows it to `look`. Writes nothing into the image.
///
/// # Errors
/// When the image cannot be opened, when it has no such volume, and what `look` returns.
pub fn look_into<T>(request: &LookRequest, look: impl FnOnce(&Files<'_>) -> Result<T>) -> Result<T> {
    let open = || {
        let image = block::open(&request.image, &request.options)?;
        let disk: &dyn Image = &*image;
        let at_image = |error: Error| error.path(request.image.display().to_string());
        let table = request.bitlocker.read_partitions(disk).map_err(at_image)?.with_replay(request.replay);
        let partition = choose(disk, &table, request)?;
        let files = Files::open(&disk, disk.files(), &partition)?;
        look(&files)
    };
    open().map_err(explain)
}

fn choose(disk: &dyn Image, table: &PartitionTable, request: &LookRequest) -> Result<Partition> {
    if let Some(number) = request.partition {
        return table.partition(number).cloned();
    }
    match locate_partition(&disk, table, None) {
        Err(error) if error.kind() == Kind::NotWindows => {
            let readable = |partition: &&Partition| matches!(partition.content, Content::Ntfs | Content::Fat);
            let volumes: Vec<&Partition> = table.partitions.iter().filter(readable).collect();
            match volumes.as_slice() {
                [only] => Ok((*only).clone()),
                [] => Err(error),
                several => {
                    let list: Vec<String> =
                        several.iter().map(|p| format!("--partition {}: {}", p.number, p.content)).collect();
                    Err(Error::new(Kind::Usage, Layer::Job, "the disk has several volumes, and none with Windows")
                        .hint(format!("choose one: {}", list.join("; "))))
                }
            }
        }
        found => found,
    }
}

/// An open volume.
pub struct Files<'a> {
    partition: Partition,
    /// The files that make up the image.
    pub(crate) image_files: Vec<PathBuf>,
    volume: FileSystem<'a>,
}

enum FileSystem<'a> {
    Ntfs(Box<Volume<PartitionView<&'a dyn Disk>>>),
    Fat(FatVolume<PartitionView<&'a dyn Disk>>),
}

/// What a [`Node`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link or a junction, which is not followed.
    Link,
}

/// A file, folder or link of a volume.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Whether it belongs to the file system itself, and is not shown unless asked for (`$MFT` …).
    pub is_metadata: bool,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Ntfs(FileId),
    Fat(FatEntry),
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Details {
    /// What it is.
    pub kind: NodeKind,
    /// Bytes of the content; 0 for a folder.
    pub size: u64,
    /// Time of the last change of the content, as ISO 8601: in UTC for NTFS, by the guest's clock (without a zone) for FAT.
    pub modified: Option<String>,
    /// DOS attributes (`FILE_ATTRIBUTE_…`).
    pub attributes: u32,
    /// Names of the alternate data streams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// The path that a link leads to, as Windows shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it has other names (hard links).
    #[serde(skip)]
    pub is_hard_linked: bool,
}

/// The content of a file, or of one of its streams, opened for reading.
pub(in super::super) struct Opened<'f> {
    files: &'f Files<'f>,
    source: Source,
}

enum Source {
    Ntfs(OpenContent),
    Fat(FatFile),
}

impl<'a> Files<'a> {
    /// Opens a volume. `image_files` are the files of the host that make up the disk.
    ///
    /// # Errors
    /// When it is not a volume that can be read, or it is damaged.
    pub(in super::super) fn open(disk: &'a dyn Disk, image_files: Vec<PathBuf>, partition: &Partition) -> Result<Self> {
        let view = PartitionView::new(disk, partition)?;
        let volume = match partition.content {
            Content::Ntfs => {
                let volume = Volume::open_shared(view, &partition.replay, &OpenOptions::read_only());
                volume.map(|volume| FileSystem::Ntfs(Box::new(volume)))
            }
            Content::Fat => FatVolume::open(view).map(FileSystem::Fat),
            _ => Err(partition.refusal().unwrap_or_else(|| {
                Error::unsupported(Layer::Partition, "neither an NTFS nor a FAT volume")
                    .hint("winject inspect IMAGE shows what the image holds")
            })),
        };
        let volume = volume.map_err(|error| error.path(partition.label()))?;
        Ok(Self { partition: partition.clone(), image_files, volume })
    }

    /// The NTFS volume; `None` for FAT.
    pub(in super::super) fn ntfs(&self) -> Option<&Volume<PartitionView<&'a dyn Disk>>> {
        match &self.volume {
            FileSystem::Ntfs(volume) => Some(volume),
            FileSystem::Fat(_) => None,
        }
    }

    /// The partition that the volume lies in.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// A warning, if the volume is shown as it lies on the disk because its log cannot be replayed.
    #[must_use]
    pub fn log_warning(&self) -> Option<String> {
        self.ntfs().and_then(|volume| unreplayed(volume, &self.partition))
    }

    /// The root folder.
    #[must_use]
    pub fn root(&self) -> Node {
        let place = match &self.volume {
            FileSystem::Ntfs(_) => Place::Ntfs(FileId::ROOT),
            FileSystem::Fat(fat) => Place::Fat(fat.root()),
        };
        Node { kind: NodeKind::Folder, is_metadata: false, place }
    }

    /// What lies in a folder, each with its name, in the order of the folder.
    ///
    /// # Errors
    /// Damaged, or the image cannot be read.
    pub fn list(&self, folder: &Node) -> Result<Vec<(NtfsName, Node)>> {
        match (&self.volume, &folder.place) {
            (FileSystem::Ntfs(volume), Place::Ntfs(id)) => {
                let entries = volume.entries(*id)?.into_iter();
                // The root folder is an entry of itself.
                let wanted = entries.filter(|e| e.namespace != Namespace::Dos && e.file.record != id.record);
                wanted.map(|e| Ok((e.name, self.ntfs_node(volume, e.file, e.is_dir, e.attributes)?))).collect()
            }
            (FileSystem::Fat(fat), Place::Fat(entry)) => {
                let entries = fat.entries(entry)?.into_iter();
                Ok(entries.map(|entry| (entry.name.as_str().into(), fat_node(entry))).collect())
            }
            _ => Err(another_volume()),
        }
    }

    /// The file of this name in a folder, case ignored; on FAT also by its short name.
    ///
    /// # Errors
    /// Damaged, or the image cannot be read.
    pub(super) fn find(&self, folder: &Node, name: &str) -> Result<Option<Node>> {
        match (&self.volume, &folder.place) {
            (FileSystem::Ntfs(volume), Place::Ntfs(id)) => {
                let Some(file) = volume.find_in(*id, name)? else { return Ok(None) };
                let stat = volume.stat(file)?;
                self.ntfs_node(volume, file, stat.is_dir, stat.attributes).map(Some)
            }
            (FileSystem::Fat(fat), Place::Fat(entry)) => Ok(fat.find_in(entry, name)?.map(fat_node)),
            _ => Err(another_volume()),
        }
    }

    fn ntfs_node(
        &self,
        volume: &Volume<PartitionView<&'a dyn Disk>>,
        file: FileId,
        is_dir: bool,
        attributes: u32,
    ) -> Result<Node> {
        // Deduplicated, compressed and cloud files are reparse points, too.
        let is_link = attributes & REPARSE_POINT != 0 && volume.link_target(file)?.is_some();
        let kind = match (is_link, is_dir) {
            (true, _) => NodeKind::Link,
            (false, true) => NodeKind::Folder,
            (false, false) => NodeKind::File,
        };
        let is_metadata = file.record < RecordNumber::FIRST_USER && file.record != RecordNumber::ROOT;
        Ok(Node { kind, is_metadata, place: Place::Ntfs(file) })
    }

    /// Size, time, attributes, streams of a file.
    ///
    /// # Errors
    /// Damaged, or the image cannot be read.
    pub fn details(&self, node: &Node) -> Result<Details> {
        let kind = node.kind;
        match (&self.volume, &node.place) {
            (FileSystem::Ntfs(volume), Place::Ntfs(file)) => {
                let stat = volume.stat(*file)?;
                Ok(Details {
                    kind,
                    size: stat.size,
                    modified: Some(stat.times.modified.to_string()),
                    attributes: stat.attributes,
                    streams: stat.streams.iter().map(ToString::to_string).collect(),
                    target: if kind == NodeKind::Link { volume.link_target(*file)? } else { None },
                    is_hard_linked: stat.is_hard_linked,
                })
            }
            (FileSystem::Fat(_), Place::Fat(entry)) => Ok(Details {
                kind,
                size: entry.size(),
                modified: entry.modified.map(|time| time.to_string().trim_end_matches('Z').to_owned()),
                attributes: entry.attributes(),
                streams: Vec::new(),
                target: None,
                is_hard_linked: false,
            }),
            _ => Err(another_volume()),
        }
    }

    /// Reparse point, extended attributes and object id of a file; FAT has none of them.
    ///
    /// # Errors
    /// Damaged, or the image cannot be read.
    pub(in super::super) fn opaque_attributes(&self, node: &Node) -> Result<OpaqueAttributes> {
        match (&self.volume, &node.place) {
            (FileSystem::Ntfs(volume), Place::Ntfs(file)) => volume.opaque_attributes(*file),
            (FileSystem::Fat(_), Place::Fat(_)) => Ok(OpaqueAttributes::default()),
            _ => Err(another_volume()),
        }
    }

    /// A number that is the same for every name of one folder.
    pub(in super::super) fn identity(&self, node: &Node) -> u64 {
        match &node.place {
            Place::Ntfs(file) => file.record.0,
            Place::Fat(entry) => entry.first_cluster().into(),
        }
    }

    /// Opens the content of a file (`stream` empty) or one of its streams.
    ///
    /// # Errors
    /// Damaged, no such stream, content that is encrypted or elsewhere, or the image cannot be read.
    pub(in super::super) fn open_content(&self, node: &Node, stream: &str) -> Result<Opened<'_>> {
        let source = match (&self.volume, &node.place) {
            (FileSystem::Ntfs(volume), Place::Ntfs(file)) => Source::Ntfs(volume.open_content(*file, stream)?),
            (FileSystem::Fat(_), Place::Fat(_)) if !stream.is_empty() => {
                return Err(Error::new(Kind::Usage, Layer::Job, "files on FAT have no streams")
                    .hint("leave out the part after the colon"));
            }
            (FileSystem::Fat(fat), Place::Fat(entry)) => Source::Fat(fat.open_file(entry)?),
            _ => return Err(another_volume()),
        };
        Ok(Opened { files: self, source })
    }
}

impl Opened<'_> {
    /// Reads from `offset`; returns how many bytes there were, fewer than asked for only at the end.
    ///
    /// # Errors
    /// Damaged, or the image cannot be read.
    pub(in super::super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match (&self.files.volume, &self.source) {
            (FileSystem::Ntfs(volume), Source::Ntfs(content)) => volume.read_content(content, offset, buf),
            (FileSystem::Fat(fat), Source::Fat(file)) => fat.read_file(file, offset, buf),
            _ => Err(another_volume()),
        }
    }

    /// Bytes of content.
    pub(in super::super) fn length(&self) -> u64 {
        match &self.source {
            Source::Ntfs(content) => content.length(),
            Source::Fat(file) => file.size(),
        }
    }

    /// Where data go on at or after `offset`: what lies before it is a hole. The length if no data follow.
    pub(in super::super) fn next_data(&self, offset: u64) -> u64 {
        match (&self.files.volume, &self.source) {
            (FileSystem::Ntfs(volume), Source::Ntfs(content)) => volume.next_data(content, offset),
            _ => offset.min(self.length()),
        }
    }
}

fn fat_node(entry: FatEntry) -> Node {
    let kind = if entry.is_folder() { NodeKind::Folder } else { NodeKind::File };
    Node { kind, is_metadata: false, place: Place::Fat(entry) }
}

fn another_volume() -> Error {
    Error::bug(Layer::Job, "a file of another volume")
}
