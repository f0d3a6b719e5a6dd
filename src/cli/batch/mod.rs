//! `winject batch`: one job over many images, each in a process of its own.

mod args;
mod asked;
mod document;
mod engines;
mod gather;
mod job;
pub(super) mod merge;
mod probe;
mod show;
mod worker_args;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command, FromArgMatches as _};

pub use args::Args;
use args::{BatchArgs, Job, ShardArg};
use asked::Asked;
use gather::Gathered;
use job::JobKind;
use show::Printer;

use super::Ui;
use super::failure::usage_message;
use super::request::InjectSpec;
use super::signals::{self, Subject};
use super::{convert, inject};
use crate::clock::FileTime;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::shell_argument;
use crate::exit::ExitCode;
use crate::fleet::files;
use crate::fleet::merge::Merged;
use crate::fleet::results::Results;
use crate::fleet::supervisor::{self, Batch, Summary};
use crate::fleet::tally::Tally;
use crate::fleet::{Begun, Ended, Event, Item, Shard};

/// Least memory of a worker where there are several, in bytes: two large hives (150 MiB) as they are read and edited, the stage
/// (64 MiB) and the caches.
const WORKER_BYTES: u64 = 512 << 20;

/// Runs the command; `root` and `matches` are those of the whole command line.
///
/// # Errors
/// What is wrong with the command line, the document or the list: nothing was begun then. When the results cannot be written.
/// That an item failed is an answer, not an error.
pub fn run(args: Args, root: &Command, matches: &ArgMatches, ui: &Ui) -> Result<ExitCode> {
    if let Some(Job::Merge(args)) = &args.job {
        return merge::run(args, ui);
    }
    // From now on a signal is the batch's to answer, which waits for its workers.
    let _hold = signals::cancel().hold_through();
    signals::set_subject(Subject::Batch);
    let is_sandboxed = !matches.get_flag("no_sandbox");
    let asked = ask(args, root, matches)?;
    asked.warnings.iter().for_each(|warning| ui.warn(warning));
    let folder = asked.folder.as_deref().unwrap_or(Path::new(""));
    let jobs = jobs(&asked.batch);
    let threads = (processors() / jobs).max(1);
    let memory = asked.batch.memory.map(|memory| memory / jobs as u64);
    let check = |item: &Item| check_command(asked.job, item).map_err(|error| error.path(item.id.clone()));
    let gathered = gather::gather(asked.job, asked.entries, threads, folder, check, |items| {
        probe::files_of(items, folder, is_sandboxed)
    })?;
    let shard = match asked.batch.shard {
        None => Shard::default(),
        Some(ShardArg::Given(shard)) => {
            if asked.batch.shard_count.is_some_and(|count| count != shard.count) {
                let message =
                    format!("--shard {shard} says how many shards there are, and --shard-count another number");
                return Err(Error::new(Kind::Usage, Layer::Cli, message)
                    .hint("leave --shard-count out: it belongs to --shard auto"));
            }
            shard
        }
        Some(ShardArg::Auto) => engines::from_environment(asked.batch.shard_count)?,
    };
    let is_dry_run = gathered.items.iter().all(|item| item.arguments.iter().any(|argument| argument == "--dry-run"));
    let batch = Batch {
        program: std::env::current_exe()
            .map_err(|error| Error::io(Layer::Host, "cannot find the program itself", error))?,
        folder: asked.folder.clone(),
        arguments: shared_arguments(asked.job, is_sandboxed, memory),
        items: Vec::new(),
        job: asked.job.name().to_owned(),
        shard,
        attempt: 1,
        has_results: asked.batch.results.is_some(),
        jobs,
        memory,
        per_device: asked.batch.per_device,
        max_failures: None,
        grace: asked.batch.grace(),
    };
    let summary = work(batch, gathered, &asked.batch, asked.job, is_dry_run, ui)?;
    Ok(summary.verdict.exit_code())
}

