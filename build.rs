//! How the program is linked.
#![allow(clippy::print_stdout)] // so cargo is told

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Linux maps the pages of a file around one that is touched, 64 KiB of them, aligned. Code and data that begin on
    // such a boundary meet fewer of these windows; a small job holds most in them besides its hive. The price is 4 of
    // the 28 bits by which the kernel moves the program about.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,max-page-size=65536");
    }
}
