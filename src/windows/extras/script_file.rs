//! A script or program of the user for the first boot: which kinds there are, and the bytes that the guest gets.

use std::path::Path;

use crate::drivers::{Arch, COMPOUND_FILE, PackageFile};
use crate::error::{Error, Kind, Layer, Result};
use crate::field::utf16_from_le;
use crate::host;
use crate::plan::Content;
use crate::plan::saved::FILE_BYTES_MAX;

/// Largest script that is read, in bytes.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;
/// The first bytes of a program that are looked at: enough for the header of any.
const HEAD_BYTES: u64 = 4096;
/// What files are called in messages.
const WHAT: &str = "the first-boot script";

/// The kinds of files that the first boot runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptKind {
    /// `.cmd` or `.bat`.
    Batch,
    /// `.ps1`.
    PowerShell,
    /// `.exe`.
    Program,
    /// `.msi`.
    Package,
}

/// A file for the first boot.
pub struct ScriptFile {
    pub kind: ScriptKind,
    pub content: Content,
    /// What was changed in it, so that Windows reads it; `None` if nothing.
    pub converted: Option<&'static str>,
}

impl ScriptKind {
    /// By the ending of the name.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "cmd" | "bat" => Some(Self::Batch),
            "ps1" => Some(Self::PowerShell),
            "exe" => Some(Self::Program),
            "msi" => Some(Self::Package),
            _ => None,
        }
    }
}

impl ScriptFile {
    /// Reads a file of the host, and brings a script into the encoding that Windows reads.
    ///
    /// # Errors
    /// [`Kind::Io`] when it cannot be read; [`Kind::Usage`] when it is not one of the kinds, or cannot run in a guest of this CPU.
    pub fn read(path: &Path, arch: Arch) -> Result<Self> {
        let Some(kind) = ScriptKind::of(path) else {
            return Err(refuse(path, "the ending of its name is not one that Windows runs")
                .hint("--firstboot takes .cmd, .bat, .ps1, .exe and .msi; put others into the guest with --upload"));
        };
        if let ScriptKind::Program | ScriptKind::Package = kind {
            let file = PackageFile::of_host(path, WHAT, FILE_BYTES_MAX)
                .map_err(|error| error.hint("--firstboot takes a file of at most 4 GiB"))?;
            let mut head = vec![0; usize::try_from(file.size.min(HEAD_BYTES)).unwrap_or(0)];
            file.read_at(0, &mut head)?;
            let judged = if kind == ScriptKind::Program { judge_program(&head, arch) } else { judge_package(&head) };
            judged.map_err(|why| refuse(path, &why).hint("name another file with --firstboot"))?;
            return Ok(Self { kind, content: Content::of_package(&file), converted: None });
        }
        let bytes =
            host::read(path, SCRIPT_BYTES_MAX).map_err(|error| error.into_error(WHAT, path, Layer::Windows)).map_err(
                |error| error.hint("--firstboot takes a script of at most 1 MiB; larger files go in with --upload"),
            )?;
        let converted = if kind == ScriptKind::Batch { to_batch(&bytes) } else { to_powershell(&bytes) };
        let (bytes, converted) = converted.map_err(|(why, hint)| refuse(path, &why).hint(hint))?;
        Ok(Self { kind, content: Content::new(bytes), converted })
    }
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::new(Kind::Usage, Layer::Windows, format!("cannot use {WHAT}: {why}")).path(path.display().to_string())
}

/// Whether these are the first bytes of a program for this CPU. Windows for amd64 runs those for x86, and for ARM64 both.
fn judge_program(head: &[u8], arch: Arch) -> std::result::Result<(), String> {
    let machine = || {
        let at = usize::try_from(u32::from_le_bytes(head.get(0x3C..0x40)?.try_into().ok()?)).ok()?;
        let signature = head.get(at..at.checked_add(6)?)?;
        signature.strip_prefix(b"PE\0\0").and_then(|machine| Some(u16::from_le_bytes(machine.try_into().ok()?)))
    };
    let machine = machine().filter(|_| head.starts_with(b"MZ"));
    let machine = machine.ok_or("it is not a program of Windows (PE)")?;
    let runs = match machine {
        0x014C => true,
        0x8664 => arch != Arch::X86,
        0xAA64 => arch == Arch::Arm64,
        _ => false,
    };
    if runs {
        Ok(())
    } else {
        Err(format!("it is a program for another CPU ({machine:#06x}) than the guest's ({arch})"))
    }
}

