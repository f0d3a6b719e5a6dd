//! How the program is linked.
#![allow(clippy::print_stdout)] // so cargo is told

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Linux maps the pages of a file around one that is touched, 64 KiB of them, aligned in memory. When the program lies
    // in memory as it does in its file, modulo 64 KiB, what the file's cache holds in one piece is mapped in one piece,
    // and a small job, which holds most in them besides its hive, gets fewer. The price is 4 of the 28 bits by which the
    // kernel moves the program about. Two words, as a linker that is called directly knows no -Wl.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg-bins=-z");
        println!("cargo::rustc-link-arg-bins=max-page-size=65536");
    }
}
