//! How images are opened, and the way from an image to the files that it names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::Format;
use super::image::Image;
use super::journal;
use super::name::ImageName;
use super::named::NamedFiles;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::escape::{escape, shell_argument};
use crate::host::{LockMode, Locking, PathPolicy, Storage, is_nbd_name};
use crate::nbd::{NbdOptions, NbdUri, export_key, named_export};

/// How to open an image. The default detects the format, and allows the image to refer to files in its own folder only.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Container format of the image; `None` detects it by content. A file whose format is given as raw is never probed.
    pub format: Option<Format>,
    /// Files that the image may refer to (backing files, extents, data files).
    pub path_policy: PathPolicy,
    /// Whether an image that another process writes to is refused.
    pub locking: Locking,
    /// Which disk of an OVA, by its file name in the OVA; `None`: the only one.
    pub disk: Option<String>,
    /// How an NBD export is read.
    pub nbd: NbdOptions,
    /// Collects the names of files in the images, before it is known whether they may be opened. An image that an interrupted run
    /// left half written is opened, then: for its names alone.
    pub named: Option<NamedFiles>,
}

/// Opens the last file of a chain as an image. Every format can be a link of a chain, and some open further links, so
/// the chain is told how to open them: it does not know the formats.
type OpenLink = fn(&Chain<'_>, Arc<dyn Storage>, &Path, Option<Format>) -> Result<Box<dyn Image>>;

/// The files from the image that the user named down to the one that is being opened, with the path policy. Container
/// formats open their parents through it.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    options: &'a OpenOptions,
    open_link: OpenLink,
    seen: Vec<Identity>,
}

/// What tells the links of a chain apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    /// Device and inode of a file.
    File(u64, u64),
    /// Server and name of an export.
    Export(String, String),
    /// A part of a file, such as a disk in an archive: the number of the link.
    Part(usize),
}

/// The longest chain of images that we follow. VMware allows 32; QEMU has no limit of its own.
const CHAIN_DEPTH_MAX: usize = 32;

impl<'a> Chain<'a> {
    /// A chain with no file in it yet.
    pub(super) fn new(options: &'a OpenOptions, open_link: OpenLink) -> Self {
        Self { options, open_link, seen: Vec::new() }
    }

    /// The options with which the user opened the first image.
    #[must_use]
    pub fn options(&self) -> &OpenOptions {
        self.options
    }

    /// The chain with one more file in it.
    ///
    /// # Errors
    /// When the file is already part of the chain (a loop), or the chain is too long.
    pub fn push(&self, storage: &dyn Storage, path: &Path) -> Result<Self> {
        let mut chain = self.clone();
        let export = || export_key(path).filter(|_| !storage.is_part());
        let identity = match storage.fingerprint() {
            Some(print) => Identity::File(print.device, print.inode),
            None => export().map_or(Identity::Part(chain.seen.len()), |(server, name)| Identity::Export(server, name)),
        };
        if chain.seen.contains(&identity) {
            return Err(Error::damaged(Layer::Block, "the chain of images refers back to itself")
                .path(path.display().to_string())
                .hint("correct the backing file's name with qemu-img rebase -u"));
        }
        chain.seen.push(identity);
        if chain.seen.len() > CHAIN_DEPTH_MAX {
            return Err(Error::unsupported(Layer::Block, format!("a chain of more than {CHAIN_DEPTH_MAX} images"))
                .path(path.display().to_string())
                .hint("merge snapshots first, for instance with qemu-img convert"));
        }
        Ok(chain)
    }

    /// Opens a file that an image names, under the path policy, read-only and locked as a reader.
    ///
    /// # Errors
    /// When the policy does not allow the name, or the file is missing or in use.
    pub fn open_named(&self, image: &Path, name: &str) -> Result<(Arc<dyn Storage>, PathBuf)> {
        if is_nbd_name(image) {
            let what = format!("the image refers to {}, but an NBD export has no folder", escape(name));
            return Err(Error::refused(Layer::Block, what)
                .with_code(ErrorCode::OutsideReference)
                .path(image.display().to_string())
                .hint(
                    "for qcow2 and VMDK let the server open the chain of images: qemu-nbd -r -t -k SOCKET TOP-IMAGE; for others \
                     copy all of its files into one folder, and name the image there",
                ));
        }
        if let Some(named) = &self.options.named {
            named.add(image, name);
        }
        let (storage, path) = self.options.path_policy.open(image, name)?;
        storage.lock(LockMode::Read, self.options.locking)?;
        if self.options.named.is_none() {
            journal::refuse_pending(&path, &storage)?;
        }
        Ok((Arc::new(storage), path))
    }

