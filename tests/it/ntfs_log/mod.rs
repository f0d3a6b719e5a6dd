//! Guests that were not shut down: their NTFS log is replayed by every job, all or nothing.

mod made;
mod questions;
mod refusals;
mod writes;

tests![in questions, refusals, writes;];