/// Runs the items of the shard, and writes and prints what happens.
fn work(
    mut batch: Batch,
    gathered: Gathered,
    options: &BatchArgs,
    job: JobKind,
    dry_run: bool,
    ui: &Ui,
) -> Result<Summary> {
    let Gathered { items, skipped } = gathered;
    let items_in_all = items.len() as u64;
    let folder = batch.folder.clone().unwrap_or_default();
    batch.items = items.into_iter().filter(|item| batch.shard.has(&item.id)).collect();
    batch.max_failures = options.max_failures.map(|limit| limit.of(batch.items.len()));
    let sources = |item: &Item| item.disks.iter().map(|disk| folder.join(disk)).collect::<Vec<_>>();
    let all_sources: Vec<PathBuf> = batch.items.iter().flat_map(sources).collect();
    let mut results = match &options.results {
        Some(path) => {
            files::check(path).and_then(|()| Results::open(path, &all_sources, &signals::cancel())).map(Some)?
        }
        None => None,
    };
    drop(all_sources);
    let ids = batch.items.iter().map(|item| item.id.as_str());
    results.as_ref().map_or(Ok(()), |results| results.check_items(ids))?;
    batch.attempt = results.as_ref().map_or(1, Results::attempt);
    let mut printer = Printer::new(ui);
    let mut tally = Tally::default();
    let mut tell = |event: &Event, results: &mut Option<Results>| {
        printer.show(event);
        results.as_mut().map_or(Ok(()), |results| results.add(event))
    };
    let begun = Begun {
        tool: concat!("winject ", env!("CARGO_PKG_VERSION")).to_owned(),
        time: FileTime::now().to_string(),
        job: batch.job.clone(),
        dry_run,
        attempt: batch.attempt,
        shard: batch.shard,
        items: batch.items.len() as u64,
        items_in_all,
        skipped,
        jobs: u32::try_from(batch.jobs).unwrap_or(u32::MAX),
    };
    tell(&Event::Begun(begun), &mut results)?;
    for item in &batch.items {
        tell(&Event::Planned(item.planned()), &mut results)?;
    }
    // Of each item, the files that its result is made from.
    let disks: std::collections::BTreeMap<&str, &Item> =
        batch.items.iter().map(|item| (item.id.as_str(), item)).collect();
    let summary = supervisor::run(&batch, &signals::count, &mut |event, answer| {
        if let Event::Finished(finished) = &event {
            tally.add(finished);
        }
        if let (Event::Finished(finished), Some(results)) = (&event, &results)
            && finished.report.is_some()
        {
            let sources = disks.get(finished.id.as_str()).map(|item| sources(item)).unwrap_or_default();
            results.write_item(finished, answer.as_ref(), &sources)?;
        }
        tell(&event, &mut results)
    })?;
    let ended = Ended {
        time: FileTime::now().to_string(),
        attempt: batch.attempt,
        seconds: summary.seconds,
        code: summary.verdict.exit_code() as u8,
        stopped: summary.stopped.clone(),
    };
    tell(&Event::Ended(ended), &mut results)?;
    results.as_ref().map_or(Ok(()), Results::sync)?;
    printer.end(job, &summary);
    let page = options.results.as_ref().map(|path| shell_argument(&path.join(files::PAGE_FILE), files::PAGE_FILE));
    printer.summarise(&tally, summary.seconds, page.as_deref());
    // The results are open: no other run appends to them meanwhile.
    options.results.as_ref().map_or(Ok(()), |path| write_files(path, batch.items.len() as u64))?;
    drop(results);
    Ok(summary)
}

/// Writes the files that are made from all runs in the results folder of a shard of so many items.
fn write_files(folder: &Path, items: u64) -> Result<()> {
    let folders = [folder.to_owned()];
    let write = || {
        let mut merged = Merged::read(&folders)?;
        merged.take_as_shard(items);
        let tally = merged.tally()?;
        files::write(&mut merged, &tally, folder, &folders, &signals::cancel())
    };
    write().map(drop).map_err(|error| {
        let folder = shell_argument(folder, "FOLDER");
        error.hint(format!(
            "the items are done; these files are made again by: winject batch merge {folder} -o {folder}"
        ))
    })
}