    /// Opens the backing file that an image names: a file as [`open_named`](Self::open_named) does, or an NBD export.
    ///
    /// # Errors
    /// Those of [`open_named`](Self::open_named); for an export [`Kind::Refused`](crate::Kind::Refused) unless the user allowed
    /// its URI (nothing is connected to then), and those of opening it.
    pub fn open_backing(&self, image: &Path, name: &str) -> Result<(Arc<dyn Storage>, PathBuf)> {
        let Some(export) = named_export(name) else { return self.open_named(image, name) };
        if let Some(named) = &self.options.named {
            named.add(image, name);
        }
        let export = export.map_err(|error| unusable_export(image, name, error))?;
        let allowed = self.options.path_policy.allowed_exports();
        // The user's spelling is opened: a sandbox permits that one.
        let allowed = allowed.iter().find(|allowed| export_key(allowed) == Some(export.key()));
        let allowed = allowed.ok_or_else(|| refused_export(image, name, &export))?;
        // Never written through the image.
        let nbd = NbdOptions { is_edited: false, ..self.options.nbd.clone() };
        Ok((ImageName::of(allowed).open(self.options.locking, &nbd)?, allowed.clone()))
    }

    /// Paths that the user allowed.
    pub(crate) fn allowed(&self) -> &[PathBuf] {
        self.options.path_policy.allowed()
    }

    /// Opens a parent (backing file) that the image at `child` names. `format` is what the child says about it.
    ///
    /// # Errors
    /// See [`open`](super::open); also when the child does not say which format the parent has and it does not look
    /// like a container (a raw parent is never taken on trust: its guest could have written a container's header).
    pub fn open_parent(&self, child: &Path, name: &str, format: Option<Format>) -> Result<Box<dyn Image>> {
        let (storage, path) = self.open_backing(child, name)?;
        self.open_storage(storage, &path, format)
    }

    /// Opens an image whose file is open already, as the next one of the chain.
    ///
    /// # Errors
    /// See [`open`](super::open).
    pub fn open_storage(
        &self,
        storage: Arc<dyn Storage>,
        path: &Path,
        format: Option<Format>,
    ) -> Result<Box<dyn Image>> {
        let chain = self.push(&*storage, path)?;
        (self.open_link)(&chain, storage, path, format)
    }
}

/// The refusal of an export that the user did not allow, with the option that allows it.
fn refused_export(image: &Path, name: &str, export: &NbdUri) -> Error {
    let hint = match export.to_portable().ok().map(PathBuf::from) {
        Some(uri) => {
            let uri = shell_argument(&uri, "URI");
            format!("if you trust the image and that server, add --allow-path {uri}")
        }
        None => "if you trust the image, allow the export by its URI with --allow-path URI".to_owned(),
    };
    outside(image, format!("the image refers to an NBD server: {}", escape(name))).hint(hint)
}

/// The refusal of an export whose name cannot be used, whether or not it is allowed.
fn unusable_export(image: &Path, name: &str, error: Error) -> Error {
    let hint = error.hint_text().filter(|_| error.code() == ErrorCode::NbdTls).map(str::to_owned);
    let hint =
        hint.unwrap_or_else(|| "let the server be named by a URI: qemu-img rebase -u -b URI -F raw IMAGE".to_owned());
    outside(image, format!("the image refers to an NBD server in a way that is not supported: {}", escape(name)))
        .hint(hint)
        .source_error(error)
}

fn outside(image: &Path, what: String) -> Error {
    Error::refused(Layer::Block, what).with_code(ErrorCode::OutsideReference).path(image.display().to_string())
}
