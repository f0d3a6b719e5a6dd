//! The Markdown form, and the names of the guide.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{run, setting};
use crate::support;

/// Whatever the guide tells people to look for in a report is in its JSON form, and in what they paste into a ticket.
fn every_field_of_the_guide_is_in_both_forms() {
    let Some(path) = support::shared().map(|shared| shared.join("guide.md")).filter(|path| path.exists()) else {
        return support::skip("the guide is not here");
    };
    let guide = std::fs::read_to_string(path).unwrap();
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    // A mention begins in a pair of backquotes.
    let mentions = guide.split("`virtio.").skip(1).map(|rest| rest.split(|c| !is_of_name(c)).next().unwrap());
    let names: BTreeSet<&str> = mentions.collect();
    assert!(names.len() >= 5, "{names:?}");
    let folder = setting();
    let words = ["inject", "win10.qcow2", "--drivers", "drivers", "--dry-run", "--report", "r.md"];
    assert!(run(folder.path(), &words).status.success());
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let (markdown, json) = (read("r.md"), serde_json::from_str::<Value>(&read("r.json")).unwrap());
    for name in names {
        let field = name.split('.').fold(&json["virtio"], |value, part| &value[part]);
        assert!(!field.is_null(), "{name} in JSON");
        let line = markdown.lines().find(|line| line.starts_with(&format!("- `virtio.{name}`: ")));
        let line = line.unwrap_or_else(|| panic!("{name} in Markdown:\n{markdown}"));
        if let Value::Bool(value) = field {
            assert!(line.ends_with(&value.to_string()), "{line}");
        } else {
            assert!(line.contains("viostor") && line.contains("vioscsi"), "{line}");
        }
    }
    assert!(markdown.lines().count() < 60, "a ticket wants less:\n{markdown}");
}

tests![every_field_of_the_guide_is_in_both_forms];
