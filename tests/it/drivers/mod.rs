//! Driver media, INFs, definitions, signatures and the choice for a guest.

pub mod media;

mod corpus;
mod selection;
