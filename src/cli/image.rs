//! `winject image`: format and structure of an image file, whether it is sound, and where its data is.

use serde::Serialize;

use super::Ui;
use super::args::QuestionArgs;
use super::output::JsonList;
use crate::block::describe::{self, ImageInfo, MapEntry};
use crate::block::formats::qcow2;
use crate::block::{self, Format};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::nbd::network_notes;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the format and structure of the file, without opening files that it refers to
    Info(QuestionArgs),
    /// Check the structures of the file (exit code 0 if they are sound, 1 if not)
    Check(QuestionArgs),
    /// List the ranges of the disk that hold data, and those that read as zeros
    Map(QuestionArgs),
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be read at all; faults that `check` finds are an answer.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let (Command::Info(common) | Command::Check(common) | Command::Map(common)) = &args.command;
    network_notes(std::slice::from_ref(&common.image)).iter().for_each(|note| ui.warn(note));
    match args.command {
        Command::Info(common) => info(&common, ui),
        Command::Check(common) => check(&common, ui),
        Command::Map(common) => map(&common, ui),
    }
}

fn info(args: &QuestionArgs, ui: &Ui) -> Result<ExitCode> {
    if !args.source.allow_path.is_empty() {
        let message = "--allow-path has no effect: the facts of a file are read from it alone";
        return Err(Error::new(Kind::Usage, Layer::Cli, message).hint("leave it out"));
    }
    let info = describe::info(&args.image, &args.source.open_options())?;
    if ui.is_json() {
        ui.json_answer("image-info", &info)?;
    } else {
        ui.answer(&describe_image(&info));
    }
    Ok(ExitCode::Done)
}

fn describe_image(info: &ImageInfo) -> String {
    let mut lines = vec![
        format!("image: {}", info.filename),
        format!("file format: {}", info.format),
        format!("virtual size: {} ({} bytes)", format_size(info.virtual_size), info.virtual_size),
        format!("disk size: {}", info.actual_size.map_or("unavailable".to_owned(), format_size)),
    ];
    lines.extend(info.cluster_size.map(|size| format!("cluster_size: {size}")));
    lines.extend(info.backing_filename.as_ref().map(|name| format!("backing file: {name}")));
    lines.extend(info.backing_filename_format.as_ref().map(|name| format!("backing file format: {name}")));
    lines.extend(info.dirty_flag.then(|| "cleanly shut down: no".to_owned()));
    if !info.snapshots.is_empty() {
        lines.push("Snapshot list:".to_owned());
        lines.extend(
            info.snapshots
                .iter()
                .map(|s| format!("    {}: {} (machine state {})", s.id, s.name, format_size(s.vm_state_size))),
        );
    }
    if !info.disks.is_empty() {
        lines.push("disks:".to_owned());
        lines.extend(info.disks.iter().map(|name| format!("    {name}")));
    }
    if let Some(specific) = &info.format_specific {
        lines.push("Format specific information:".to_owned());
        nested(&specific.data, 1, &mut lines);
    }
    joined(&lines)
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("\n")
}

/// Prints a JSON object as qemu-img prints format-specific information.
fn nested(value: &serde_json::Value, depth: usize, lines: &mut Vec<String>) {
    let indent = "    ".repeat(depth);
    let entries: Vec<(String, &serde_json::Value)> = match value {
        serde_json::Value::Object(map) => map.iter().map(|(k, v)| (k.replace('-', " "), v)).collect(),
        serde_json::Value::Array(list) => list.iter().enumerate().map(|(i, v)| (format!("[{i}]"), v)).collect(),
        _ => return,
    };
    for (key, value) in entries {
        match value {
            serde_json::Value::Object(_) | serde_json::Value::Array(_) => {
                lines.push(format!("{indent}{key}:"));
                nested(value, depth + 1, lines);
            }
            serde_json::Value::String(text) => lines.push(format!("{indent}{key}: {text}")),
            other => lines.push(format!("{indent}{key}: {other}")),
        }
    }
}

/// The answer of `check` in JSON, with the fields of `qemu-img check`.
#[derive(Debug, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Checked {
    /// Path of the file, as it was given.
    filename: String,
    /// Name of the container's format, as qemu-img has it.
    format: String,
    /// Errors that kept the check from being made: always 0, they are errors of the command.
    check_errors: u64,
    /// The clusters of a qcow2; left out for other formats.
    #[serde(flatten)]
    clusters: Option<Clusters>,
    /// Places where data or metadata are, or can be, lost; for a qcow2 left out if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    corruptions: Option<u64>,
    /// Clusters of a qcow2 that nothing uses; left out if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    leaks: Option<u64>,
    /// Bytes of data on the disk; left out for a qcow2 and for a damaged image.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<u64>,
    /// The first damage that was found; left out for a qcow2 and for a sound image.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// The clusters of a qcow2.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Clusters {
    /// End of the last cluster in use, in bytes of the file.
    image_end_offset: u64,
    /// Clusters of the disk.
    total_clusters: u64,
    /// Clusters with data of their own.
    allocated_clusters: u64,
    /// Allocated clusters that do not follow the one before in the file.
    fragmented_clusters: u64,
    /// Clusters that are compressed.
    compressed_clusters: u64,
}

impl Checked {
    fn new(filename: String, format: String) -> Self {
        Self { filename, format, ..Self::default() }
    }
}

