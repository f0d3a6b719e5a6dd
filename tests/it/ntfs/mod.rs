//! The NTFS reader and writer against foreign judges and foreign readers.

mod basic;
mod volume;