/// Whether these are the first bytes of an MSI.
fn judge_package(head: &[u8]) -> std::result::Result<(), String> {
    if head.starts_with(&COMPOUND_FILE) { Ok(()) } else { Err("it is not an MSI (an OLE compound file)".to_owned()) }
}

/// Bytes and what was changed, or why not, with a hint.
type Converted = std::result::Result<(Vec<u8>, Option<&'static str>), (String, &'static str)>;

/// The text of a script: UTF-8 with or without a byte-order mark, or UTF-16 with one.
fn decode(bytes: &[u8]) -> std::result::Result<(String, bool), String> {
    let wide = |units: Vec<u16>| String::from_utf16(&units).map_err(|_| "it is not valid UTF-16".to_owned());
    let swapped = |bytes: &[u8]| bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
    let (text, is_marked) = match bytes {
        [0xFF, 0xFE, rest @ ..] if rest.len() % 2 == 0 => (wide(utf16_from_le(rest))?, true),
        [0xFE, 0xFF, rest @ ..] if rest.len() % 2 == 0 => (wide(swapped(rest))?, true),
        [0xEF, 0xBB, 0xBF, rest @ ..] => (String::from_utf8_lossy(rest).into_owned(), true),
        _ => (String::from_utf8_lossy(bytes).into_owned(), false),
    };
    if text.contains('\u{fffd}') {
        return Err("it is neither UTF-8 nor UTF-16 with a byte-order mark".to_owned());
    }
    if text.contains('\0') {
        return Err("it holds zero bytes: UTF-16 without a byte-order mark, or not a text".to_owned());
    }
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok((text, is_marked))
}

/// The number of the first line that is not plain ASCII.
fn foreign_line(text: &str) -> Option<usize> {
    text.lines().position(|line| !line.is_ascii()).map(|index| index + 1)
}

const SAVE_AS: &str = "save it as UTF-8";

/// `cmd.exe` reads batch files in the code page of the guest's console: only ASCII is the same in all of them.
fn to_batch(bytes: &[u8]) -> Converted {
    let (text, is_marked) = decode(bytes).map_err(|why| (why, SAVE_AS))?;
    if let Some(line) = foreign_line(&text) {
        let why = format!("line {line} is not plain ASCII, and cmd.exe reads other letters in the guest's code page");
        return Err((why, "write it with ASCII only, or as a PowerShell script (.ps1)"));
    }
    if text.contains('\u{1a}') {
        return Err(("it holds the character 26, at which cmd.exe stops reading".to_owned(), "take it out"));
    }
    let lines = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let converted = match (is_marked, lines == text) {
        (true, true) => Some("byte-order mark removed"),
        (true, false) => Some("byte-order mark removed, line ends made CR LF"),
        (false, false) => Some("line ends made CR LF"),
        (false, true) => None,
    };
    Ok((lines.into_bytes(), converted))
}

