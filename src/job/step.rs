//! The steps of jobs, as progress and timings name them.

/// A step of a job. One job makes some of them, in its own order, and none twice in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Looks among several disks for the one with Windows.
    FindDisk,
    /// Looks among several disks for those of a saved plan.
    MatchDisks,
    /// Opens the image with all files that it refers to, after the recovery of an interrupted run.
    Open,
    /// Looks for the contents that a saved plan names.
    FindFiles,
    /// Reads the partition table, and looks for Windows.
    Inspect,
    /// Compares the image with a saved plan.
    Compare,
    /// Compares two disks, file by file and key by key.
    CompareDisks,
    /// Chooses drivers for the guest.
    ChooseDrivers,
    /// Computes the edits.
    Plan,
    /// Applies the edits to the staged disk.
    Stage,
    /// Waits for the check of the volume as it is before the edit, which runs besides planning and staging.
    CheckVolume,
    /// Reads the staged disk again.
    Verify,
    /// Follows the boot chain.
    CheckBoot,
    /// Writes a new image, and verifies meanwhile what is written.
    Copy,
    /// Writes the staged blocks into the image.
    CommitInPlace,
    /// Writes an overlay.
    CommitOverlay,
    /// Replays the logs of NTFS volumes.
    ReplayLog,
    /// Reads the hives that a registry edit names, and edits them in memory.
    EditRegistry,
    /// Reads the folders of a volume, after its file records.
    CheckFolders,
    /// Reads the undo journal of an interrupted run, or the undo record of the last one.
    ReadJournal,
    /// Compares the image with the undo journal.
    CompareJournal,
    /// Writes the undo record anew, for an image that was copied together with it.
    CopyJournal,
    /// Puts the old content of the image back.
    Restore,
    /// Completes an interrupted run that had written everything.
    CompleteRun,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 24] = [
        Self::FindDisk,
        Self::MatchDisks,
        Self::Open,
        Self::FindFiles,
        Self::Inspect,
        Self::Compare,
        Self::CompareDisks,
        Self::ChooseDrivers,
        Self::Plan,
        Self::Stage,
        Self::CheckVolume,
        Self::Verify,
        Self::CheckBoot,
        Self::Copy,
        Self::CommitInPlace,
        Self::CommitOverlay,
        Self::ReplayLog,
        Self::EditRegistry,
        Self::CheckFolders,
        Self::ReadJournal,
        Self::CompareJournal,
        Self::CopyJournal,
        Self::Restore,
        Self::CompleteRun,
    ];

    /// Its name for programs: `check-volume`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FindDisk => "find-disk",
            Self::MatchDisks => "match-disks",
            Self::Open => "open",
            Self::FindFiles => "find-files",
            Self::Inspect => "inspect",
            Self::Compare => "compare",
            Self::CompareDisks => "compare-disks",
            Self::ChooseDrivers => "choose-drivers",
            Self::Plan => "plan",
            Self::Stage => "stage",
            Self::CheckVolume => "check-volume",
            Self::Verify => "verify",
            Self::CheckBoot => "check-boot",
            Self::Copy => "copy",
            Self::CommitInPlace => "commit",
            Self::CommitOverlay => "commit-overlay",
            Self::ReplayLog => "replay-log",
            Self::EditRegistry => "edit-registry",
            Self::CheckFolders => "check-folders",
            Self::ReadJournal => "read-journal",
            Self::CompareJournal => "compare-journal",
            Self::CopyJournal => "copy-journal",
            Self::Restore => "restore",
            Self::CompleteRun => "complete-run",
        }
    }

    /// What a person reads: "Checking the volume".
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::FindDisk => "Looking for the disk with Windows",
            Self::MatchDisks => "Looking for the disks of the plan",
            Self::Open => "Opening the image",
            Self::FindFiles => "Looking for the plan's files",
            Self::Inspect => "Looking for Windows",
            Self::Compare => "Comparing the image with the plan",
            Self::CompareDisks => "Comparing the disks",
            Self::ChooseDrivers => "Choosing drivers",
            Self::Plan => "Planning",
            Self::Stage => "Writing the changes to the staged disk",
            Self::CheckVolume => "Checking the volume",
            Self::Verify => "Verifying",
            Self::CheckBoot => "Checking whether the guest boots",
            Self::Copy => "Writing and verifying the new image",
            Self::CommitInPlace => "Writing into the image",
            Self::CommitOverlay => "Writing the overlay",
            Self::ReplayLog => "Replaying the NTFS logs",
            Self::EditRegistry => "Editing the registry",
            Self::CheckFolders => "Checking the folders of the volume",
            Self::ReadJournal => "Reading the undo journal",
            Self::CompareJournal => "Comparing the image with the undo journal",
            Self::CopyJournal => "Copying the undo record",
            Self::Restore => "Putting the old content back",
            Self::CompleteRun => "Completing the interrupted run",
        }
    }
}
