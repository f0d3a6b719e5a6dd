//! Exports that are what is read, by other names and in other clothes: nothing of them is overwritten.

use std::path::Path;
use std::process::Command;

use super::Server;
use super::output::{Bench, ok};
use crate::formats::qemu_img;
use crate::inject::{fixture_drivers, stderr, stdout, writable_fixture};
use winject::internals::block::Format;

/// Runs the command, whose `URI` is the export: refused, and the file is as it was.
fn refused(bench: &Bench, server: &Server, file: &str, arguments: &[&str], why: &str) {
    let before = std::fs::read(bench.at(file)).unwrap();
    let uri = server.uri();
    let arguments: Vec<&str> = arguments.iter().map(|text| if *text == "URI" { &uri } else { *text }).collect();
    let output = bench.run(&arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}{said}", stdout(&output));
    assert!(said.contains("output-is-input") && said.contains(why), "{arguments:?}: {said}");
    assert!(std::fs::read(bench.at(file)).unwrap() == before, "{arguments:?}: it was written to");
}

const HEAD: &str = "has the beginning of the input";
const TIME: &str = "was written to when the export was";

/// A longer view of the input, one that begins within it, a copy-on-write base, another disk of the machine.
fn a_view_of_an_input_is_not_overwritten() {
    let Some(bench) = Bench::new() else { return };
    let path = |name: &str| bench.at(name).to_str().unwrap().to_owned();
    let convert = ["convert", "-f", "raw", "in.raw", "URI", "--overwrite"];
    let longer = Server::nbdkit(&["--filter=truncate", "file", &path("in.raw"), "truncate=12M"]);
    refused(&bench, &longer, "in.raw", &convert, HEAD);
    drop(longer);
    // What lies in front of the export is not seen through it.
    let mut long = vec![7; 4 << 20];
    long.extend_from_slice(&bench.disk);
    std::fs::write(bench.at("long.raw"), &long).unwrap();
    let later = Server::nbdkit(&["--filter=offset", "file", &path("long.raw"), "offset=4M"]);
    qemu_img(&["create", "-q", "-f", "raw", &path("small.raw"), "1M"]);
    std::fs::write(bench.at("small.raw"), vec![9; 1 << 20]).unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &path("long.raw"), "-F", "raw", &path("over.qcow2"), "1M"]);
    refused(&bench, &later, "long.raw", &["convert", "over.qcow2", "URI", "--overwrite"], TIME);
    // The same export is good for what does not read its file.
    ok(&bench.run(&["convert", "-f", "raw", "small.raw", &later.uri(), "--overwrite"]), "small.raw");
    drop(later);

    let image = writable_fixture(bench.folder(), Format::Qcow2);
    let image = image.to_str().unwrap();
    let size = winject::internals::block::open(Path::new(image), &Default::default()).unwrap().len();
    std::fs::write(bench.at("other.raw"), vec![0; usize::try_from(size).unwrap()]).unwrap();
    let other = Server::nbdkit(&["file", &path("other.raw")]);
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    let inject = ["inject", image, "other.raw", "--drivers", drivers, "-o", "URI", "--overwrite"];
    refused(&bench, &other, "other.raw", &inject, TIME);
}

/// A qcow2 that is served as it is and as the disk in it.
fn a_container_of_an_input_is_not_overwritten() {
    let Some(bench) = Bench::new() else { return };
    let path = |name: &str| bench.at(name).to_str().unwrap().to_owned();
    qemu_img(&["convert", "-q", "-O", "qcow2", "-o", "preallocation=falloc", &path("in.raw"), &path("in.qcow2")]);
    let as_it_is = Server::nbdkit(&["file", &path("in.qcow2")]);
    let again = Server::nbdkit(&["--filter=truncate", "file", &path("in.qcow2"), "truncate=16M"]);
    refused(&bench, &again, "in.qcow2", &["convert", &as_it_is.uri(), "URI", "--overwrite"], HEAD);
    drop((as_it_is, again));
    // The overlay has another beginning than its base.
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &path("in.qcow2"), "-F", "qcow2", &path("over.qcow2")]);
    let written =
        Command::new("qemu-io").args(["-f", "qcow2", "-c", "write -q -P 65 0 512", &path("over.qcow2")]).status();
    assert!(written.unwrap().success());
    let base = format!("driver=qcow2,file.driver=file,file.filename={},file.locking=off", path("in.qcow2"));
    let server = Server::qemu_nbd(&["--image-opts", &base]);
    refused(&bench, &server, "in.qcow2", &["convert", "over.qcow2", "URI", "--overwrite"], TIME);
}

