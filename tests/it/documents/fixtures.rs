//! The files that commands of the documents find: all of them are made of the sample disk and the sample medium.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use crate::formats::craft::Vhdx;
use crate::formats::ova;
use crate::support::{self, gpt, program, run};

/// Puts a file of this name into the folder, or returns `None` after saying what it lacks. The ending says what it is: an
/// image in that format, a medium, a script; `name/` is a folder, and `injected:IMAGE` what an injection wrote.
pub fn provide(folder: &Path, name: &str) -> Option<()> {
    let path = folder.join(name);
    let sample = support::root().join("test-images/win10.qcow2");
    let drivers = support::root().join("test-images/drivers");
    let ending = name.rsplit('.').next().unwrap_or_default();
    if let Some(image) = name.strip_prefix("injected:") {
        let mut command = Command::new(env!("CARGO_BIN_EXE_winject"));
        run(command
            .args(["inject", "--quiet"])
            .arg(sample)
            .arg("--drivers")
            .arg(drivers)
            .arg("-o")
            .arg(folder.join(image)));
        return Some(());
    }
    match (name, ending) {
        (_, _) if name.ends_with('/') => std::fs::create_dir(path).unwrap(),
        // The disks of one machine are made together.
        ("system.qcow2", _) => {
            let [system, boot] = ["system", "boot"].map(|disk| folder.join(disk).with_extension("raw"));
            convert(&sample, &system, &["-O", "raw"])?;
            std::fs::copy(&system, &boot).unwrap();
            gpt::split_sample(&system, &boot);
            for raw in [system, boot] {
                convert(&raw, &raw.with_extension("qcow2"), &["-O", "qcow2"])?;
                std::fs::remove_file(raw).unwrap();
            }
        }
        ("boot.qcow2", _) => assert!(path.exists(), "boot.qcow2 is made with system.qcow2"),
        ("win-000001.vmdk", _) => {
            let mut command = Command::new(program("qemu-img")?);
            run(command.current_dir(folder).args(["create", "-q", "-f", "vmdk", "-b", "win.vmdk", "-F", "vmdk", name]));
        }
        (_, "qcow2") => {
            std::fs::copy(sample, path).unwrap();
        }
        (_, "vmdk") => convert(&sample, &path, &["-O", "vmdk", "-o", "subformat=monolithicFlat"])?,
        (_, "vhdx") => convert(&sample, &path, &["-O", "vhdx"])?,
        (_, "avhdx") => checkpoint(folder, &sample, &path)?,
        (_, "ova") => {
            let disk = path.with_extension("vmdk");
            convert(&sample, &disk, &["-O", "vmdk", "-o", "subformat=streamOptimized"])?;
            let descriptor = ova::ovf(&["disk1.vmdk"]);
            let content = std::fs::read(&disk).unwrap();
            std::fs::remove_file(disk).unwrap();
            std::fs::write(path, ova::tar(&[("vm.ovf", descriptor.as_bytes()), ("disk1.vmdk", &content)])).unwrap();
        }
        (_, "iso") => {
            run(Command::new(program("genisoimage")?).args(["-quiet", "-r", "-J", "-o"]).arg(path).arg(drivers));
        }
        (_, "exe" | "ps1" | "cmd") => std::fs::write(path, "rem made up\r\n").unwrap(),
        _ => panic!("no fixture is called {name}"),
    }
    Some(())
}

/// Makes a checkpoint of Hyper-V and its parent, `win.vhdx`: what the parent lacks, the partition table, is in the checkpoint.
fn checkpoint(folder: &Path, sample: &Path, path: &Path) -> Option<()> {
    const BLOCK: usize = 1 << 20;
    let [raw, parent] = ["win.raw", "win.vhdx"].map(|name| folder.join(name));
    convert(sample, &raw, &["-O", "raw"])?;
    let disk = File::options().read(true).write(true).open(&raw).unwrap();
    let mut first = vec![0; BLOCK];
    disk.read_exact_at(&mut first, 0).unwrap();
    disk.write_all_at(&vec![0; BLOCK], 0).unwrap();
    convert(&raw, &parent, &["-O", "vhdx"])?;
    std::fs::remove_file(raw).unwrap();
    let child = Vhdx {
        virtual_size: disk.metadata().unwrap().len(),
        sector: 512,
        block_size: BLOCK as u32,
        blocks: BTreeMap::from([(0, first)]),
        parent: Some(("win.vhdx".into(), data_write_guid(&parent))),
    };
    std::fs::write(path, child.build()).unwrap();
    Some(())
}

/// What a child of this VHDX has to name: the `DataWriteGuid` of the newer header.
fn data_write_guid(path: &Path) -> [u8; 16] {
    let file = File::open(path).unwrap();
    let headers = [64 << 10, 128 << 10].map(|at| {
        let mut header = [0; 48];
        file.read_exact_at(&mut header, at).unwrap();
        header
    });
    let newest =
        headers.into_iter().max_by_key(|header| u64::from_le_bytes(header[8..16].try_into().unwrap())).unwrap();
    newest[32..].try_into().unwrap()
}

/// Has QEMU write the sample disk in another format.
fn convert(from: &Path, to: &Path, arguments: &[&str]) -> Option<()> {
    run(Command::new(program("qemu-img")?).arg("convert").args(arguments).arg(from).arg(to));
    Some(())
}
