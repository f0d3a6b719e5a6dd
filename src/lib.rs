//! winject makes a switched-off Windows disk image bootable from a virtio disk.
//!
//! Data flows one way: image → stage (copy on write, in memory) → inspect → plan → apply on the stage → verify →
//! commit. Nothing writes to the user's file before verification has passed.
//!
//! # The whole job
//!
//! [`inject`] does it all: it opens the image, finds Windows, chooses drivers for it, writes them and their registry
//! entries to the stage, verifies what was written, and puts the result where the [`Destination`] says.
//!
//! ```no_run
//! use winject::{Destination, FileTime, InjectRequest, Silent, inject};
//!
//! # fn main() -> winject::Result<()> {
//! let overlay = Destination::Overlay("guest-virtio.qcow2".into());
//! let request = InjectRequest::new("guest.vmdk", vec!["virtio-win.iso".into()], overlay, FileTime::now());
//! let report = inject(&request, &Silent)?;
//! println!("{}", report.summary);
//! # Ok(())
//! # }
//! ```
//!
//! Of a machine with several disks a request takes all: [`InjectRequest::other_disks`].
//!
//! ```no_run
//! # use winject::{Destination, FileTime, InjectRequest, Silent, inject};
//! # fn main() -> winject::Result<()> {
//! let drivers = vec!["virtio-win.iso".into()];
//! let request = InjectRequest {
//!     other_disks: vec!["boot.vmdk".into(), "data.vmdk".into()],
//!     ..InjectRequest::new("system.vmdk", drivers, Destination::Overlay("new.qcow2".into()), FileTime::now())
//! };
//! println!("Windows is on {}", inject(&request, &Silent)?.run.image);
//! # Ok(())
//! # }
//! ```
//!
//! [`plan()`] writes nothing and makes a document of the changes, which others can review; [`apply()`] does exactly what
//! the document says. [`undo()`] takes the last edit in place back, [`remove()`] takes out of a guest what winject put
//! there, [`recover()`] deals with an edit in place that was interrupted, and [`inspect()`] only looks. An [`Observer`] is
//! told about progress, a [`Cancel`] stops a job, which then leaves everything
//! as it was. Every [`Error`] has a [`Kind`] that a program can match on, a place and a remedy.
//!
//! # The parts
//!
//! They can be used on their own: [`open_image`] reads raw, qcow2, VMDK, VHD, VHDX, VDI and OVA; [`read_partitions`]
//! reads MBR and GPT; [`NtfsVolume`] reads and writes NTFS; [`Hive`] reads and edits registry hives. A [`Stage`] over an
//! image takes writes without touching it.
//!
//! ```no_run
//! use winject::{ImageOptions, NtfsOptions, NtfsVolume, PartitionView, open_image, read_partitions};
//!
//! # fn main() -> winject::Result<()> {
//! let image = open_image("guest.vmdk".as_ref(), &ImageOptions::default())?;
//! let table = read_partitions(image.as_ref())?;
//! let view = PartitionView::new(image.as_ref(), table.partition(2)?)?;
//! let volume = NtfsVolume::open(view, &NtfsOptions::read_only())?;
//! if let Some(file) = volume.find("/Windows/win.ini")? {
//!     println!("{} bytes", volume.read(file, 1 << 20)?.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `cli` (on by default) is the command `winject`; without it the library comes without the crates for arguments,
//! progress bars and signals.

// some functions are called by the command only
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

#[doc(hidden)]
pub mod internals;

#[cfg(feature = "cli")]
use internals::cli;
use internals::{
    bitlocker, block, cancel, clock, drivers, error, error_code, escape, exit, fat, field, fleet, guid, hex, hive,
    host, io, iso, job, nbd, ntfs, partition, plan, schema, sync, units, upcase, wim, windows, xml, yaml,
};

pub use bitlocker::Secret as BitLockerSecret;
pub use block::commit::{Recovered, Recovery, UndoOptions, Undone};
pub use block::convert::Compression;
pub use block::{Format, Image, OpenOptions as ImageOptions, PathPolicy, Stage, StageOptions, open as open_image};
pub use cancel::Cancel;
pub use clock::FileTime;
pub use drivers::{Policy as SignaturePolicy, SignatureLevel};
pub use error::{Error, ErrorCode, Kind, Layer, Place, Result};
pub use hive::{Hive, KeyId, RegistryData, RegistryValue, ValueType};
pub use job::report;
pub use job::{
    Destination, InjectRequest, Inspection, LogReplayOutcome, LogReplayRequest, Observer, RemoveOptions, Report,
    SavablePlan, SavedPlan, Silent, StateOverrides, Step, VolumeLog, apply, forget_undo, inject, inspect, plan,
    read_logs, recover, remove, replay_logs, undo,
};
pub use ntfs::{
    FileId, OpenOptions as NtfsOptions, Overlaid as NtfsOverlaid, Replay as NtfsReplay, Volume as NtfsVolume,
};
pub use partition::{
    BitLockerKeys, Encryption, Partition, PartitionTable, PartitionView, ProtectorId, read as read_partitions,
};
pub use units::ImageOffset;
pub use windows::{
    DataDisks, ExtrasOptions, FirstBootMethod, FirstBootOptions, FormerAdapter, Hypervisor, InjectOptions, Mac,
    NetworkOptions, NewMac, Reboot, Registration, RepairOptions, Upload,
};

/// The parts of the document of a saved plan.
pub mod saved_plan {
    pub use super::plan::saved::{
        BusVerdict, DiskFacts, DriverFact, Expects, FileFact, FindingFact, FindingLevel, Hex64, HiveFacts, LogFile,
        LogReplayFacts, OtherDiskFacts, PartitionFacts, PlanDocument, ReadRange, ReadSet, SavedEdit, SavedFile,
        SavedFileContent, SavedStep, Sha256Sum, StateFacts, Verdict, VolumeFacts, WindowsFacts,
    };
}

/// Types that appear in fields and signatures of the items above.
pub mod types {
    pub use super::bitlocker::{
        Cipher, Metadata as BitLockerMetadata, OpenedBy, Protector, ProtectorKind, State, Variant,
    };
    pub use super::block::{Extent, ExtentKind};
    pub use super::drivers::{Arch, ProductType, Skipped};
    pub use super::guid::Guid;
    pub use super::hive::{Name as RegistryName, Replay};
    pub use super::io::{VolumeRead, VolumeWrite};
    pub use super::job::{BitLockerStart, Fault, FoundWindows};
    pub use super::nbd::{NbdOptions, StatusHook};
    pub use super::ntfs::{
        CreateOptions, DirectoryEntry, Namespace, NtfsName, RecordNumber, Security, ShortNames, Stat, Times,
    };
    pub use super::partition::{Content, Disk, DiskWrite, PartitionKind, Scheme};
    pub use super::plan::{Access, Change, GuestHive, Plan, Step};
    pub use super::units::VolumeOffset;
    pub use super::windows::{
        Adapter, AdapterKind, DnsRegistration, Ipv4Address, Ipv4Gateway, Ipv4Route, Ipv4Settings, Ipv6Address,
        Ipv6Route, Ipv6Settings, MacSource, Network, RecordedMac,
    };
    pub use super::windows::{
        BootCheck, Bus, Code, ControlSet, Controller, Finding, Firmware, FirstBootOutcome, FirstBootState, Gate, Guest,
        JobResult, Level, Route, StepResult,
    };
}
