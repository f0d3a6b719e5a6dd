//! Servers that winject did not write, on Unix sockets.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; it ends with this value.
pub struct Server {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Server {
    /// nbdkit with these arguments.
    pub fn nbdkit(arguments: &[&str]) -> Self {
        Self::start("nbdkit", &["-f", "-U"], arguments)
    }

    /// nbdkit in front of a raw file, without flush.
    pub fn nbdkit_without_flush(path: &str) -> Self {
        let size = std::fs::metadata(path).unwrap().len();
        let arguments = [
            "eval".to_owned(),
            format!("get_size=echo {size}"),
            format!("pread=dd if={path} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none"),
            format!("pwrite=dd of={path} oflag=seek_bytes conv=notrunc seek=$4 status=none"),
        ];
        Self::nbdkit(&arguments.each_ref().map(String::as_str))
    }

    /// qemu-nbd, for any number of clients, with these arguments.
    pub fn qemu_nbd(arguments: &[&str]) -> Self {
        Self::start("qemu-nbd", &["-t", "-e", "4", "-k"], arguments)
    }

    /// qemu-nbd, for one client at a time.
    pub fn qemu_nbd_for_one(arguments: &[&str]) -> Self {
        Self::start("qemu-nbd", &["-t", "-k"], arguments)
    }

    /// nbdkit at a path of the caller's, where a server that has ended may have left a socket.
    pub fn nbdkit_at(socket: &Path, arguments: &[&str]) -> Self {
        let _ = std::fs::remove_file(socket);
        Self::start_at(tempfile::tempdir().unwrap(), socket.to_owned(), "nbdkit", &["-f", "-U"], arguments)
    }

    fn start(program: &str, first: &[&str], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        Self::start_at(folder, socket, program, first, arguments)
    }

    fn start_at(folder: tempfile::TempDir, socket: PathBuf, program: &str, first: &[&str], arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(first).arg(&socket).args(arguments).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        // The socket is there before the server listens on it.
        while UnixStream::connect(&socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{program} {arguments:?} ended");
            assert!(begun.elapsed() < Duration::from_secs(60), "{program} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, socket, _folder: folder }
    }

    /// The URI of an export.
    pub fn export(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket.display())
    }

    pub fn uri(&self) -> String {
        self.export("")
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
