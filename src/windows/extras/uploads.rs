//! `--upload`: files of the host that are put into the guest.
//!
//! An upload is a new file: none of the guest's is replaced. The manifest lists it, with the folders that were made for it,
//! so that `winject remove` knows them; what an earlier run uploaded stays listed as long as it is there unchanged.

use std::collections::{BTreeMap, BTreeSet};

use super::guest_path;
use super::options::Upload;
use crate::drivers::PackageFile;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hex;
use crate::plan::saved::{FILE_BYTES_MAX, UPLOADS_MAX};
use crate::plan::{Access, Content};
use crate::upcase::Fold;
use crate::windows::plan_builder::{Desired, PlanBuilder, Present};
use crate::windows::record::{Action, FileRecord, Record};
use crate::windows::removal::manifest::{Listed, ListedFile};

/// An upload with its content and the path that it gets.
struct Wanted<'a> {
    upload: &'a Upload,
    path: String,
    file: PackageFile,
}

/// Plans the uploads.
///
/// # Errors
/// [`Kind::Usage`] for a path or file that cannot be used; [`Kind::Refused`] when the guest has something else in the place;
/// when the volume is damaged there.
pub fn plan_uploads(
    builder: &mut PlanBuilder<'_>,
    uploads: &[Upload],
    earlier: &Listed,
    record: &mut Record,
) -> Result<()> {
    let wanted = find_wanted(builder, uploads)?;
    builder.set_reason("files that the user puts into the guest (--upload)");
    let mut owned: BTreeMap<String, (String, [u8; 32])> = BTreeMap::new();
    let mut folders: BTreeMap<String, String> = BTreeMap::new();
    for listed in &earlier.uploads {
        if builder.compare_file(&listed.path, &listed.sha256)? == Present::AsWritten {
            owned.insert(listed.path.folded(), (listed.path.clone(), listed.sha256));
        }
    }
    for folder in &earlier.upload_folders {
        if builder.is_own_folder(folder)? {
            folders.insert(folder.folded(), folder.clone());
        }
    }
    for Wanted { upload, path, file } in wanted.into_values() {
        // What an earlier run uploaded was compared above.
        let is_known = owned.get(&path.folded()).is_some_and(|(_, sha256)| *sha256 == file.sha256);
        let present = if is_known { Present::AsWritten } else { builder.compare_file(&path, &file.sha256)? };
        let action = match present {
            Present::Absent => {
                for folder in missing_folders(builder, &path)? {
                    builder.ensure_folder(&folder, &Access::Inherited)?;
                    folders.insert(folder.folded(), folder);
                }
                builder.upload_file(&path, Content::of_package(&file));
                owned.insert(path.folded(), (path.clone(), file.sha256));
                Action::Created
            }
            Present::AsWritten => {
                if !owned.contains_key(&path.folded()) {
                    builder.add_note(format!(
                        "{path} is in the guest already, with the same content: it is the guest's own, and winject remove leaves it"
                    ));
                }
                Action::Unchanged
            }
            Present::Changed => return Err(taken(upload, &path, earlier)),
            Present::Link => {
                let what = "cannot upload a file: a link, or a file with several names, is in its place in the guest";
                return Err(Error::refused(Layer::Windows, what)
                    .with_code(ErrorCode::Upload)
                    .path(path)
                    .hint("name another place for it in --upload"));
            }
        };
        record.extras.uploads.push(FileRecord {
            name: path.rsplit('/').next().unwrap_or_default().to_owned(),
            action,
            reason: None,
            source: upload.file.display().to_string(),
            destination: path,
            size: file.size,
            sha256: hex::encode(&file.sha256),
            service: None,
        });
    }
    let most = owned.len().max(folders.len());
    if most > UPLOADS_MAX {
        return Err(too_many(most));
    }
    for path in folders.into_values() {
        builder.add_desired(Desired::UploadFolder { path });
    }
    for (path, sha256) in owned.into_values() {
        builder.add_desired(Desired::Upload { path, sha256: hex::encode(&sha256) });
    }
    Ok(())
}

