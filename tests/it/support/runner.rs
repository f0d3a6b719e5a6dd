//! Runs the tests. A test that cannot run here says why, and is counted as ignored; at the end the reasons are listed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Completion, Trial};

thread_local! {
    /// Why the test on this thread did not run, or not all of it.
    static SKIPPED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// How many tests were ignored for each reason.
static REASONS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Marks the running test as ignored. Under CI this is a failure: there, every test must run.
pub fn skip(why: &str) {
    assert!(!super::is_ci(), "under WINJECT_CI=1 this test must run, but: {why}");
    SKIPPED.with_borrow_mut(|reason| {
        reason.get_or_insert_with(|| why.to_owned());
    });
}

/// The test `name` of the module `path`.
pub fn trial(path: &str, name: &str, test: fn()) -> Trial {
    let path = path.split_once("::").map_or("", |(_, path)| path);
    Trial::ignorable_test(format!("{path}::{name}"), move || {
        // The runner's threads take one test after the other.
        SKIPPED.take();
        test();
        Ok(match SKIPPED.take() {
            None => Completion::Completed,
            Some(reason) => {
                *REASONS.lock().unwrap().entry(reason.clone()).or_default() += 1;
                Completion::ignored_with(reason)
            }
        })
    })
}

/// Runs what the command line selects and tells what did not run.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Many tests wait for other programs and for flushes.
    arguments
        .test_threads
        .get_or_insert_with(|| std::thread::available_parallelism().map_or(2, |count| count.get() + 1));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let reasons = REASONS.lock().unwrap();
    if !reasons.is_empty() {
        println!("{} tests did not run, or not all of them:", conclusion.num_ignored);
        for (reason, tests) in &*reasons {
            println!("{tests:6}  {reason}");
        }
    }
    conclusion.exit_code()
}
