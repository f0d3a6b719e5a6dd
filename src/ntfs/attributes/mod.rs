//! The attributes of a file: reading them from its records, changing them, and putting them back.

mod mft;
mod owned;
mod placement;
mod read;
mod remove;
mod store;
mod write;

pub(super) use mft::allocate_record;
pub(super) use owned::{Attributes, OwnedAttribute};
pub(super) use read::{
    attribute_list, base_record, extension_record, load, location_of, resident_value, same_name, stream_of, system_file,
};
pub(super) use remove::remove_attribute;
pub(super) use store::store;
