//! How commands take a disk image.

use crate::block::{Format, OpenOptions, PathPolicy};
use std::path::PathBuf;

// How the image is read; the same for every command that takes one
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ImageArgs {
    /// The image's format (raw, qcow2 …) instead of finding it by content
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    pub format: Option<Format>,

    /// Lets the image name this file, or files below this folder (backing files, extents), not only those in its own
    /// folder. In place, the data file of a qcow2 is written only if it is named here itself
    #[arg(long, value_name = "PATH")]
    pub allow_path: Vec<PathBuf>,

    /// Which disk of an OVA with several, by its file name in the OVA
    #[arg(long, value_name = "NAME")]
    pub disk: Option<String>,
}

// A question about an image
#[derive(Debug, clap::Args)]
pub struct QuestionArgs {
    /// The image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI
    pub image: PathBuf,

    /// Answers as JSON
    #[arg(long)]
    pub json: bool,

    /// How the image is read.
    #[command(flatten)]
    pub source: ImageArgs,
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

fn parse_format(name: &str) -> Result<Format, String> {
    Format::from_name(name).ok_or_else(|| "it is one of raw, qcow2, vmdk, vpc, vhdx, vdi".to_string())
}
