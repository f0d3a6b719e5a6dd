//! The documents: what they tell the reader to run runs, and what they point to is there.

mod commands;
mod fixtures;
mod links;

use std::path::PathBuf;

use crate::support;

/// A Markdown file of the repository.
struct Document {
    /// Its path below the repository.
    name: String,
    text: String,
}

/// The documents for users, which say of each command whether it is run here.
fn guides() -> Vec<Document> {
    let mut names = vec!["README.md".to_owned()];
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(support::root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    names.extend(
        pages
            .iter()
            .filter(|page| page.extension().is_some_and(|e| e == "md"))
            .map(|page| format!("docs/{}", page.file_name().unwrap().to_str().unwrap())),
    );
    names.into_iter().map(read).collect()
}

/// All documents.
fn all() -> Vec<Document> {
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    guides().into_iter().chain(others.map(|name| read(name.to_owned()))).collect()
}

fn read(name: String) -> Document {
    let text = std::fs::read_to_string(support::root().join(&name)).unwrap();
    Document { name, text }
}

tests![in commands, links;];