/// Windows PowerShell reads a script without a byte-order mark in the guest's code page, and one with it as UTF-8.
fn to_powershell(bytes: &[u8]) -> Converted {
    let (text, _) = decode(bytes).map_err(|why| (why, SAVE_AS))?;
    if text.is_ascii() {
        let converted = (bytes != text.as_bytes()).then_some("byte-order mark removed");
        return Ok((text.into_bytes(), converted));
    }
    let marked = format!("\u{feff}{text}").into_bytes();
    let converted = (bytes != marked).then_some("made UTF-8 with a byte-order mark");
    Ok((marked, converted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utf16(text: &str, is_big: bool) -> Vec<u8> {
        let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
        units.flat_map(|unit| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    }

    #[test]
    fn batch_files_become_ascii_with_cr_lf_or_are_refused() {
        let marked = [b"\xEF\xBB\xBF".as_slice(), b"echo a\r\n"].concat();
        for (bytes, expected, converted) in [
            (b"echo a\r\n".to_vec(), "echo a\r\n", None),
            (b"echo a\nb".to_vec(), "echo a\r\nb", Some("line ends made CR LF")),
            (marked, "echo a\r\n", Some("byte-order mark removed")),
            (utf16("echo a\n", false), "echo a\r\n", Some("byte-order mark removed, line ends made CR LF")),
            (utf16("echo a\r\n", true), "echo a\r\n", Some("byte-order mark removed")),
        ] {
            assert_eq!(to_batch(&bytes), Ok((expected.as_bytes().to_vec(), converted)));
        }
        for (bytes, word) in [
            ("ok\necho \u{e4}".as_bytes().to_vec(), "line 2"),
            (b"echo \xE4".to_vec(), "neither UTF-8"),
            (utf16("\u{e4}", false), "line 1"),
            (b"e\0c\0h\0o\0".to_vec(), "zero bytes"),
            (b"\xFF\xFE\x00\xD8".to_vec(), "UTF-16"),
            (b" \r\n".to_vec(), "empty"),
            (b"a\x1ab".to_vec(), "stops reading"),
        ] {
            let (why, hint) = to_batch(&bytes).unwrap_err();
            assert!(why.contains(word) && !hint.is_empty(), "{why}");
        }
    }

    #[test]
    fn powershell_gets_a_byte_order_mark_where_it_needs_one() {
        let marked = "\u{feff}'\u{e4}'\n".as_bytes().to_vec();
        assert_eq!(to_powershell(b"'a'\n"), Ok((b"'a'\n".to_vec(), None)));
        assert_eq!(to_powershell(&marked), Ok((marked.clone(), None)));
        for bytes in ["'\u{e4}'\n".as_bytes().to_vec(), utf16("'\u{e4}'\n", false), utf16("'\u{e4}'\n", true)] {
            assert_eq!(to_powershell(&bytes), Ok((marked.clone(), Some("made UTF-8 with a byte-order mark"))));
        }
        assert_eq!(to_powershell(&utf16("a", true)), Ok((b"a".to_vec(), Some("byte-order mark removed"))));
        assert!(to_powershell(b"'\xE4'").is_err());
    }

    #[test]
    fn a_program_has_to_run_on_the_guests_cpu() {
        let program = |machine: u16| {
            let mut head = vec![0; 0x80];
            head[..2].copy_from_slice(b"MZ");
            head[0x3C] = 0x40;
            head[0x40..0x44].copy_from_slice(b"PE\0\0");
            head[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
            head
        };
        for (machine, runs) in [
            (0x014C, [true, true, true]),
            (0x8664, [false, true, true]),
            (0xAA64, [false, false, true]),
            (0x1C0, [false; 3]),
        ] {
            let judged =
                [Arch::X86, Arch::Amd64, Arch::Arm64].map(|arch| judge_program(&program(machine), arch).is_ok());
            assert_eq!(judged, runs, "{machine:#x}");
        }
        for head in [&b""[..], b"MZ", b"#!/bin/sh", &program(0x014C)[..0x44]] {
            assert!(judge_program(head, Arch::Amd64).is_err());
        }
        let mut far = program(0x014C);
        far[0x3C..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(judge_program(&far, Arch::Amd64).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_what_windows_reads(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok((batch, _)) = to_batch(&bytes) {
                prop_assert!(batch.is_ascii());
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                prop_assert_eq!(batch.windows(2).filter(|pair| pair == b"\r\n").count(), lines);
                prop_assert_eq!(to_batch(&batch).unwrap(), (batch, None), "what was converted stays");
            }
            if let Ok((script, _)) = to_powershell(&bytes) {
                let is_marked = script.starts_with("\u{feff}".as_bytes());
                prop_assert!(script.is_ascii() || is_marked);
                prop_assert_eq!(to_powershell(&script).unwrap(), (script, None));
            }
            let _ = judge_program(&bytes, Arch::X86);
        }
    }
}
