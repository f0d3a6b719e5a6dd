//! `--shard auto`: the number of this run and how many there are, as the engine that started it says.

use crate::error::{Error, Kind, Layer, Result};
use crate::fleet::Shard;

/// How an engine tells a task its number.
struct Engine {
    name: &'static str,
    /// The variable with the number of the task.
    index: &'static str,
    /// The variable with the number of tasks, if the engine has one.
    count: Option<&'static str>,
    /// The variables with the first number and the step, if they can be others than `first` and 1.
    first_and_step: Option<(&'static str, &'static str)>,
    /// The first number.
    first: u32,
}

/// All engines that are known. The first whose variable is set counts: one that runs inside of another comes before it.
const ENGINES: &[Engine] = &[
    // https://kubernetes.io/docs/concepts/workloads/controllers/job: completion mode Indexed. `JOB_COMPLETIONS` is set by our manifest.
    Engine::new("Kubernetes", "JOB_COMPLETION_INDEX", Some("JOB_COMPLETIONS"), 0),
    // https://slurm.schedmd.com/job_array.html
    Engine {
        first_and_step: Some(("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")),
        ..Engine::new("Slurm", "SLURM_ARRAY_TASK_ID", Some("SLURM_ARRAY_TASK_COUNT"), 0)
    },
    // https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html
    Engine::new("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", Some("AWS_BATCH_JOB_ARRAY_SIZE"), 0),
    // PBS Professional and OpenPBS, then Torque: neither says how many there are, nor where they begin.
    Engine::new("PBS", "PBS_ARRAY_INDEX", None, 0),
    Engine::new("Torque", "PBS_ARRAYID", None, 0),
    // IBM Spectrum LSF: counted from 1; 0 for a job that is not an array.
    Engine::new("LSF", "LSB_JOBINDEX", Some("LSB_JOBINDEX_END"), 1),
    // https://developer.hashicorp.com/nomad/docs/runtime/environment
    Engine::new("Nomad", "NOMAD_ALLOC_INDEX", None, 0),
    // https://docs.gitlab.com/ci/variables/predefined_variables: with `parallel:`, counted from 1
    Engine::new("GitLab", "CI_NODE_INDEX", Some("CI_NODE_TOTAL"), 1),
    // https://buildkite.com/docs/pipelines/configure/environment-variables
    Engine::new("Buildkite", "BUILDKITE_PARALLEL_JOB", Some("BUILDKITE_PARALLEL_JOB_COUNT"), 0),
];

impl Engine {
    const fn new(name: &'static str, index: &'static str, count: Option<&'static str>, first: u32) -> Self {
        Self { name, index, count, first_and_step: None, first }
    }
}

/// The shard that the environment names; `count` is that of `--shard-count`.
///
/// # Errors
/// [`Kind::Usage`] when no variable of a known engine is set, one is not a number, or the number of shards is not known.
pub(super) fn from_environment(count: Option<u32>) -> Result<Shard> {
    shard(count, |name| std::env::var(name).ok())
}

fn shard(count: Option<u32>, variable: impl Fn(&str) -> Option<String>) -> Result<Shard> {
    let usage = |message: String| Error::new(Kind::Usage, Layer::Cli, message);
    let number = |name: &str| -> Result<Option<u32>> {
        let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| {
            usage(format!("cannot tell the shard: {name} is not a number: {text}"))
                .hint("name the shard: --shard INDEX/COUNT")
        })
    };
    for engine in ENGINES {
        let Some(index) = number(engine.index)? else { continue };
        let (first, step) = match engine.first_and_step {
            Some((first, step)) => (number(first)?.unwrap_or(engine.first), number(step)?.unwrap_or(1)),
            None => (engine.first, 1),
        };
        let told = engine.count.map(&number).transpose()?.flatten();
        let count = count.or(told).ok_or_else(|| {
            let variable = engine.count.map(|count| format!(" (or {count} in the environment)")).unwrap_or_default();
            let message = format!("cannot tell the shard: {} does not say how many there are", engine.name);
            usage(message).hint(format!("add --shard-count COUNT{variable}"))
        })?;
        let index = index.checked_sub(first).and_then(|index| index.checked_div(step));
        let shard =
            index.ok_or_else(|| "its number is below the first".to_owned()).and_then(|index| Shard::new(index, count));
        return shard.map_err(|why| {
            usage(format!(
                "cannot tell the shard: {} is {}, and {why}",
                engine.index,
                variable(engine.index).unwrap_or_default()
            ))
            .hint("name the shard: --shard INDEX/COUNT")
        });
    }
    let known: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
    Err(usage("cannot tell the shard: the environment is not that of an engine that is known".to_owned())
        .expected_found(format!("a variable of {}", known.join(", ")), "none")
        .hint("name the shard: --shard INDEX/COUNT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_is_understood() {
        for (variables, shard) in [
            ("JOB_COMPLETION_INDEX=3 JOB_COMPLETIONS=4", Some((3, 4))),
            (
                "SLURM_ARRAY_TASK_ID=9 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_STEP=2",
                Some((3, 4)),
            ),
            ("SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_TASK_COUNT=4", Some((2, 4))),
            ("AWS_BATCH_JOB_ARRAY_INDEX=0 AWS_BATCH_JOB_ARRAY_SIZE=2", Some((0, 2))),
            ("LSB_JOBINDEX=2 LSB_JOBINDEX_END=2", Some((1, 2))),
            ("LSB_JOBINDEX=0 LSB_JOBINDEX_END=0", None),
            ("CI_NODE_INDEX=1 CI_NODE_TOTAL=3", Some((0, 3))),
            ("BUILDKITE_PARALLEL_JOB=1 BUILDKITE_PARALLEL_JOB_COUNT=3", Some((1, 3))),
            ("PBS_ARRAY_INDEX=1", None),
            ("NOMAD_ALLOC_INDEX=1", None),
            ("JOB_COMPLETION_INDEX=4 JOB_COMPLETIONS=4", None),
            ("JOB_COMPLETION_INDEX=x JOB_COMPLETIONS=4", None),
            ("", None),
        ] {
            let variable = |name: &str| {
                variables
                    .split_whitespace()
                    .find_map(|set| set.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
            };
            match (super::shard(None, variable), shard) {
                (Ok(found), Some((index, count))) => assert_eq!(found, Shard { index, count }, "{variables}"),
                (Err(error), None) => assert!(error.hint_text().unwrap().contains("--shard"), "{variables}: {error}"),
                (found, _) => panic!("{variables}: {found:?}"),
            }
        }
        let nomad = |name: &str| (name == "NOMAD_ALLOC_INDEX").then(|| "1".to_owned());
        assert_eq!(super::shard(Some(3), nomad).unwrap(), Shard { index: 1, count: 3 });
    }
}
