//! The rules of the source tree that the compiler does not check: the order of the layers, no circles, and that every
//! integration test is listed.

mod imports;

use std::collections::BTreeSet;
use std::path::Path;

use crate::support;
use imports::Tree;
use winject::ErrorCode;

/// The top-level modules from the ground up. A module imports from rows below its own only.
pub const LAYERS: &[&[&str]] = &[
    &["hex", "random", "error_code", "schema", "sync"],
    &["error", "guid", "clock", "escape", "upcase"],
    &["units"],
    &["cancel", "io", "exit", "xml", "yaml", "field"],
    &["host"],
    &["hive", "ntfs", "fat", "iso", "nbd"],
    &["bitlocker", "wim"],
    &["partition"],
    &["block"],
    &["drivers"],
    &["plan"],
    &["windows"],
    &["job"],
    &["fleet"],
    &["cli"],
];

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|row| row.contains(&module)).unwrap_or_else(|| {
        panic!("{module} has no place in the layers: add it to LAYERS and to ARCHITECTURE.md");
    })
}

fn no_layer_names_a_higher_one() {
    let tree = Tree::read(&support::root().join("src"));
    let mut found = Vec::new();
    for (from, to, name) in tree.imports() {
        let (Some(lower), Some(upper)) = (tree.top(from), tree.top(to)) else { continue };
        if lower != upper && layer(lower) <= layer(upper) {
            found.push(format!("{} takes {name} from {}", tree.path(from), tree.path(to)));
        }
    }
    assert!(found.is_empty(), "imports that run up:\n{}", found.join("\n"));
}

fn no_files_import_each_other_in_a_circle() {
    let tree = Tree::read(&support::root().join("src"));
    let found: Vec<String> = tree.circles().iter().map(|circle| tree.describe(circle)).collect();
    assert!(found.is_empty(), "circles:\n{}", found.join("\n"));
}

fn every_test_is_in_a_list() {
    let mut todo = vec![support::root().join("tests/it")];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                assert_listed(&path);
            }
        }
    }
}

/// The runner knows the functions in `tests![…]` only: one that has the attribute would never run.
fn assert_listed(path: &Path) {
    let file = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
    for item in file.items {
        if let syn::Item::Fn(function) = item {
            let marked = function.attrs.iter().any(|a| a.path().is_ident("test"));
            assert!(!marked, "{}: list {} in tests![…] instead", path.display(), function.sig.ident);
        }
    }
}

/// The methods of `Observer` have bodies, so that the compiler does not miss one that is not passed on.
fn every_call_of_an_observer_is_passed_on() {
    let read = |path: &str| syn::parse_file(&std::fs::read_to_string(support::root().join(path)).unwrap()).unwrap();
    let called = read("src/job/request.rs").items.into_iter().find_map(|item| match item {
        syn::Item::Trait(found) if found.ident == "Observer" => Some(found.items),
        _ => None,
    });
    let called = called.unwrap().into_iter().filter_map(|item| match item {
        syn::TraitItem::Fn(function) => Some(function.sig.ident.to_string()),
        _ => None,
    });
    let passed = read("src/job/phases.rs").items.into_iter().filter_map(|item| match item {
        syn::Item::Impl(found) if found.trait_.is_some() => Some(found.items),
        _ => None,
    });
    let passed = passed.flatten().filter_map(|item| match item {
        syn::ImplItem::Fn(function) => Some(function.sig.ident.to_string()),
        _ => None,
    });
    let (called, passed): (Vec<String>, Vec<String>) = (called.collect(), passed.collect());
    assert!(!called.is_empty() && called == passed, "{called:?}, but PhaseClock passes on {passed:?}");
}

/// The texts of all source files.
fn source_texts() -> Vec<String> {
    let mut texts = Vec::new();
    let mut todo = vec![support::root().join("src")];
    while let Some(folder) = todo.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}

/// The name of a variant stands in the source wherever it is raised.
fn every_error_code_is_raised() {
    let sources = source_texts();
    let is_raised = |code: &ErrorCode| {
        let name = format!("ErrorCode::{code:?}");
        let is_named = |text: &str| {
            text.match_indices(&name).any(|(at, _)| !text[at + name.len()..].starts_with(char::is_alphanumeric))
        };
        sources.iter().any(|text| is_named(text))
    };
    let unused: Vec<_> = ErrorCode::ALL.iter().filter(|code| !is_raised(code)).collect();
    assert!(unused.is_empty(), "no error has these codes: {unused:?}");
    let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), ErrorCode::ALL.len(), "two codes have one name");
    let is_kebab = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    assert!(names.iter().all(is_kebab), "{names:?}");
}

tests![in imports;
    no_layer_names_a_higher_one, no_files_import_each_other_in_a_circle, every_test_is_in_a_list, every_error_code_is_raised,
    every_call_of_an_observer_is_passed_on,
];
