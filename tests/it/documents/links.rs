//! What the documents point to: files of the repository, headings, each other.

use std::path::Path;

use super::{Document, all};
use crate::house::LAYERS;
use crate::support;

/// What the documents in backquotes call a path of the repository, or of `src/`, is there.
fn documents_name_files_that_exist() {
    let mut missing = Vec::new();
    let mut seen = 0;
    // The changelog names what was there once.
    for document in all().iter().filter(|document| document.name != "CHANGELOG.md") {
        for name in document.text.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            seen += 1;
            let name = name.trim_end_matches('/');
            let places = [name.to_owned(), format!("src/{name}"), format!("src/{name}.rs")];
            if !places.iter().any(|place| support::root().join(place).exists()) {
                missing.push(format!("{}: {name}", document.name));
            }
        }
    }
    assert!(missing.is_empty(), "not in the repository:\n{}", missing.join("\n"));
    assert!(seen > 30, "only {seen} paths found");
}

/// Whether a word in backquotes is a path of the repository: `src/ntfs/`, `ntfs/check`, `.ci/run`.
fn is_path(name: &str) -> bool {
    let top = name.split('/').next().unwrap_or_default();
    let tops = ["src", "tests", "examples", "benches", "fuzz", "guest", ".ci", "deploy", "docs", "test-images"];
    name.contains('/') && (tops.contains(&top) || LAYERS.iter().any(|row| row.contains(&top)))
}

fn links_lead_to_places_that_exist() {
    let (mut faults, mut seen) = (Vec::new(), 0);
    for document in all() {
        for target in links(&document.text) {
            seen += 1;
            if let Err(why) = follow(&document, &target) {
                faults.push(format!("{}: {target}: {why}", document.name));
            }
        }
    }
    assert!(faults.is_empty(), "links that lead nowhere:\n{}", faults.join("\n"));
    assert!(seen > 30, "only {seen} links found");
}

/// The targets of a document's links, but for those to other hosts.
fn links(text: &str) -> Vec<String> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// The lines of a document that are not in a fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        is_code ^= line.starts_with("```");
        !is_code
    })
}

fn follow(document: &Document, target: &str) -> Result<(), String> {
    let (path, heading) = target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    let text = if path.is_empty() {
        document.text.clone()
    } else {
        let folder = Path::new(&document.name).parent().unwrap();
        let file = support::root().join(folder).join(path);
        if file.is_dir() {
            return Ok(());
        }
        std::fs::read_to_string(file).map_err(|error| error.to_string())?
    };
    match heading {
        Some(heading) if !prose(&text).filter_map(anchor).any(|anchor| anchor == heading) => {
            Err("no such heading".into())
        }
        _ => Ok(()),
    }
}

/// The anchor that a heading gets where Markdown is shown: lower case, without punctuation, with dashes for blanks.
fn anchor(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    Some(kept.replace(' ', "-"))
}

fn a_link_that_leads_nowhere_is_found() {
    let document = Document { name: "docs/made-up.md".into(), text: "# What `check` looks at, here\n".into() };
    assert_eq!(follow(&document, "#what-check-looks-at-here"), Ok(()));
    assert_eq!(follow(&document, "#what"), Err("no such heading".into()));
    assert_eq!(follow(&document, "../README.md#two-commands"), Ok(()));
    assert!(follow(&document, "../README.md#three-commands").is_err());
    assert!(follow(&document, "README.md").is_err());
    assert_eq!(links("[a](b.md) and [c](#d)\n```\n[e](f)\n```\n[g](https://h)"), ["b.md", "#d"]);
}

tests![documents_name_files_that_exist, links_lead_to_places_that_exist, a_link_that_leads_nowhere_is_found];
