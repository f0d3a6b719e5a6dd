//! From a saved plan back to one that can be applied: contents are looked up by their hashes.

use std::collections::BTreeMap;

use super::data::Sha256Sum;
use super::document::{PlanDocument, SavedFile, SavedFileContent};
use super::edit::{SavedEdit, SavedStep};
use crate::drivers::{ContentIndex, Sources};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hex;
use crate::plan::change::{Change, Content, Step};
use crate::plan::document::Plan;

/// How many missing files an error lists.
const LISTED_MAX: usize = 8;

/// The contents of a plan's files by their hashes.
#[derive(Debug, Clone, Default)]
pub struct Contents(BTreeMap<Sha256Sum, Content>);

impl PlanDocument {
    /// Finds all contents that the plan writes: in the document, in its bundle (a folder of files that are named by their
    /// hashes), and on driver media, there at the path that they had, else by hash.
    ///
    /// # Errors
    /// [`Kind::Drivers`] with the files that are not found, or when the media cannot be read; [`Kind::Usage`] for a
    /// content in the document that is not what its hash says.
    pub fn find_contents(&self, bundle: &Sources, media: &Sources) -> Result<Contents> {
        let (mut bundle, mut media) = (ContentIndex::new(bundle), ContentIndex::new(media));
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for file in &self.files {
            let content = match &file.content {
                SavedFileContent::Text(text) => inline(file, text.as_bytes().to_vec())?,
                SavedFileContent::Hex(digits) => inline(file, hex::decode(digits).unwrap_or_default())?,
                SavedFileContent::Media(path) | SavedFileContent::Host(path) => {
                    let hash = file.sha256;
                    let found = match bundle.find(file.size, hash.0, &hash.to_string())? {
                        Some(file) => Some(file),
                        None => media.find(file.size, hash.0, path)?,
                    };
                    let Some(found) = found else {
                        missing.push((path, hash));
                        continue;
                    };
                    Content::of_package(&found)
                }
            };
            found.insert(file.sha256, content);
        }
        if missing.is_empty() {
            return Ok(Contents(found));
        }
        let listed = missing.iter().take(LISTED_MAX);
        let listed = listed.map(|(path, hash)| describe_missing(path, *hash, &bundle, &media)).collect();
        Err(not_found(missing.len(), listed))
    }

    /// The plan, ready to be applied.
    ///
    /// # Errors
    /// [`Kind::Usage`] when an edit writes a content that is not among the document's files.
    pub fn to_plan(&self, contents: &Contents) -> Result<Plan> {
        let mut plan = Plan::new(&self.windows.config);
        plan.steps = self.steps.iter().map(|step| to_step(step, contents)).collect::<Result<_>>()?;
        plan.uploads.clone_from(&self.uploads);
        plan.boot.clone_from(&self.boot);
        plan.notes.clone_from(&self.notes);
        plan.warnings.clone_from(&self.warnings);
        Ok(plan)
    }
}

fn inline(file: &SavedFile, bytes: Vec<u8>) -> Result<Content> {
    let content = Content::new(bytes);
    if content.is_hashed(file.size, file.sha256.0) {
        return Ok(content);
    }
    let what = "cannot apply the plan: the content of a file is not what its hash says";
    Err(Error::new(Kind::Usage, Layer::Plan, what)
        .with_code(ErrorCode::PlanInvalid)
        .path(file.sha256.to_string())
        .hint("make the plan again"))
}

/// Why a file of the media is not at hand.
fn describe_missing(path: &str, hash: Sha256Sum, bundle: &ContentIndex<'_>, media: &ContentIndex<'_>) -> String {
    let other = bundle.show_at(&hash.to_string()).or_else(|| media.show_at(path));
    match other {
        Some(shown) => format!("{shown} has another content than {path} had"),
        None => format!("{path} (sha256 {hash})"),
    }
}

fn not_found(count: usize, mut listed: Vec<String>) -> Error {
    if count > LISTED_MAX {
        listed.push(format!("and {} more", count - LISTED_MAX));
    }
    let what = format!("cannot find {count} of the plan's files: {}", listed.join("; "));
    Error::new(Kind::Drivers, Layer::Plan, what).hint(
        "name the driver media that the plan was made from: --drivers virtio-win.iso (and --drivers FOLDER for the user's own \
         files); or make the plan with --bundle",
    )
}

fn to_step(step: &SavedStep, contents: &Contents) -> Result<Step> {
    let change = match step.edit.clone() {
        SavedEdit::CreateDir { path, access } => Change::CreateDir { path, access },
        SavedEdit::WriteFile { path, sha256, size, access, before } => {
            let content = contents.0.get(&sha256).filter(|content| content.size() == size).cloned();
            let Some(content) = content else {
                let what = "cannot apply the plan: it does not say what a file is to hold";
                return Err(Error::new(Kind::Usage, Layer::Plan, what)
                    .with_code(ErrorCode::PlanInvalid)
                    .path(path)
                    .hint("make the plan again"));
            };
            Change::WriteFile { path, content, replaces: before.is_some(), access }
        }
        SavedEdit::Protect { path, .. } => Change::Protect { path },
        SavedEdit::DeleteFile { path, .. } => Change::DeleteFile { path },
        SavedEdit::CopyBootFile { path, from, size, sha256 } => {
            Change::CopyBootFile { path, from, size, sha256: sha256.0 }
        }
        SavedEdit::CreateKey { hive, key } => Change::CreateKey { hive, key },
        SavedEdit::SetValue { hive, key, name, data, before } => Change::SetValue { hive, key, name, data, before },
        SavedEdit::DeleteValue { hive, key, name, .. } => Change::DeleteValue { hive, key, name },
        SavedEdit::DeleteKey { hive, key, .. } => Change::DeleteKey { hive, key },
    };
    Ok(Step { change, reason: step.reason.clone() })
}
