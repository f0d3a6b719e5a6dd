//! The signature of a package: its catalogue, checked against its files.

use std::sync::Arc;

use super::catalogue::Catalogue;
use super::report::SignatureReport;
use crate::drivers::inf::Facts;
use crate::error::Result;

/// Reads a file of a package by its name below the package's folder; `None` if the file does not exist.
pub(crate) type ReadFile<'a> = dyn FnMut(&str) -> Result<Option<Arc<Vec<u8>>>> + 'a;

/// Checks a package against its catalogue: the INF and each file that the INF names.
///
/// # Errors
/// Those of `read`.
pub(crate) fn catalogue_report(facts: &Facts, read: &mut ReadFile<'_>) -> Result<SignatureReport> {
    let Some(name) = &facts.catalog else {
        return Ok(SignatureReport::default().with_problem("the INF names no catalogue"));
    };
    let Some(data) = read(name)? else {
        return Ok(SignatureReport::default().with_problem(format!("the catalogue {name} is missing")));
    };
    let present = SignatureReport { present: true, ..SignatureReport::default() };
    match Catalogue::parse(&data) {
        Ok(catalogue) => check_package(facts, name, &catalogue, read),
        Err(why) => Ok(present.with_problem(format!("the catalogue {name} cannot be read ({why})"))),
    }
}

/// Like [`catalogue_report`], with the catalogue parsed.
fn check_package(facts: &Facts, name: &str, catalogue: &Catalogue, read: &mut ReadFile<'_>) -> Result<SignatureReport> {
    let digest = catalogue.digest_name().map(str::to_owned);
    let report = SignatureReport {
        present: true,
        parsed: true,
        signer: catalogue.signer().map(str::to_owned),
        digest: digest.or_else(|| catalogue.other_digest().map(str::to_lowercase)),
        ..SignatureReport::default()
    };
    if let Some(digest) = catalogue.other_digest() {
        let text = format!("the catalogue {name} is signed with {digest}, which is not trusted any more");
        return Ok(report.with_problem(text));
    }
    if !catalogue.is_intact() {
        let text = format!("the catalogue {name} contradicts itself: its signature is of another list");
        return Ok(report.with_problem(text));
    }
    let missing = unlisted(facts, catalogue, read)?;
    if missing.is_empty() {
        return Ok(SignatureReport { matches: true, ..report });
    }
    let others: Vec<&str> = catalogue.other_digests().collect();
    let why = if others.is_empty() {
        "it is of another package, or the file was changed".to_owned()
    } else {
        format!("it lists files by {}, which is not trusted any more", others.join(" and "))
    };
    Ok(report.with_problem(format!("the catalogue {name} does not list {}: {why}", missing.join(", "))))
}

/// The INF and the files that it installs, as far as the catalogue does not list them.
fn unlisted(facts: &Facts, catalogue: &Catalogue, read: &mut ReadFile<'_>) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let copied = facts.installs.iter().flat_map(|install| &install.copy_files).map(|file| &file.source);
    for name in std::iter::once(&facts.file_name).chain(&facts.source_files).chain(copied) {
        if seen.insert(name.to_lowercase())
            && let Some(data) = read(name)?
            && !catalogue.lists(&data)
        {
            out.push(name.clone());
        }
    }
    Ok(out)
}
