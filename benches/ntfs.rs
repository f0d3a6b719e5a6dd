//! Ratios against a peer in the same run. Filled by its layer.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

fn main() {}
