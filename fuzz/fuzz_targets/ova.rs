//! OVA files and whatever else opens by content.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| winject_fuzz::read_image(data, None));
