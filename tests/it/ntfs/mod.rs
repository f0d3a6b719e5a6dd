//! The NTFS reader and writer against foreign judges and foreign readers.

mod basic;
mod corpus;
mod faults;
mod foreign;
mod geometry;
mod hostile;
mod independent;
mod large;
mod log;
mod log_damage;
mod mft;
mod model;
mod shortage;
mod volume;

tests![in basic, corpus, faults, foreign, geometry, hostile, independent, large, log, mft, model, shortage;];
