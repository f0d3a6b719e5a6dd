use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::fleet::record::Planned;
use crate::fleet::shard::shard_of;
use crate::fleet::testing::finished;

/// A results folder with these events.
fn folder(root: &Path, name: &str, events: &[Event]) -> PathBuf {
    let folder = root.join(name);
    std::fs::create_dir(&folder).unwrap();
    let mut text = String::new();
    events.iter().for_each(|event| writeln!(text, "{}", event.to_line()).unwrap());
    std::fs::write(folder.join(EVENTS_FILE), text).unwrap();
    folder
}

fn begun(shard: Shard, items: u64, items_in_all: u64) -> Event {
    Event::Begun(Begun {
        tool: "winject 0.0".into(),
        time: "2026-01-01T00:00:00Z".into(),
        job: "inject".into(),
        dry_run: false,
        attempt: 1,
        shard,
        items,
        items_in_all,
        skipped: Vec::new(),
        jobs: 2,
    })
}

fn planned(id: &str) -> Event {
    Event::Planned(Planned { id: id.into(), image: format!("/vms/{id}.qcow2") })
}

fn ended(id: &str, outcome: Outcome, shard: Shard, time: &str) -> Event {
    Event::Finished(Finished { shard, time: time.into(), ..finished(id, outcome) })
}

#[test]
fn the_last_attempt_counts_and_one_that_did_not_come_to_the_item_does_not() {
    let root = tempfile::tempdir().unwrap();
    let one = Shard::default();
    let end = |id, outcome| ended(id, outcome, one, "2026-01-01T00:00:00Z");
    let events = [
        begun(one, 3, 3),
        planned("a"),
        planned("b"),
        planned("c"),
        end("a", Outcome::Killed),
        end("b", Outcome::Done),
        begun(one, 3, 3),
        planned("a"),
        planned("b"),
        planned("c"),
        end("a", Outcome::Done),
        end("b", Outcome::NotStarted),
    ];
    let path = folder(root.path(), "r", &events);
    let mut text = std::fs::read_to_string(path.join(EVENTS_FILE)).unwrap();
    text.push_str("{\"schema\":\"winject/batch-ev");
    std::fs::write(path.join(EVENTS_FILE), text).unwrap();
    let mut merged = Merged::read(&[path.clone(), path.join("../r")]).unwrap();
    assert_eq!((merged.expected, merged.unread, merged.shards), (3, 1, 1));
    assert_eq!(merged.faults, Faults { missing: Ids { count: 1, named: vec!["c".into()] }, ..Faults::default() });
    let tally = merged.tally().unwrap();
    assert_eq!((tally.items(), tally.count(Outcome::Done)), (2, 2));
}

#[test]
fn results_of_other_things_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let inject = folder(root.path(), "a", &[begun(Shard::default(), 0, 0)]);
    let other = folder(root.path(), "b", &[]);
    std::fs::write(other.join(EVENTS_FILE), "x\n{}\n").unwrap();
    assert_eq!(Merged::read(&[inject, other.clone()]).unwrap_err().kind(), Kind::Usage);
    std::fs::remove_file(other.join(EVENTS_FILE)).unwrap();
    assert!(Merged::read(&[other]).unwrap_err().hint_text().unwrap().contains("--results"));
}

#[test]
fn an_item_of_two_batches_is_double() {
    let root = tempfile::tempdir().unwrap();
    let one = Shard::default();
    let paths: Vec<PathBuf> = ["x", "y"]
        .map(|name| {
            let end = ended("a", Outcome::Done, one, "2026-01-01T00:00:00Z");
            folder(root.path(), name, &[begun(one, 2, 2), planned("a"), end, planned(name)])
        })
        .into();
    let merged = Merged::read(&paths).unwrap();
    assert_eq!(merged.faults.double, Ids { count: 1, named: vec!["a".into()] });
    assert_eq!(merged.faults.missing, Ids { count: 2, named: vec!["x".into(), "y".into()] });
    assert_eq!((merged.expected, merged.faults.missing_unnamed), (4, 0));
}

#[test]
fn items_of_three_batches_are_not_missing_and_a_busy_image_does_not_hide_that_it_is_done() {
    let root = tempfile::tempdir().unwrap();
    let one = Shard::default();
    let paths: Vec<PathBuf> = [("x", Outcome::Busy, 3), ("y", Outcome::Done, 1), ("z", Outcome::Busy, 2)]
        .map(|(name, outcome, second)| {
            let end = |id| ended(id, outcome, one, &format!("2026-01-01T00:00:0{second}Z"));
            folder(root.path(), name, &[begun(one, 2, 2), planned("a"), planned("b"), end("a"), end("b")])
        })
        .into();
    let mut merged = Merged::read(&paths).unwrap();
    assert_eq!((merged.faults.double.count, merged.faults.missing_items()), (2, 0));
    assert_eq!(merged.tally().unwrap().count(Outcome::Done), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Shards of one list, run any number of times in any number of folders, give each item once with its last outcome; without
    /// one of the shards, or one of the results, exactly that is missing.
    #[test]
    fn shards_give_each_item_once(count in 1_u32..6, items in 0_u32..40, retried in any::<u64>(), lost in any::<u64>()) {
        let root = tempfile::tempdir().unwrap();
        let ids: Vec<String> = (0..items).map(|item| format!("vm\n{item}")).collect();
        let mut paths = Vec::new();
        for index in 0..count {
            let shard = Shard { index, count };
            let own: Vec<&String> = ids.iter().filter(|id| shard_of(id, count) == index).collect();
            let begin = begun(shard, own.len() as u64, u64::from(items));
            let mut events = vec![begin.clone()];
            events.extend(own.iter().map(|id| planned(id)));
            events.extend(own.iter().map(|id| ended(id, Outcome::Busy, shard, "2026-01-01T00:00:00Z")));
            let mut again = vec![begin];
            again.extend(own.iter().map(|id| planned(id)));
            again.extend(own.iter().map(|id| ended(id, Outcome::Done, shard, "2026-01-01T00:00:01Z")));
            // A run again in the same folder, or, of a shard of several, in another one.
            if count > 1 && retried >> index & 1 == 1 {
                paths.push(folder(root.path(), &format!("again{index}"), &again));
            } else {
                events.extend(again);
            }
            paths.push(folder(root.path(), &format!("first{index}"), &events));
        }
        let mut merged = Merged::read(&paths).unwrap();
        prop_assert!(merged.faults.is_empty(), "{:?}", merged.faults);
        let tally = merged.tally().unwrap();
        prop_assert_eq!((tally.count(Outcome::Done), tally.items()), (u64::from(items), u64::from(items)));
        prop_assert_eq!(merged.expected, u64::from(items));
        let lost = u32::try_from(lost % u64::from(count)).unwrap();
        let rest: Vec<PathBuf> = paths.iter().filter(|path| !path.to_string_lossy().ends_with(&lost.to_string())).cloned().collect();
        if !rest.is_empty() {
            let merged = Merged::read(&rest).unwrap();
            let gone = ids.iter().filter(|id| shard_of(id, count) == lost).count() as u64;
            prop_assert_eq!(&merged.faults.missing_shards, &vec![lost]);
            prop_assert_eq!(merged.faults.missing_items(), gone);
        }
    }
}