/// The uploads by their folded paths, with their contents hashed.
fn find_wanted<'a>(builder: &PlanBuilder<'_>, uploads: &'a [Upload]) -> Result<BTreeMap<String, Wanted<'a>>> {
    if uploads.len() > UPLOADS_MAX {
        return Err(too_many(uploads.len()));
    }
    let mut wanted = BTreeMap::new();
    for upload in uploads {
        let path = spelled_as_in_guest(builder, upload)?;
        let file = PackageFile::of_host(&upload.file, "the file to upload", FILE_BYTES_MAX)
            .map_err(|error| error.hint("--upload takes one file of at most 4 GiB; a folder goes in as an archive"))?;
        let before = wanted.insert(path.folded(), Wanted { upload, path, file });
        if before.is_some() {
            return Err(conflict(&upload.guest, "two files would be one to Windows"));
        }
    }
    let places: BTreeSet<&str> = wanted.keys().map(String::as_str).collect();
    for (place, wanted) in &wanted {
        let below = format!("{place}/");
        if places.range(below.as_str()..).next().is_some_and(|next| next.starts_with(&below)) {
            return Err(conflict(&wanted.upload.guest, "another upload needs it as a folder"));
        }
    }
    Ok(wanted)
}

/// The path on the volume, with the names of existing files and folders as the guest spells them.
fn spelled_as_in_guest(builder: &PlanBuilder<'_>, upload: &Upload) -> Result<String> {
    let path = guest_path::parse(&upload.guest, builder.guest)?;
    let mut found = String::new();
    let count = path.matches('/').count();
    for (index, name) in path.split('/').skip(1).enumerate() {
        let at = format!("{found}/{name}");
        if !builder.exists(&at)? {
            found = at;
            continue;
        }
        let folder = if found.is_empty() { "/" } else { &found };
        let mut names = builder.folders(folder)?;
        names.extend(builder.file_names(folder)?);
        let Some(spelled) = names.into_iter().find(|other| other.folded() == name.folded()) else {
            let what = format!("cannot upload to {}: {name} is the short name of another file or folder", upload.guest);
            return Err(Error::refused(Layer::Windows, what)
                .with_code(ErrorCode::Upload)
                .hint("spell the name in full"));
        };
        found = format!("{found}/{spelled}");
        let is_last = index + 1 == count;
        if !is_last && !builder.is_own_folder(&found)? {
            let what = format!("cannot upload to {}: a file or a link is in the place of a folder", upload.guest);
            return Err(Error::refused(Layer::Windows, what)
                .with_code(ErrorCode::Upload)
                .path(found)
                .hint("name the folder that it stands for"));
        }
    }
    Ok(found)
}

/// The folders above a path that the guest does not have, the outermost first.
fn missing_folders(builder: &PlanBuilder<'_>, path: &str) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for (at, _) in path.match_indices('/').skip(1) {
        let Some(folder) = path.get(..at) else { continue };
        if !builder.exists(folder)? {
            missing.push(folder.to_owned());
        }
    }
    Ok(missing)
}

fn taken(upload: &Upload, path: &str, earlier: &Listed) -> Error {
    let is_ours = |listed: &ListedFile| listed.path.folded() == path.folded();
    let hint = if earlier.uploads.iter().any(is_ours) {
        "an earlier run uploaded it: name another place for it in --upload; or take out what winject put into the guest \
         (winject remove IMAGE --in-place), and inject again with the new file"
    } else {
        "name another place for it in --upload, or remove the guest's file in the guest"
    };
    let what = format!("cannot upload {}: the guest has another file of this name", upload.file.display());
    Error::refused(Layer::Windows, what).with_code(ErrorCode::Upload).path(path).hint(hint)
}

fn conflict(guest: &str, why: &str) -> Error {
    Error::new(Kind::Usage, Layer::Windows, format!("cannot upload to {guest}: {why}"))
        .with_code(ErrorCode::Upload)
        .hint("give each --upload a place of its own in the guest")
}

fn too_many(count: usize) -> Error {
    Error::new(Kind::Usage, Layer::Windows, "cannot upload so many files, or into so many new folders")
        .with_code(ErrorCode::Upload)
        .expected_found(format_args!("at most {UPLOADS_MAX} of either"), count)
        .hint("pack them into an archive, and upload that")
}
