//! NTFS 3.1: reader, writer and checker.

pub mod compress;