fn check(args: &QuestionArgs, ui: &Ui) -> Result<ExitCode> {
    let options = args.source.open_options();
    let name = args.image.display().to_string();
    let format = describe::info(&args.image, &options)?.format;
    if Format::from_name(&format) == Some(Format::Qcow2) {
        return check_qcow2(args, ui);
    }
    match describe::check_readable(&args.image, &options) {
        Ok(data) => {
            if ui.is_json() {
                let answer = Checked { corruptions: Some(0), data: Some(data), ..Checked::new(name, format) };
                ui.json_answer("image-check", &answer)?;
            } else {
                ui.answer("No errors were found on the image.");
            }
            Ok(ExitCode::Done)
        }
        Err(error) if error.kind() == Kind::Damaged => {
            if ui.is_json() {
                let message = Some(error.to_string());
                let answer = Checked { corruptions: Some(1), message, ..Checked::new(name, format) };
                ui.json_answer("image-check", &answer)?;
            } else {
                ui.answer(&escape(&format!("ERROR {error}")));
                ui.answer("\n1 error was found on the image.");
            }
            Ok(ExitCode::No)
        }
        Err(error) => Err(error),
    }
}

fn check_qcow2(args: &QuestionArgs, ui: &Ui) -> Result<ExitCode> {
    let report = qcow2::check(&args.image, &args.source.open_options())?;
    let is_sound = report.corruptions == 0 && report.leaks == 0;
    if ui.is_json() {
        let clusters = Clusters {
            image_end_offset: report.image_end_offset.0,
            total_clusters: report.total_clusters,
            allocated_clusters: report.allocated_clusters,
            fragmented_clusters: report.fragmented_clusters,
            compressed_clusters: report.compressed_clusters,
        };
        let found = |count: u64| (count > 0).then_some(count);
        let answer = Checked {
            clusters: Some(clusters),
            corruptions: found(report.corruptions),
            leaks: found(report.leaks),
            ..Checked::new(args.image.display().to_string(), "qcow2".to_owned())
        };
        ui.json_answer("image-check", &answer)?;
    } else {
        let mut lines: Vec<String> = report
            .problems
            .iter()
            .map(|p| {
                let word = if p.kind == qcow2::ProblemKind::Leak { "Leaked cluster:" } else { "ERROR" };
                format!("{word} {} at offset {}", p.message, p.offset)
            })
            .collect();
        if is_sound {
            lines.push("No errors were found on the image.".to_owned());
        } else {
            lines.push(format!(
                "{} errors, {} leaked clusters were found on the image.",
                report.corruptions, report.leaks
            ));
        }
        if report.total_clusters > 0 {
            let percent = |n: u64, of: u64| if of == 0 { 0.0 } else { n as f64 * 100.0 / of as f64 };
            lines.push(format!(
                "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
                report.allocated_clusters,
                report.total_clusters,
                percent(report.allocated_clusters, report.total_clusters),
                percent(report.fragmented_clusters, report.allocated_clusters),
                percent(report.compressed_clusters, report.allocated_clusters)
            ));
        }
        lines.push(format!("Image end offset: {}", report.image_end_offset.0));
        ui.answer(&joined(&lines));
    }
    Ok(if is_sound { ExitCode::Done } else { ExitCode::No })
}

/// What stands above the ranges of a map.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Mapped {
    /// Path of the file, as it was given.
    filename: String,
}

/// A range of a map, as `qemu-img map` has it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Range {
    #[serde(flatten)]
    entry: MapEntry,
    /// Always 0: the chain of images is one disk.
    depth: u32,
}

/// Prints the map piece by piece: that of a large disk can be long.
fn map(args: &QuestionArgs, ui: &Ui) -> Result<ExitCode> {
    const PIECE: usize = 64 << 10;
    let image = block::open(&args.image, &args.source.open_options())?;
    let backing: Vec<_> = image.files().into_iter().skip(1).collect();
    network_notes(&backing).iter().for_each(|note| ui.warn(note));
    if ui.is_json() {
        let mut list =
            JsonList::begin(ui, "image-map", &Mapped { filename: args.image.display().to_string() }, "ranges")?;
        let mut failed = None;
        describe::map(&*image, |entry: MapEntry| {
            failed = failed.take().or(list.push(&Range { entry, depth: 0 }).err())
        })?;
        failed.map_or(Ok(()), Err)?;
        list.end();
        return Ok(ExitCode::Done);
    }
    let mut text = String::from("Offset             Length             Kind\n");
    let mut failed = None;
    describe::map(&*image, |e: MapEntry| {
        let kind = if e.data {
            "data"
        } else if e.present {
            "zero"
        } else {
            "not present"
        };
        text += &format!("{:<#18x} {:<#18x} {kind}\n", e.start, e.length);
        if text.len() > PIECE && failed.is_none() {
            failed = ui.raw(text.as_bytes()).err();
            text.clear();
        }
    })?;
    failed.map_or_else(|| ui.raw(text.as_bytes()), Err)?;
    Ok(ExitCode::Done)
}

/// A number of bytes for people, as qemu-img writes it (`%.3g`).
fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // Three significant digits, without a tail of zeros; a leading zero does not count.
    let whole = if value < 1.0 { 0 } else { format!("{value:.0}").len() };
    let text = format!("{value:.*}", 3usize.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    format!("{text} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::format_size;

    #[test]
    fn sizes_look_like_qemus() {
        assert_eq!(format_size(10 << 20), "10 MiB");
        assert_eq!(format_size(2_474_639), "2.36 MiB");
        assert_eq!(format_size(196_608), "192 KiB");
        assert_eq!(format_size(0), "0 B");
        assert_eq!(format_size(1023 << 20), "0.999 GiB");
    }
}
