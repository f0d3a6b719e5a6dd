//! Windows: inspection, registration, and whether it boots, on guests with real hives.

mod boot;
mod check;
mod full;
pub mod guests;
mod network;
mod parity;
mod plan;
mod rights;

tests![in boot, check, full, network, parity, plan, rights;];