/// What is asked for, from the command line or the document.
fn ask(args: Args, root: &Command, matches: &ArgMatches) -> Result<Asked> {
    let Args { job, document, config, batch } = args;
    let Some(job) = job else {
        let path = document.or(config).ok_or_else(|| {
            Error::new(Kind::Usage, Layer::Cli, "neither a job nor a document is given")
                .hint("winject batch inspect IMAGE… runs a job, winject batch JOB.yaml a document")
        })?;
        return document::ask(&path, batch);
    };
    let (kind, batch) = match job {
        Job::Inspect(args) => (JobKind::Inspect, args.batch),
        Job::Check(args) => (JobKind::Check, args.batch),
        Job::Inject(args) => (JobKind::Inject, args.batch),
        Job::Convert(args) => (JobKind::Convert, args.batch),
        Job::Merge(_) => return Err(Error::bug(Layer::Cli, "merge is not a job of a batch")),
    };
    let own = || root.find_subcommand("batch")?.find_subcommand(kind.name());
    let below = matches.subcommand_matches("batch").and_then(|matches| matches.subcommand_matches(kind.name()));
    let (Some(command), Some(matches)) = (own(), below) else {
        return Err(Error::bug(Layer::Cli, "the job of a batch is not on its command line"));
    };
    let images = matches.get_raw(if kind == JobKind::Convert { "input" } else { "image" });
    let images = images.into_iter().flatten().map(PathBuf::from);
    let entries = gather::typed(images, worker_args::given(kind, command, matches))?;
    Ok(Asked { job: kind, folder: None, entries, batch, warnings: Vec::new() })
}

/// Workers that run at the same time.
fn jobs(options: &BatchArgs) -> usize {
    let wanted = options.jobs.unwrap_or_else(processors);
    let fitting =
        options.memory.map_or(usize::MAX, |memory| usize::try_from(memory / WORKER_BYTES).unwrap_or(usize::MAX));
    wanted.min(fitting).max(1)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The arguments that all workers share.
fn shared_arguments(job: JobKind, is_sandboxed: bool, memory: Option<u64>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        job.name().into(),
        "--json".into(),
        "--progress=json".into(),
        format!("--worker={}", std::process::id()).into(),
    ];
    arguments.extend(memory.map(|bytes| format!("--worker-memory={bytes}").into()));
    if !is_sandboxed {
        arguments.push("--no-sandbox".into());
    }
    arguments
}

/// Refuses what the command of an item would refuse as such, before anything begins.
fn check_command(job: JobKind, item: &Item) -> Result<()> {
    let operands = item.arguments.iter().skip_while(|argument| *argument != "--").skip(1).count();
    if job == JobKind::Convert && operands < 2 {
        return Err(Error::new(Kind::Usage, Layer::Cli, "no output given")
            .with_code(ErrorCode::NoDestination)
            .hint("add -o 'new/{name}.qcow2', in a document the key `to_output: 'new/{name}.qcow2'`"));
    }
    let mut command = worker_args::job_command(job).no_binary_name(true);
    let wrong = |error: clap::Error| {
        Error::new(Kind::Usage, Layer::Cli, usage_message(&error))
            .hint(format!("winject {} --help shows the options", job.name()))
    };
    let matches = command.try_get_matches_from_mut(&item.arguments).map_err(wrong)?;
    let spec: InjectSpec = match job {
        JobKind::Inspect | JobKind::Check => return Ok(()),
        JobKind::Inject => inject::Args::from_arg_matches(&matches).map_err(wrong)?.into(),
        JobKind::Convert => convert::Args::from_arg_matches(&matches).map_err(wrong)?.into(),
    };
    spec.output.destination().map(drop)
}
