//! All kinds of answers and documents.

use clap::Command;
use schemars::JsonSchema;
use serde_json::Value;

use super::document;
use super::listing::List;
use super::root::{answer, lines, list, plain};
use crate::block::describe::ImageInfo;
use crate::cli::batch::merge;
use crate::cli::{convert, diff, explain, failure, fsck, image, inspect, look, ntfs_log, progress, recover, reg, undo};
use crate::drivers::list::Listing;
use crate::fleet::{Event, ItemResult};
use crate::job::look::Copied;
use crate::job::{BootAnswer, Report};
use crate::plan::saved::PlanDocument;

/// A kind of answer or document.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Which command gives or takes it.
    pub(super) about: &'static str,
    make: fn(&str, Command) -> Value,
}

impl Kind {
    const fn of<T: JsonSchema>(name: &'static str, about: &'static str) -> Self {
        Self { name, about, make: |name, _| answer::<T>(name) }
    }

    /// Its JSON Schema; `root` is the command line.
    pub(super) fn schema(&self, root: Command) -> Value {
        (self.make)(self.name, root)
    }
}

/// All of them, in the order of the commands.
pub(super) const KINDS: &[Kind] = &[
    Kind::of::<Report>("report", "inject, apply, remove, convert --drivers; --report FILE.json"),
    Kind {
        name: "plan",
        about: "plan; the saved plan of plan -o FILE (its schema is winject.plan.v1)",
        make: |_, _| plain::<PlanDocument>(),
    },
    Kind::of::<undo::Answer>("undo", "undo"),
    Kind::of::<recover::Answer>("recover", "recover"),
    Kind::of::<convert::Answer>("convert", "convert without drivers"),
    Kind::of::<inspect::Answer>("inspect", "inspect"),
    Kind::of::<BootAnswer>("check", "check"),
    Kind {
        name: "batch-event",
        about: "batch --json: each line; events.jsonl of --results",
        make: |name, _| lines::<Event>(name, "event"),
    },
    Kind::of::<ItemResult>("batch-item", "batch --results: the file of an item"),
    Kind::of::<Listing>("drivers-list", "drivers list"),
    Kind::of::<fsck::Answer>("fsck", "fsck"),
    Kind::of::<ImageInfo>("image-info", "image info"),
    Kind::of::<image::Checked>("image-check", "image check"),
    Kind { name: "image-map", about: "image map", make: |name, _| list::<image::Mapped, image::Range>(name, "ranges") },
    Kind { name: "ls", about: "ls", make: |name, _| list::<look::ListHead, look::Line>(name, "files") },
    Kind::of::<Copied>("cp", "cp"),
    Kind::of::<ntfs_log::ShowAnswer>("ntfs-log-show", "ntfs-log show"),
    Kind::of::<ntfs_log::ReplayAnswer>("ntfs-log-replay", "ntfs-log replay"),
    Kind {
        name: "diff",
        about: "diff",
        make: |name, _| list::<diff::DiffSummary, diff::DiffItem>(name, "differences"),
    },
    Kind {
        name: "reg-query",
        about: "reg query",
        make: |name, _| list::<reg::QueryAnswer, reg::QueriedKey>(name, "keys"),
    },
    Kind::of::<reg::EditAnswer>("reg-edit", "reg set, reg delete, reg import"),
    Kind::of::<reg::CheckAnswer>("reg-check", "reg check"),
    Kind::of::<merge::Answer>("batch-merge", "batch merge"),
    Kind::of::<explain::Answer>("explain", "explain CODE, explain --list"),
    Kind::of::<progress::ProgressLine>("progress", "any command with --progress json, on standard error"),
    Kind::of::<failure::Answer>("error", "any command that fails"),
    Kind::of::<List>("schema-list", "schema --list"),
    Kind { name: "config", about: "the YAML document of --config", make: |_, root| document::schema(root) },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;
    use std::collections::HashSet;

    #[test]
    fn every_name_stands_once_and_every_schema_describes_its_fields() {
        let mut names = HashSet::new();
        for kind in KINDS {
            assert!(names.insert(kind.name), "{}", kind.name);
            let schema = kind.schema(Cli::command());
            let properties = schema["properties"].as_object().unwrap();
            assert!(properties.len() > 2, "{}", kind.name);
            if !matches!(kind.name, "config" | "plan") {
                assert_eq!(properties["schema"]["const"], format!("winject/{}", kind.name));
            }
            for (name, property) in properties {
                let is_described = property.get("description").is_some() || property.get("$ref").is_some();
                assert!(is_described || property.get("anyOf").is_some(), "{}: {name} has no description", kind.name);
            }
        }
    }
}
