//! The stable names of errors, one for each refusal that a user can act on.
//!
//! `winject explain CODE` prints the page of a code (`cli/explain`). The names are a promise to scripts; what an error says may
//! change freely.

use std::fmt;

/// Makes an enum whose variants have stable names: `Variant "name"`.
macro_rules! codes {
    ($(#[$about:meta])* $type:ident: $($(#[doc = $doc:literal])+ $variant:ident $name:literal),* $(,)?) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[doc = $doc])+ $variant),*
        }

        impl $type {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name, in lower case and with hyphens.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

pub(crate) use codes;

codes! {
    /// What an [`Error`](crate::Error) is called, finer than its [`Kind`](crate::Kind).
    ErrorCode:
    // One for each kind, where nothing more exact is known.
    /// The command line or a document makes no sense.
    Usage "usage",
    /// Refused, for the reason that the message states.
    Refused "refused",
    /// Legal, but not supported.
    Unsupported "unsupported",
    /// No Windows was found.
    NoWindows "no-windows",
    /// The image contradicts its own format.
    Damaged "damaged",
    /// The driver media cannot be used.
    Drivers "drivers",
    /// The host failed.
    Io "io",
    /// The staged disk is not as planned, or would not boot.
    VerifyFailed "verify-failed",
    /// An interrupted run left a journal.
    JournalPending "journal-pending",
    /// The image has changed since the plan was made.
    PlanStale "plan-stale",
    /// The run was interrupted.
    Cancelled "cancelled",
    /// A defect of winject.
    Defect "defect",

    // Files of the host.
    /// A file or folder does not exist.
    FileNotFound "file-not-found",
    /// The host does not permit the access.
    PermissionDenied "permission-denied",
    /// The host's disk or quota is full.
    NoSpace "no-space",
    /// The output file exists, and may not be replaced.
    OutputExists "output-exists",
    /// The output is also a file that the run reads or writes.
    OutputIsInput "output-is-input",
    /// An output cannot be written under this name.
    OutputName "output-name",
    /// Another program uses the image.
    ImageInUse "image-in-use",
    /// The file changed while winject worked on it.
    FileChanged "file-changed",
    /// The file has several names (hard links).
    HardLinks "hard-links",
    /// The image names a file outside of its own folder, or something that is not a plain file.
    OutsideReference "outside-reference",
    /// No destination was given.
    NoDestination "no-destination",

    // Batches.
    /// Another run of a batch writes into the results folder.
    ResultsInUse "results-in-use",
    /// The results folder has no space.
    ResultsFull "results-full",
    /// A worker of a batch needs more memory than its part.
    WorkerMemory "worker-memory",

    // NBD.
    /// The URI of an NBD export cannot be used.
    NbdUri "nbd-uri",
    /// The NBD server demands TLS, or the URI does.
    NbdTls "nbd-tls",
    /// The NBD server does not answer, or the connection to it was lost.
    NbdUnreachable "nbd-unreachable",
    /// The NBD server answers, and the export cannot be used.
    NbdServer "nbd-server",
    /// The server exports the disk read-only.
    NbdReadOnly "nbd-read-only",
    /// The server does not make writes durable.
    NbdNoFlush "nbd-no-flush",
    /// The export is smaller than the disk that it is to hold.
    NbdTooSmall "nbd-too-small",
    /// A copy to an export failed in the middle.
    NbdIncomplete "nbd-incomplete",
    /// No folder for the journal of an edit over NBD.
    NbdJournal "nbd-journal",
    /// The command needs a file, not an export.
    NbdFileNeeded "nbd-file-needed",

    // Containers.
    /// The file is not a disk image that winject reads.
    NotADiskImage "not-a-disk-image",
    /// The container is encrypted.
    ImageEncrypted "image-encrypted",
    /// The image does not name the format of its backing file.
    BackingFormatMissing "backing-format-missing",
    /// The image is marked corrupt.
    ImageMarkedCorrupt "image-marked-corrupt",
    /// The file is one extent of a VMDK, not its descriptor.
    VmdkExtent "vmdk-extent",
    /// The archive holds several disks.
    SeveralDisks "several-disks",
    /// Images of this format cannot be edited in place.
    NotEditableInPlace "not-editable-in-place",

    // The disk and its volumes.
    /// The disk has neither a partition table nor a known volume.
    NoPartitions "no-partitions",
    /// The disk has no partition of this number.
    NoSuchPartition "no-such-partition",
    /// The disk is dynamic (Logical Disk Manager).
    DynamicDisk "dynamic-disk",
    /// The partition belongs to a storage pool.
    StorageSpaces "storage-spaces",
    /// The volume holds another file system than NTFS.
    NotNtfs "not-ntfs",
    /// The volume is encrypted, and nothing that was given opens it.
    BitLockerLocked "bitlocker-locked",
    /// The volume is in a state of BitLocker in which it is not written, or not read.
    BitLockerState "bitlocker-state",
    /// Windows is hibernated, or was shut down with fast startup.
    Hibernated "hibernated",
    /// The volume is marked for checking.
    VolumeDirty "volume-dirty",
    /// The NTFS log is not closed, and is not to be replayed.
    LogUnclean "log-unclean",
    /// The NTFS log cannot be replayed.
    LogNotReplayable "log-not-replayable",
    /// The volume has too little free space.
    VolumeFull "volume-full",
    /// The file is encrypted (EFS).
    FileEncrypted "file-encrypted",
    /// No file of that name on the volume.
    NoSuchFile "no-such-file",

    // Windows.
    /// There are several Windows installations, and none was chosen.
    SeveralWindows "several-windows",
    /// winject does not inject drivers into a Windows this old.
    WindowsTooOld "windows-too-old",
    /// The files that start Windows cannot be edited as they are.
    BootVolume "boot-volume",
    /// The manifest of winject in the guest cannot be used.
    ManifestUnusable "manifest-unusable",
    /// The first-boot job cannot be written.
    FirstBootJob "first-boot-job",
    /// A file of the user cannot be put there.
    Upload "upload",
    /// The guest would not boot, for a reason that the edit does not touch.
    BootChainBroken "boot-chain-broken",
    /// The guest would boot from no disk any more.
    WouldNotBoot "would-not-boot",

    // Drivers.
    /// No driver media were given.
    NoDrivers "no-drivers",
    /// No driver on the media fits this Windows.
    NoDriverForWindows "no-driver-for-windows",
    /// The driver's signature does not satisfy the policy.
    DriverUnsigned "driver-unsigned",
    /// A driver package is incomplete or damaged.
    DriverBroken "driver-broken",
    /// The media do not have the QEMU guest agent.
    NoGuestAgent "no-guest-agent",

    // Plans, journals, undo.
    /// The saved plan is not one that winject writes.
    PlanInvalid "plan-invalid",
    /// Options of `apply` differ from those of the plan.
    PlanOptions "plan-options",
    /// The journal of an interrupted run is damaged, or belongs to another file.
    JournalUnusable "journal-unusable",
    /// The image has no undo record.
    NoUndoRecord "no-undo-record",
    /// The undo record is not this image's.
    UndoRecordUnusable "undo-record-unusable",
    /// Something else has written to the image since the edit.
    UndoConflict "undo-conflict",

    // The registry.
    /// The file is not a registry hive.
    NotAHive "not-a-hive",
    /// No key or value of that name.
    NoSuchKey "no-such-key",
    /// The key does not belong to this hive.
    KeyElsewhere "key-elsewhere",
    /// The `.reg` file cannot be read.
    RegFile "reg-file",
}

/// The command that explains a code of an error or of a finding.
pub(crate) fn explain_command(code: &str) -> String {
    format!("winject explain {code}")
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
