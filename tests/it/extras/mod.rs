//! What a user puts into the guest in addition to drivers.

mod first_start;
mod scripts;
mod uploads;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::inject::{fixture_drivers, names, sha256, stderr, winject};
use crate::support;

/// A command in a folder, with the drivers of the fixture where it takes some.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = winject();
    command.current_dir(folder).args(arguments);
    if matches!(arguments.first(), Some(&("inject" | "plan"))) && !arguments.contains(&"--show") {
        command.arg("--drivers").arg(fixture_drivers());
    }
    command.output().unwrap()
}

fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with this code, one error and a hint, and change nothing in the folder.
fn refuse(folder: &Path, image: &str, arguments: &[&str], code: i32) -> String {
    let before = (names(folder), sha256(&folder.join(image)));
    let output = run(folder, arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    let usage = code == 2 && text.contains("Error: ");
    assert!(usage || text.lines().filter(|line| line.starts_with("Error: ")).count() == 1, "{text}");
    assert!(usage || text.lines().any(|line| line.starts_with("Hint: ")), "no hint: {text}");
    assert_eq!(before, (names(folder), sha256(&folder.join(image))), "{arguments:?}");
    text
}

/// The security descriptors of files and folders of a Windows volume, read by ntfs-3g, in hexadecimal; and the hashes of the
/// files' contents.
fn seen_by_ntfs_3g(raw: &Path, offset: u64, paths: &[&str]) -> Option<BTreeMap<String, (String, String)>> {
    let ntfs_3g = support::program("ntfs-3g")?;
    let python = support::program("python3")?;
    let folder = crate::inject::folder();
    let (volume, mount) = (folder.path().join("volume.raw"), folder.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", raw.display())).arg(format!("of={}", volume.display())).arg(format!("skip={offset}"));
    support::run(dd.args(["iflag=skip_bytes", "bs=1M", "conv=sparse", "status=none"]));
    if !Command::new(ntfs_3g).args(["-o", "ro"]).arg(&volume).arg(&mount).output().unwrap().status.success() {
        support::skip("ntfs-3g may not mount here");
        return None;
    }
    // os.getxattr begins with 128 bytes, which ntfs-3g answers with an error when there are more.
    let script = "import os,sys,json,hashlib,ctypes\n\
                  libc=ctypes.CDLL(None)\n\
                  def look(p):\n\
                  \x20   b=ctypes.create_string_buffer(65536)\n\
                  \x20   n=libc.getxattr(p.encode(),b'system.ntfs_acl',b,65536)\n\
                  \x20   assert n>0,p\n\
                  \x20   d=b.raw[:n].hex()\n\
                  \x20   return [d, '' if os.path.isdir(p) else hashlib.sha256(open(p,'rb').read()).hexdigest()]\n\
                  print(json.dumps({a: look(sys.argv[1]+a) for a in sys.argv[2:]}))";
    let seen = Command::new(python).arg("-c").arg(script).arg(&mount).args(paths).output().unwrap();
    assert!(Command::new("fusermount").arg("-u").arg(&mount).status().unwrap().success());
    assert!(seen.status.success(), "{}", stderr(&seen));
    Some(serde_json::from_slice(&seen.stdout).unwrap())
}

/// A file in a folder.
fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

tests![in first_start, scripts, uploads;];
