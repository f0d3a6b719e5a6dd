//! The options of a batch itself; those of its job are the job's own.

use std::path::PathBuf;
use std::time::Duration;

use super::merge;
use crate::cli::numbers::{parse_number, parse_threads};
use crate::cli::{check, convert, inject, inspect};
use crate::fleet::Shard;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(after_help = "\
Running the same command again goes on where it stopped: an image that is done costs its inspection, an \
output the comparison with what the run would write.

Exit codes: 0 all done; 1 an item failed for good, or has findings; 2 usage; 75 an item can be tried again as it is (an \
image was in use, a worker was killed, the host had no space, the batch was stopped).

Examples:
  winject batch inspect '/vms/*.qcow2'
  winject batch inject '/vms/*.vmdk' --drivers virtio-win.iso -o '/new/{name}.qcow2' --results results
  find /vms -name '*.raw' -print0 | winject batch inject - --drivers virtio-win.iso --in-place --results results
  winject batch fleet.yaml --shard auto")]
pub struct Args {
    #[command(subcommand)]
    pub(super) job: Option<Job>,

    /// Document with the job, its images and options
    #[arg(value_name = "JOB.yaml", conflicts_with = "config")]
    pub(super) document: Option<PathBuf>,

    /// Read the job from this document
    #[arg(long, value_name = "JOB.yaml")]
    pub(super) config: Option<PathBuf>,

    #[command(flatten)]
    pub(super) batch: BatchArgs,
}

/// The jobs of a batch.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Job {
    /// Inspect many images: which Windows, and whether it can be edited
    Inspect(JobArgs<inspect::Args>),
    /// Check of many images whether their Windows will boot from a virtio disk
    Check(JobArgs<check::Args>),
    /// Make the Windows in many images bootable from a virtio disk
    Inject(JobArgs<inject::Args>),
    /// Convert many images to qcow2 or raw
    Convert(ConvertArgs),
    /// Join the results of shards and runs: every item exactly once
    Merge(merge::Args),
}

// The options of a job, and those of the batch
#[derive(Debug, clap::Args)]
#[command(after_help = None::<&'static str>, mut_arg("image", |argument| argument.value_name("IMAGE").help(IMAGES_HELP)))]
pub(super) struct JobArgs<A: clap::Args> {
    #[command(flatten)]
    pub(super) job: A,

    #[command(flatten, next_help_heading = "Batch")]
    pub(super) batch: BatchArgs,
}

// The same for a conversion, whose output is a template
#[derive(Debug, clap::Args)]
#[command(after_help = None::<&'static str>)]
#[command(mut_arg("input", |argument| argument.value_name("IMAGE").num_args(1..).help(IMAGES_HELP)))]
#[command(mut_arg("output", |argument| {
    argument.short('o').long("output").value_name("NEW").help("File to write each new image to, such as 'new/{name}.qcow2'")
}))]
pub(super) struct ConvertArgs {
    #[command(flatten)]
    pub(super) job: convert::Args,

    #[command(flatten, next_help_heading = "Batch")]
    pub(super) batch: BatchArgs,
}

const IMAGES_HELP: &str = "\
Disk images, each an item of the batch: files and patterns (in quotes, so that long lists are no problem), or - for a list \
on standard input, separated by NUL or line breaks. In the names of outputs and reports {name} stands for the image's name \
without its ending, {id} for the item's id";

// The options of the batch
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(super) struct BatchArgs {
    /// Run at most this many workers at the same time [default: the processors]
    #[arg(short = 'j', long, value_name = "N", value_parser = parse_threads)]
    pub(super) jobs: Option<usize>,

    /// Divide so much memory, such as 4G, among the workers: fewer run at the same time if a part would be less than 512 MiB. An
    /// image that needs more than a part fails, and no other
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) memory: Option<u64>,

    /// Run at most this many workers at the same time on images of one device or mount
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub(super) per_device: Option<usize>,

    /// Stop when more items than this have failed, a number or a share (5%)
    #[arg(long, value_name = "N|P%", value_parser = Limit::parse)]
    pub(super) max_failures: Option<Limit>,

    /// When the batch is asked to stop, give running items this time to finish or roll back [default: 25]
    #[arg(long, value_name = "SECONDS", value_parser = parse_grace)]
    pub(super) grace: Option<u64>,

    /// Work on a part of the items: INDEX/COUNT, counted from 0; auto asks the environment of Kubernetes, Slurm, AWS Batch,
    /// PBS, LSF, Nomad, GitLab or Buildkite
    #[arg(long, value_name = "INDEX/COUNT|auto", value_parser = ShardArg::parse)]
    pub(super) shard: Option<ShardArg>,

    /// With --shard auto: the number of shards, where the engine does not say it
    #[arg(long, value_name = "COUNT", requires = "shard", value_parser = parse_shards)]
    pub(super) shard_count: Option<u32>,

    /// Write the results into this folder: events.jsonl, a file for each item, and at the end items.jsonl, fleet.html,
    /// junit.xml and winject.prom
    #[arg(long, value_name = "FOLDER")]
    pub(super) results: Option<PathBuf>,
}

impl BatchArgs {
    /// Time that workers have to finish or roll back: less than the 30 seconds that Kubernetes and Slurm leave by default.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.unwrap_or(25))
    }
}

/// How many failures are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Number(u64),
    PerCent(u64),
}

impl Limit {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%') {
            Some(share) => parse_number(share, 0..=100).map(Self::PerCent),
            None => parse_number(text, 0..=u64::MAX).map(Self::Number),
        }
        .map_err(|_| "use a number, or a share from 0% to 100%".to_owned())
    }

    /// The number for so many items.
    pub(super) fn of(self, items: usize) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::PerCent(share) => (items as u64).saturating_mul(share) / 100,
        }
    }
}

/// Which shard, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShardArg {
    Auto,
    Given(Shard),
}

impl ShardArg {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { Shard::parse(text).map(Self::Given) }
    }
}

pub(super) fn parse_shards(text: &str) -> Result<u32, String> {
    parse_number(text, 1..=1 << 20)
}

pub(super) fn parse_grace(text: &str) -> Result<u64, String> {
    parse_number(text, 0..=86_400)
}

/// Parses a number of bytes: digits, and one of K, M, G, T for powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").or(upper.strip_suffix('B')).unwrap_or(&upper);
    let (digits, shift) = match upper.chars().last() {
        Some('K') => (upper.trim_end_matches('K'), 10),
        Some('M') => (upper.trim_end_matches('M'), 20),
        Some('G') => (upper.trim_end_matches('G'), 30),
        Some('T') => (upper.trim_end_matches('T'), 40),
        _ => (upper, 0),
    };
    let number: Option<u64> = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let size = number.and_then(|number| number.checked_mul(1 << shift)).filter(|size| *size > 0);
    size.ok_or_else(|| "use a size such as 512M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_limits() {
        assert_eq!((parse_size("2G"), parse_size("512 M".replace(' ', "").as_str())), (Ok(2 << 30), Ok(512 << 20)));
        assert_eq!((parse_size("1MiB"), parse_size("7")), (Ok(1 << 20), Ok(7)));
        for text in ["", "G", "-1", "1.5G", "0", "99999999999T", "1GG1"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(Limit::parse("5%").map(|limit| limit.of(250)), Ok(12));
        assert_eq!(Limit::parse("0").map(|limit| limit.of(250)), Ok(0));
        assert!(Limit::parse("101%").is_err() && Limit::parse("x").is_err());
    }
}
