//! Edits of the boot volume: FAT file systems by foreign judges, and whole runs.

mod dos;
mod fat;
mod runs;

tests![in dos, fat, runs;];
