//! `winject ls`: lists files of an image.

use std::ffi::OsString;
use std::fmt::Write as _;

use serde::Serialize;

use super::place::{Place, VolumeArgs};
use crate::cli::output::JsonList;
use crate::cli::{Ui, signals};
use crate::error::Result;
use crate::escape::{EscapedLines, escape};
use crate::exit::ExitCode;
use crate::job::look::{Details, Files, Found, NodeKind, select, walk};

/// Bytes of a listing that are printed at once.
const PRINTED_AT_ONCE: usize = 64 << 10;
/// DOS attributes in the order in which they are shown.
const ATTRIBUTES: [(u32, char); 9] = [
    (0x20, 'A'),
    (0x04, 'S'),
    (0x02, 'H'),
    (0x01, 'R'),
    (0x800, 'C'),
    (0x200, 'P'),
    (0x4000, 'E'),
    (0x1000, 'O'),
    (0x400, 'L'),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Disk image (raw, qcow2, VMDK, OVA, VHD, VHDX or VDI), then the paths in it [default: /]; or IMAGE:PATH
    #[arg(required = true, value_name = "IMAGE [PATH]")]
    image: Vec<OsString>,

    /// Print attributes, size, time of the last change and alternate data streams
    ///
    /// The attributes are A archive, S system, H hidden, R read-only, C compressed, P sparse, E encrypted, O offline, L
    /// reparse point (a link, or content of a special form). Times are in UTC; on FAT by the guest's clock.
    #[arg(short, long)]
    long: bool,

    /// List everything below a folder, too, each file with its path
    #[arg(short = 'R', long)]
    recursive: bool,

    /// List the folder itself, not what lies in it
    #[arg(short, long, conflicts_with_all = ["recursive", "all"])]
    directory: bool,

    /// List the files of the file system itself, too, such as $MFT
    #[arg(short, long)]
    all: bool,

    #[command(flatten)]
    volume: VolumeArgs,
}

/// What stands above the listing.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Head {
    /// Number of the partition, as Linux counts.
    partition: u32,
}

/// A line of the listing.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Line<'a> {
    /// Its path in the volume.
    path: &'a str,
    #[serde(flatten)]
    details: Details,
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be read, or a path names nothing.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let mut place = Place::parse(&args.image)?;
    if place.paths.is_empty() {
        place.paths.push("/".to_owned());
    }
    place.look(&args.volume, ui, |files| {
        let head = Head { partition: files.partition().number };
        let json = ui.is_json().then(|| JsonList::begin(ui, "ls", &head, "files")).transpose()?;
        let mut listing = Listing { args: &args, ui, files, out: String::new(), json };
        for path in &place.paths {
            let selected = select(files, path)?;
            for found in &selected {
                listing.add_all(found, path, selected.len() == 1 && place.paths.len() == 1)?;
            }
        }
        listing.print();
        if let Some(list) = listing.json {
            list.end();
        }
        Ok(ExitCode::Done)
    })
}

struct Listing<'a> {
    args: &'a Args,
    ui: &'a Ui,
    files: &'a Files<'a>,
    /// What is not printed yet.
    out: String,
    json: Option<JsonList<'a>>,
}

impl Listing<'_> {
    /// Lists what a path led to. A folder that is the only one is listed by the names of what lies in it.
    fn add_all(&mut self, found: &Found, path: &str, is_only: bool) -> Result<()> {
        let cancel = signals::cancel();
        if self.args.recursive {
            return walk(self.files, found, self.args.all, &mut |names, found| {
                cancel.check()?;
                if names.is_empty() && found.node.kind == NodeKind::Folder {
                    Ok(())
                } else {
                    self.add(found, &found.path)
                }
            });
        }
        if found.node.kind != NodeKind::Folder || self.args.directory {
            let shown = if is_only && !path.contains(['*', '?', '[']) { path } else { &found.path };
            return self.add(found, shown);
        }
        for (name, node) in self.files.list(&found.node).map_err(|error| error.path(&found.path))? {
            cancel.check()?;
            if node.is_metadata && !self.args.all {
                continue;
            }
            let shown = name.to_string();
            let child = found.child(name, node);
            self.add(&child, if is_only { &shown } else { &child.path })?;
        }
        Ok(())
    }

    fn add(&mut self, found: &Found, shown: &str) -> Result<()> {
        let details = || self.files.details(&found.node).map_err(|error| error.path(&found.path));
        if let Some(json) = &mut self.json {
            return json.push(&Line { path: &found.path, details: details()? });
        }
        let mark = if found.node.kind == NodeKind::Folder { "/" } else { "" };
        let mut out = EscapedLines::new(std::mem::take(&mut self.out));
        // Writing to a String cannot fail.
        let _ = if self.args.long {
            write_long(&mut out, shown, mark, &details()?)
        } else {
            writeln!(out, "{shown}{mark}")
        };
        self.out = out.into_inner();
        if self.out.len() >= PRINTED_AT_ONCE {
            self.print();
        }
        Ok(())
    }

    fn print(&mut self) {
        self.ui.answer_part(&std::mem::take(&mut self.out));
    }
}

/// DOS attributes as letters, `-` for each that is not set.
pub(in super::super) fn attribute_letters(attributes: u32) -> String {
    let set = |(bit, letter): &(u32, char)| if attributes & bit == 0 { '-' } else { *letter };
    ATTRIBUTES.iter().map(set).collect()
}

fn write_long(out: &mut EscapedLines<String>, shown: &str, mark: &str, details: &Details) -> std::fmt::Result {
    let kind = match details.kind {
        NodeKind::Folder => 'd',
        NodeKind::File => '-',
        NodeKind::Link => 'l',
    };
    let attributes = attribute_letters(details.attributes);
    let modified = details.modified.as_deref().unwrap_or("-");
    write!(out, "{kind}{attributes} {:>14} {modified:<20} {shown}{mark}", details.size)?;
    if let Some(target) = &details.target {
        write!(out, " -> {target}")?;
    }
    for stream in &details.streams {
        write!(out, " :{}", escape(stream))?;
    }
    writeln!(out)
}
