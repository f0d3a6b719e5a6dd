//! winject's own service program, which runs the job in the guest. Its source is in `guest/firstboot`.

use sha2::{Digest, Sha256};

use crate::drivers::Arch;
use crate::windows::guest_paths::PROGRAM;

/// The program for a CPU.
#[must_use]
pub fn program(arch: Arch) -> &'static [u8] {
    match arch {
        Arch::X86 => include_bytes!("program/x86.exe"),
        Arch::Amd64 => include_bytes!("program/amd64.exe"),
        Arch::Arm64 => include_bytes!("program/arm64.exe"),
    }
}

/// Whether a file of this path and hash is another program in the place of winject's service program.
#[must_use]
pub fn is_foreign_program(path: &str, sha256: &[u8; 32]) -> bool {
    let is_own = |arch| <[u8; 32]>::from(Sha256::digest(program(arch))) == *sha256;
    path.eq_ignore_ascii_case(PROGRAM) && !Arch::ALL.into_iter().any(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::PeFacts;

    #[test]
    fn each_cpu_has_a_program_of_its_own() {
        for arch in Arch::ALL {
            let facts = PeFacts::parse(program(arch)).unwrap();
            assert_eq!(facts.arch(), Some(arch));
            assert!(program(arch).len() < 128 << 10, "{arch:?}: {} bytes", program(arch).len());
        }
        assert!(!is_foreign_program(PROGRAM, &Sha256::digest(program(Arch::Amd64)).into()));
        assert!(is_foreign_program("/HYPER2KVM/hyper2kvm-firstboot.exe", &[0; 32]));
        assert!(!is_foreign_program("/hyper2kvm/setup.cmd", &[0; 32]));
    }
}
