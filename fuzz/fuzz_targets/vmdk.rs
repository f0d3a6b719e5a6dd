//! VMDK: descriptors and all kinds of extents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::block::Format;

fuzz_target!(|data: &[u8]| winject_fuzz::read_image(data, Some(Format::Vmdk)));
