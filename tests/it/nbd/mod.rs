//! Images over NBD: what nbdkit and qemu-nbd serve is what their files hold; servers that lie or fail give errors.

mod commands;
mod editing;
mod inputs;
mod liar;
mod lost;
mod mistaken;
mod output;
mod overlay;
mod scripted;
mod server;
mod signals;

pub(super) use server::Server;

tests![in commands, editing, inputs, lost, mistaken, output, overlay, scripted, signals;];
