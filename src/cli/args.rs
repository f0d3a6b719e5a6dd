//! Groups of options that several commands share.
//!
//! The groups are plain values: a document (see [`document`](super::document)) fills the same ones.

use std::path::PathBuf;

use crate::block::convert::Compression;
use crate::block::{Format, OpenOptions, PathPolicy};
use crate::drivers::SignatureLevel;
use crate::windows::Registration;

// How the image is read; the same for every command that takes one
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ImageArgs {
    /// Read the image in this format (raw, qcow2 …) instead of finding it by content
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    pub format: Option<Format>,

    /// Let the image name this file, or files below this folder (backing files, extents), not only those in its own
    /// folder; repeatable. In place, the data file of a qcow2 is written only if it is named here itself
    #[arg(long, value_name = "PATH")]
    pub allow_path: Vec<PathBuf>,

    /// Use this disk of an OVA with several, by its file name in the OVA
    #[arg(long, value_name = "NAME")]
    pub disk: Option<String>,
}

impl ImageArgs {
    /// Which files the image may name.
    #[must_use]
    pub fn path_policy(&self) -> PathPolicy {
        self.allow_path.iter().fold(PathPolicy::default(), |policy, folder| policy.allow(folder))
    }

    /// For opening the image.
    #[must_use]
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format,
            path_policy: self.path_policy(),
            disk: self.disk.clone(),
            ..OpenOptions::default()
        }
    }
}

// A question about an image
#[derive(Debug, clap::Args)]
pub struct QuestionArgs {
    /// The image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI
    pub image: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub source: ImageArgs,
}

// Which Windows
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct PartitionArgs {
    /// Use the Windows in this partition, as Linux counts (0: the image is one volume)
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<u32>,
}

// Driver definitions
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct DefinitionArgs {
    /// Merge these driver definitions (YAML) over the built-in ones
    #[arg(long, value_name = "FILE", visible_alias = "virtio-config")]
    pub definitions: Option<PathBuf>,
}

// How the guest is changed: the same for `inject`, `convert --inject` and a document
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct GuestArgs {
    #[command(flatten)]
    pub definitions: DefinitionArgs,

    #[command(flatten)]
    pub windows: PartitionArgs,

    /// Write a report: FILE.md (and FILE.json beside it) or FILE.json; repeatable
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,

    /// Register boot drivers with what is needed to boot, or with all that Windows itself would write
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub registration: RegistrationArg,

    /// Require this of the signature of a boot driver
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    pub signature_policy: SignatureArg,

    /// Make the guest trust the publisher of this certificate without asking; repeatable
    #[arg(long, value_name = "CERT")]
    pub trust_publisher: Vec<PathBuf>,

    /// Let the first-boot job run again in a guest that has finished it
    #[arg(long)]
    pub rearm: bool,

    /// Replace drivers in the guest that are newer than the given ones
    #[arg(long)]
    pub force: bool,

    /// Stage the packages and register no driver; the guest need not boot from virtio afterwards
    #[arg(long)]
    pub packages_only: bool,

    /// Edit a volume that Windows has marked for a check
    #[arg(long)]
    pub allow_dirty: bool,

    /// Throw an unclean NTFS log away and mark the volume for a check by Windows
    #[arg(long)]
    pub discard_ntfs_log: bool,

    /// Throw a hibernated session away and mark the volume for a check by Windows
    #[arg(long)]
    pub discard_hibernation: bool,

    #[command(flatten)]
    pub check: VolumeCheckArgs,
}

// What precedes the first edit
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct VolumeCheckArgs {
    /// Edit without comparing the volume's bitmaps with its file records first
    #[arg(long)]
    pub skip_volume_check: bool,
}

// A whole new image: the same for `convert` and a document
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct NewImageArgs {
    /// Write this format, qcow2 or raw; by default what the output's name says (.raw and .img: raw), else qcow2
    #[arg(short = 'O', long, value_name = "FORMAT", value_parser = parse_format)]
    pub output_format: Option<Format>,

    /// Compress the new qcow2: zlib (every QEMU reads it) or zstd (faster; QEMU 5.1 and later)
    #[arg(long, value_name = "ALGORITHM", value_parser = parse_compression, num_args = 0..=1,
        default_missing_value = "zlib")]
    pub compress: Option<Compression>,

    /// Compress this hard, in the algorithm's own scale (zlib: 2 to 9, zstd: 1 to 4)
    #[arg(long, value_name = "LEVEL", requires = "compress")]
    pub compress_level: Option<u32>,

    /// Compute the SHA-256 of the new file and print it
    #[arg(long)]
    pub checksum: bool,
}

impl NewImageArgs {
    /// Algorithm and level, if the new image is to be compressed.
    #[must_use]
    pub fn compression(&self) -> Option<(Compression, Option<u32>)> {
        self.compress.map(|kind| (kind, self.compress_level))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RegistrationArg {
    /// What is needed to boot
    #[default]
    Minimal,
    /// All that Windows itself would write
    Full,
}

impl From<RegistrationArg> for Registration {
    fn from(form: RegistrationArg) -> Self {
        match form {
            RegistrationArg::Minimal => Self::Minimal,
            RegistrationArg::Full => Self::Full,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SignatureArg {
    /// It is there, can be read, and fits the file
    #[default]
    Require,
    /// It is there; whether it fits the file is not asked
    Present,
    /// Anything goes, with a warning in the report
    Warn,
}

impl From<SignatureArg> for SignatureLevel {
    fn from(policy: SignatureArg) -> Self {
        match policy {
            SignatureArg::Require => Self::Require,
            SignatureArg::Present => Self::Present,
            SignatureArg::Warn => Self::Warn,
        }
    }
}

/// The algorithm of this name, in any case.
///
/// # Errors
/// The known names.
pub fn parse_compression(name: &str) -> Result<Compression, String> {
    match name.to_ascii_lowercase().as_str() {
        "zlib" => Ok(Compression::Zlib),
        "zstd" => Ok(Compression::Zstd),
        _ => Err("use zlib or zstd".to_owned()),
    }
}

/// The format of this name, in any case.
///
/// # Errors
/// The known names.
pub fn parse_format(name: &str) -> Result<Format, String> {
    let format = Format::from_name(&name.to_ascii_lowercase());
    format.ok_or_else(|| "use one of raw, qcow2, vmdk, vhd, vhdx, vdi".to_owned())
}
