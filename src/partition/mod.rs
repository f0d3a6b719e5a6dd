//! Partition tables: MBR and GPT, the volumes they name, and what is refused by name.
//!
//! [`read`] turns the first sectors of a disk into a [`PartitionTable`], and looks at the first sector of every
//! partition, because its *content* decides what it is ([`Content`]): type numbers lie. [`PartitionView`] then makes
//! a volume of one partition.
//!
//! | scheme | what is read |
//! |---|---|
//! | GPT | checksummed primary; the backup when the primary is damaged (with a warning); sectors of 512 and 4096 bytes |
//! | hybrid | a GPT whose MBR names partitions too: the GPT counts |
//! | MBR | four entries and the chain of logical partitions, numbered as Linux does |
//! | bare | a volume without any table |
//!
//! [`BitLockerKeys`] opens BitLocker volumes: the view of such a partition is the plain volume, and what is below it sees
//! ciphertext only.
//!
//! Not read: Apple and BSD tables (named as such), the inner structure of dynamic disks and storage pools (refused).

mod content;
mod disk;
mod encryption;
mod end;
mod format;
mod gpt;
mod id;
mod keys;
mod mbr;
mod read;
mod table;
mod view;

pub use content::Content;
pub use disk::{Disk, DiskWrite, MemoryDisk};
pub use encryption::Encryption;
pub(crate) use end::{FIRST_SECTORS, partitions_end};
pub(crate) use format::MbrSector;
pub use id::{DiskId, PartitionId, read_disk_id, read_partition_id};
pub use keys::{BitLockerKeys, ProtectorId};
pub use read::read;
pub use table::{Partition, PartitionKind, PartitionTable, Scheme};
pub use view::PartitionView;
