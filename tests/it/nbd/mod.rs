//! Images over NBD: what nbdkit and qemu-nbd serve is what their files hold; servers that lie or fail give errors.

mod commands;
mod scripted;
mod server;

pub(super) use server::Server;

tests![in commands, scripted;];
