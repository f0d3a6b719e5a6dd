//! Makes a guest bootable from a virtio disk, and shows how far the run is:
//! `cargo run --example inject guest.vmdk virtio-win.iso guest-virtio.qcow2`.
//!
//! The original stays as it is: the changes go into a small overlay over it.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use winject::{Destination, FileTime, InjectRequest, Observer, Step, inject};

/// Prints each step, and the part of it that is done.
struct Printed;

impl Observer for Printed {
    fn step(&self, step: Step) {
        eprintln!("{}", step.title());
    }

    fn progress(&self, done: u64, total: u64) {
        eprintln!("  {done} of {total}");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, drivers, overlay] = arguments.as_slice() else {
        return Err("usage: inject IMAGE DRIVERS OVERLAY".into());
    };
    let destination = Destination::Overlay(overlay.into());
    let request = InjectRequest::new(image, vec![drivers.into()], destination, FileTime::now());
    let report = inject(&request, &Printed)?;
    println!("{}", report.summary);
    Ok(())
}
