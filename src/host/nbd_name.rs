//! Names that stand for an NBD server and not for a file.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Beginnings of such names, here or in other programs.
const SCHEMES: &[&str] = &["nbd:", "nbds:", "nbd+unix:", "nbds+unix:", "nbd+vsock:", "nbds+vsock:"];

/// Whether this is the name of an NBD export, well formed or not. A file of such a name needs `./` before it.
#[must_use]
pub fn is_nbd_name(name: &Path) -> bool {
    SCHEMES.iter().any(|scheme| name.as_os_str().as_bytes().starts_with(scheme.as_bytes()))
}
