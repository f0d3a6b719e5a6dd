//! INFs: whatever the bytes, an answer or an error with a place; what was read is the same when read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::drivers::inf::Inf;
use winject::internals::drivers::{Arch, GuestTarget};

fuzz_target!(|data: &[u8]| {
    let Ok(inf) = Inf::parse(data, "x.inf") else { return };
    for arch in Arch::ALL {
        for (build, server) in [(2600, false), (7601, true), (26100, false)] {
            let guest = GuestTarget::of_build(arch, build, server);
            if let Ok(facts) = inf.facts(&guest) {
                assert!(facts.models.is_empty() || inf.misfit(&guest).is_none());
                assert_eq!(inf.facts(&guest).unwrap(), facts);
            }
        }
    }
});
