//! The operations that a log record can name, for redo and for undo alike.

use std::fmt;

macro_rules! operations {
    ($($number:literal $name:ident $words:literal;)*) => {
        /// An operation of the log, by its name in the public descriptions of the format.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the words of each are its text")]
        pub enum Operation {
            $($name = $number,)*
        }

        impl Operation {
            /// All operations in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What the operation does, in words.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }

            /// The name in the descriptions of the format.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

operations! {
    0x00 Noop "do nothing";
    0x01 CompensationLogRecord "compensate an operation";
    0x02 InitializeFileRecordSegment "write a file record";
    0x03 DeallocateFileRecordSegment "free a file record";
    0x04 WriteEndOfFileRecordSegment "replace the end of a file record";
    0x05 CreateAttribute "create an attribute";
    0x06 DeleteAttribute "delete an attribute";
    0x07 UpdateResidentValue "change a resident value";
    0x08 UpdateNonresidentValue "change a non-resident value";
    0x09 UpdateMappingPairs "change the runs of an attribute";
    0x0A DeleteDirtyClusters "free clusters";
    0x0B SetNewAttributeSizes "set the sizes of an attribute";
    0x0C AddIndexEntryRoot "add an entry to an index root";
    0x0D DeleteIndexEntryRoot "delete an entry of an index root";
    0x0E AddIndexEntryAllocation "add an entry to an index block";
    0x0F DeleteIndexEntryAllocation "delete an entry of an index block";
    0x10 WriteEndOfIndexBuffer "replace the end of an index block";
    0x11 SetIndexEntryVcnRoot "set the child of an entry in an index root";
    0x12 SetIndexEntryVcnAllocation "set the child of an entry in an index block";
    0x13 UpdateFileNameRoot "change times and sizes in an index root";
    0x14 UpdateFileNameAllocation "change times and sizes in an index block";
    0x15 SetBitsInNonresidentBitMap "set bits of a bitmap";
    0x16 ClearBitsInNonresidentBitMap "clear bits of a bitmap";
    0x17 HotFix "move a bad cluster";
    0x18 EndTopLevelAction "end a nested action";
    0x19 PrepareTransaction "prepare to commit";
    0x1A CommitTransaction "commit";
    0x1B ForgetTransaction "end the transaction";
    0x1C OpenNonresidentAttribute "open an attribute";
    0x1D OpenAttributeTableDump "list the open attributes";
    0x1E AttributeNamesDump "list the names of open attributes";
    0x1F DirtyPageTableDump "list the dirty pages";
    0x20 TransactionTableDump "list the open transactions";
    0x21 UpdateRecordDataRoot "change the data of an entry in an index root";
    0x22 UpdateRecordDataAllocation "change the data of an entry in an index block";
    0x23 UpdateRelativeDataRoot "add to the data of an entry in an index root";
    0x24 UpdateRelativeDataAllocation "add to the data of an entry in an index block";
    0x25 ZeroEndOfFileRecord "zero the end of a file record";
}

/// What an operation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Nothing on the volume.
    Nothing,
    /// A file record.
    Record,
    /// An index block.
    IndexBlock,
    /// Bytes of a stream: also a whole index block, for [`Operation::UpdateNonresidentValue`].
    Bytes,
}

impl Operation {
    /// From its number in a record.
    #[must_use]
    pub fn from_raw(raw: u16) -> Option<Self> {
        Self::ALL.get(usize::from(raw)).copied()
    }

    pub(super) fn subject(self) -> Subject {
        match self {
            Self::InitializeFileRecordSegment
            | Self::DeallocateFileRecordSegment
            | Self::WriteEndOfFileRecordSegment
            | Self::CreateAttribute
            | Self::DeleteAttribute
            | Self::UpdateResidentValue
            | Self::UpdateMappingPairs
            | Self::SetNewAttributeSizes
            | Self::AddIndexEntryRoot
            | Self::DeleteIndexEntryRoot
            | Self::SetIndexEntryVcnRoot
            | Self::UpdateFileNameRoot
            | Self::UpdateRecordDataRoot
            | Self::UpdateRelativeDataRoot
            | Self::ZeroEndOfFileRecord => Subject::Record,
            Self::AddIndexEntryAllocation
            | Self::DeleteIndexEntryAllocation
            | Self::WriteEndOfIndexBuffer
            | Self::SetIndexEntryVcnAllocation
            | Self::UpdateFileNameAllocation
            | Self::UpdateRecordDataAllocation
            | Self::UpdateRelativeDataAllocation => Subject::IndexBlock,
            Self::UpdateNonresidentValue | Self::SetBitsInNonresidentBitMap | Self::ClearBitsInNonresidentBitMap => {
                Subject::Bytes
            }
            _ => Subject::Nothing,
        }
    }

    /// Whether it changes something on the volume.
    pub(super) fn is_update(self) -> bool {
        self.subject() != Subject::Nothing
    }

    /// Whether it needs no bytes of its own, whatever length the record gives.
    pub(super) fn needs_no_data(self) -> bool {
        matches!(
            self,
            Self::Noop
                | Self::CompensationLogRecord
                | Self::DeallocateFileRecordSegment
                | Self::DeleteAttribute
                | Self::DeleteIndexEntryRoot
                | Self::DeleteIndexEntryAllocation
                | Self::EndTopLevelAction
                | Self::PrepareTransaction
                | Self::CommitTransaction
                | Self::ForgetTransaction
                | Self::ZeroEndOfFileRecord
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}
