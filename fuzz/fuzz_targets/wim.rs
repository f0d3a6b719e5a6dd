//! WIM files: header, lookup table, directory tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::io::MemoryVolume;
use winject::internals::wim::Wim;

fuzz_target!(|data: &[u8]| {
    let Ok(wim) = Wim::open(MemoryVolume(data.to_vec())) else { return };
    let Ok(lookup) = wim.look_up(&[[7; 20]]) else { return };
    let Ok(mut tree) = wim.tree(&lookup, wim.boot_image()) else { return };
    let _ = tree.find("Windows/System32/drivers/viostor.sys");
});
