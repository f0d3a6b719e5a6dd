//! PE files and their embedded signatures.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::drivers::PeFacts;
use winject::internals::drivers::trust::embedded_signature;

fuzz_target!(|data: &[u8]| {
    if let Ok(pe) = PeFacts::parse(data) {
        let report = embedded_signature(data, &pe);
        assert!(report.present == pe.certificates.is_some());
        assert!(!report.is_good() || report.problem.is_none());
    }
});
