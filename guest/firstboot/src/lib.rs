//! The service program `hyper2kvm-firstboot`: it finishes the conversion inside the guest, once, and says how it went.
//!
//! `job`, `outcome`, `progress`, `descriptor`, `release` and `text` are portable code without `unsafe`: their tests run
//! on the host (`cargo test --lib`). `windows` is the thin layer with all the calls of Windows and all the `unsafe`.
//! `session` and what it uses do the work; the tests of the main package run them under Wine.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod descriptor;
pub mod job;
pub mod outcome;
pub mod progress;
pub mod release;
pub mod text;

#[cfg(windows)]
mod commands;
#[cfg(windows)]
mod log;
#[cfg(windows)]
mod network;
#[cfg(windows)]
mod packages;
#[cfg(windows)]
mod places;
#[cfg(windows)]
pub mod session;
#[cfg(windows)]
mod state;
#[cfg(windows)]
#[allow(unsafe_code)]
pub mod windows;
