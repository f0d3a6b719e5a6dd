//! Guests that were not shut down: their NTFS log is replayed by every job, all or nothing.

mod made;
mod questions;
mod refusals;
mod whole_guests;
mod writes;

tests![in questions, refusals, whole_guests, writes;];
