//! `convert` from NBD servers against `nbdcopy` and `qemu-img convert`, in turn in the same run: the ratio of the medians.
//!
//! Needs `nbdkit`, `nbdcopy`, `qemu-nbd` and `qemu-img`. A server with 20 ms of delay is copied with 8 requests of 2 MiB in flight
//! on one connection by both; a local `qemu-nbd` serves a qcow2 full of data. A copy counts until it is flushed.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const MIB: u64 = 512;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(socket: &Path, program: &str, arguments: &[&str]) -> Server {
    let server = Command::new(program).args(arguments).stdin(Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Server(server)
}

fn seconds(program: &str, arguments: &[&str]) -> f64 {
    let begun = Instant::now();
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed().as_secs_f64()
}

fn compare(name: &str, ours: impl Fn() -> f64, theirs: impl Fn() -> f64) {
    let (mut a, mut b): (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| (ours(), theirs())).unzip();
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (a, b) = (a[ROUNDS / 2], b[ROUNDS / 2]);
    println!("{name}: {:.0} MiB/s, theirs {:.0} MiB/s, ratio {:.2}", MIB as f64 / a, MIB as f64 / b, b / a);
}

fn main() {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    // `cargo test --benches` runs this too: nothing to do there.
    if std::env::args().any(|a| a == "--test") || !["nbdkit", "nbdcopy", "qemu-nbd", "qemu-img"].iter().all(|p| has(p))
    {
        println!("SKIPPED: a server or another client is not installed, or this is not a benchmark run");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let winject = env!("CARGO_BIN_EXE_winject");
    let (delayed, local, ours, theirs, data) = (path("d"), path("l"), path("ours"), path("theirs"), path("data.qcow2"));
    let size = format!("{MIB}M");
    let _delayed =
        serve(delayed.as_ref(), "nbdkit", &["-f", "-U", &delayed, "--filter=delay", "pattern", &size, "rdelay=20ms"]);
    let uri = format!("nbd+unix:///?socket={delayed}");
    let convert = |uri: &str| seconds(winject, &["-q", "convert", "-f", "raw", "-O", "raw", "--overwrite", uri, &ours]);
    compare(
        "nbdkit with 20 ms, against nbdcopy",
        || convert(&uri),
        || seconds("nbdcopy", &["--flush", "--requests=8", "--request-size=2097152", "--connections=1", &uri, &theirs]),
    );
    seconds("qemu-img", &["convert", "-O", "qcow2", &uri, &data]);
    let _local = serve(local.as_ref(), "qemu-nbd", &["-r", "-t", "-k", &local, "-f", "qcow2", &data]);
    let uri = format!("nbd+unix:///?socket={local}");
    compare(
        "qemu-nbd, against qemu-img convert",
        || convert(&uri),
        || seconds("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, &theirs]) + seconds("sync", &[&theirs]),
    );
}
