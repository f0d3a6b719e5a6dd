//! All integration tests, in one binary: one module for each layer.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

/// Lists the tests of a module, and the modules in it that have tests. A function that no list names is dead code, which
/// the lints refuse.
macro_rules! tests {
    (in $($module:ident),+; $($test:ident),* $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            let mut trials = vec![$($crate::support::runner::trial(module_path!(), stringify!($test), $test)),*];
            $(trials.extend($module::trials());)+
            trials
        }
    };
    ($($test:ident),+ $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$($crate::support::runner::trial(module_path!(), stringify!($test), $test)),+]
        }
    };
}

mod support;

mod apply;
mod batch;
mod bitlocker;
mod bitlocker_job;
mod block;
mod boot_volume;
mod cli;
mod convert;
mod disks;
mod documents;
mod drivers;
mod extras;
mod first_boot;
mod fleet;
mod formats;
mod hive;
mod house;
mod inject;
mod iso;
mod look;
mod nbd;
mod ntfs;
mod ntfs_check;
mod ntfs_log;
mod partition;
mod plan;
mod remove;
mod report;
mod wim;
mod windows;

fn main() -> std::process::ExitCode {
    cli::sandbox::child().unwrap_or_else(|| support::runner::run(trials()))
}

tests![in apply, batch, bitlocker, bitlocker_job, block, boot_volume, cli, convert, disks, documents, drivers, extras, first_boot, fleet, formats, hive, house, inject, iso, look, nbd, ntfs, ntfs_check, ntfs_log, partition, plan, remove, report, wim, windows;];