/// A disk without a partition table, at two addresses of a server: the first data tell.
fn a_disk_that_begins_with_zeros_is_not_overwritten() {
    let Some(bench) = Bench::new() else { return };
    let mut disk = vec![0; 80 << 10];
    disk.extend_from_slice(&bench.disk);
    std::fs::write(bench.at("zeros.raw"), &disk).unwrap();
    let path = bench.at("zeros.raw").to_str().unwrap().to_owned();
    let (one, other) = (Server::nbdkit(&["file", &path]), Server::nbdkit(&["file", &path]));
    refused(&bench, &other, "zeros.raw", &["convert", "-f", "raw", &one.uri(), "URI", "--overwrite"], HEAD);
}

/// What an interrupted copy left is called by its name in every container, and whatever stands at its end.
fn an_incomplete_copy_is_not_opened() {
    let Some(bench) = Bench::new() else { return };
    let path = |name: &str| bench.at(name).to_str().unwrap().to_owned();
    let text = b"winject: an incomplete copy of a disk: run the command again that wrote it\n";
    let mut left = bench.disk.clone();
    left[..text.len()].copy_from_slice(text);
    std::fs::write(bench.at("left.raw"), &left).unwrap();
    qemu_img(&["convert", "-q", "-f", "raw", "-O", "qcow2", &path("left.raw"), &path("left.qcow2")]);
    qemu_img(&[
        "convert",
        "-q",
        "-f",
        "raw",
        "-O",
        "vpc",
        "-o",
        "subformat=fixed",
        &path("left.raw"),
        &path("left.vhd"),
    ]);
    for name in ["left.raw", "left.qcow2", "left.vhd"] {
        let opened = bench.run(&["convert", name, "new.raw"]);
        let said = stderr(&opened);
        assert!(opened.status.code() == Some(5) && said.contains("nbd-incomplete"), "{name}: {said}");
        assert!(!bench.at("new.raw").exists(), "{name}");
    }
}

/// Two copies to one export, under names that cannot be told to be one: the one that ends first sees it.
fn two_copies_to_one_export_are_not_both_done() {
    let Some(bench) = Bench::new() else { return };
    let served = bench.old(bench.disk.len());
    let mut other = bench.disk.clone();
    other[1 << 20..2 << 20].fill(0x33);
    std::fs::write(bench.at("other.raw"), &other).unwrap();
    let server = Server::nbdkit(&["--filter=delay", "file", &served, "rdelay=40ms", "wdelay=40ms"]);
    let first = bench
        .command(&["convert", "-f", "raw", "in.raw", &server.export("a"), "--overwrite"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while !std::fs::read(bench.at("served")).unwrap().starts_with(b"winject: an incomplete copy") {
        assert!(begun.elapsed().as_secs() < 60, "it did not begin");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let second = bench.run(&["convert", "-f", "raw", "other.raw", &server.export("b"), "--overwrite"]);
    let first = first.wait_with_output().unwrap();
    let said = stderr(&first);
    assert_eq!(first.status.code(), Some(7), "{said}{}", stderr(&second));
    assert!(said.contains("another program has written") || said.contains("does not hold what was written"), "{said}");
    drop(server);
    if second.status.success() {
        assert!(bench.held() == other);
    }
}

/// A batch to exports, run again: what they hold is compared.
fn a_finished_export_is_done() {
    let Some(bench) = Bench::new() else { return };
    let size = std::fs::metadata(bench.at("in.raw")).unwrap().len();
    let image = writable_fixture(bench.folder(), Format::Qcow2);
    let guest = winject::internals::block::open(&image, &Default::default()).unwrap().len();
    let drivers = fixture_drivers();
    for (arguments, length) in [
        (vec!["batch", "convert", "in.raw", "-f", "raw"], size + 4096),
        (vec!["batch", "inject", image.to_str().unwrap(), "--drivers", drivers.to_str().unwrap()], guest),
    ] {
        let served = bench.old(usize::try_from(length).unwrap());
        let server = Server::nbdkit(&["file", &served]);
        let uri = server.uri();
        let arguments = [&arguments[..], &["-o", &uri, "--overwrite", "--checksum", "--json"]].concat();
        let (first, second) = (bench.run(&arguments), bench.run(&arguments));
        for (output, outcome) in [(&first, "\"done\""), (&second, "\"already-done\"")] {
            ok(output, outcome);
            assert!(stdout(output).contains(outcome), "{}{}", stdout(output), stderr(output));
        }
    }
}

tests![
    a_view_of_an_input_is_not_overwritten,
    a_container_of_an_input_is_not_overwritten,
    a_disk_that_begins_with_zeros_is_not_overwritten,
    an_incomplete_copy_is_not_opened,
    two_copies_to_one_export_are_not_both_done,
    a_finished_export_is_done,
];
