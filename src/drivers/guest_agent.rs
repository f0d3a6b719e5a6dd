//! The installer of the QEMU guest agent on driver media.

use std::sync::Arc;

use super::guest::Arch;
use super::package::PackageFile;
use super::source::{Source, SourceFile, Sources};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// Its folder on virtio-win media; a file of the name in another folder does as well.
const FOLDER: &str = "guest-agent";
/// What an MSI begins with: it is an OLE compound file ([MS-CFB] 2.2).
pub(crate) const COMPOUND_FILE: [u8; 8] = [0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1];

/// Its names for a CPU, those of newer media first.
const fn names(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => &["qemu-ga-x86_64.msi", "qemu-ga-x64.msi"],
        Arch::X86 => &["qemu-ga-i386.msi", "qemu-ga-x86.msi"],
        Arch::Arm64 => &["qemu-ga-aarch64.msi", "qemu-ga-arm64.msi"],
    }
}

/// Finds the installer for a CPU on the media, whatever the case of its name.
///
/// # Errors
/// [`Kind::Drivers`] when no medium has it, or what has its name is not an MSI; when the media cannot be read.
pub fn find_guest_agent(sources: &Sources, arch: Arch) -> Result<PackageFile> {
    let Some((source, file)) = names(arch).iter().find_map(|name| find(sources, name)) else {
        let looked_for = names(arch).join(" or ");
        return Err(Error::new(
            Kind::Drivers,
            Layer::Drivers,
            format!("cannot find the QEMU guest agent for {arch} on the media"),
        )
        .with_code(ErrorCode::NoGuestAgent)
        .path(sources.describe())
        .expected_found(format_args!("{FOLDER}/{looked_for}"), "no such file")
        .hint("add the media that have it (--drivers virtio-win.iso), or leave out --guest-agent"));
    };
    if source.read_part(file, 0, COMPOUND_FILE.len() as u64)? != COMPOUND_FILE {
        return Err(Error::new(
            Kind::Drivers,
            Layer::Drivers,
            "cannot use the QEMU guest agent: not an MSI (an OLE compound file)",
        )
        .with_code(ErrorCode::NoGuestAgent)
        .path(source.show(&file.path))
        .hint("take another copy of the media, or leave out --guest-agent"));
    }
    PackageFile::of_source(source, file)
}

/// A file of this name: of the first medium that has it, there in its usual folder, else in any.
fn find<'s>(sources: &'s Sources, name: &str) -> Option<(&'s Arc<Source>, &'s SourceFile)> {
    sources.iter().find_map(|source| {
        let usual = source.find(&format!("{FOLDER}/{name}"));
        let any = || source.files().iter().find(|file| file.name().eq_ignore_ascii_case(name));
        usual.or_else(any).map(|file| (source, file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_for_the_cpu_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &[u8]| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        let msi = |mark: u8| [&COMPOUND_FILE[..], &[mark]].concat();
        put("a/Guest-Agent/QEMU-GA-x86_64.MSI", &msi(1));
        put("a/old/qemu-ga-x86_64.msi", &msi(2));
        put("a/old/qemu-ga-x86.msi", &msi(3));
        put("b/guest-agent/qemu-ga-i386.msi", b"not one");
        let open =
            |names: &[&str]| Sources::open(&names.iter().map(|n| folder.path().join(n)).collect::<Vec<_>>()).unwrap();
        let mark = |found: Result<PackageFile>| found.unwrap().read().unwrap().last().copied();
        assert_eq!(mark(find_guest_agent(&open(&["a"]), Arch::Amd64)), Some(1));
        assert_eq!(mark(find_guest_agent(&open(&["a"]), Arch::X86)), Some(3));
        let wrong = find_guest_agent(&open(&["a", "b"]), Arch::X86).unwrap_err();
        assert!(wrong.kind() == Kind::Drivers && wrong.to_string().contains("not an MSI"), "{wrong}");
        let missing = find_guest_agent(&open(&["a"]), Arch::Arm64).unwrap_err();
        assert_eq!(missing.kind(), Kind::Drivers);
        assert!(
            missing.to_string().contains("qemu-ga-aarch64.msi") && missing.hint_text().unwrap().contains("--drivers")
        );
    }
}
