//! Catalogues and certificates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::drivers::trust::{Catalogue, Publisher, embedded_signature_alone};

fuzz_target!(|data: &[u8]| {
    if let Ok(catalogue) = Catalogue::parse(data) {
        // any hash can be put into a list, but not without the signature's digest of the list showing it
        assert!(!(catalogue.is_intact() && catalogue.lists(b"a file that nobody signed")));
    }
    let _ = Publisher::parse(data, "x.cer");
    assert!(!embedded_signature_alone(data).matches);
});
