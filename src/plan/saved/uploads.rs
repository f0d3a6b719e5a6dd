//! Files of the user that a plan puts outside of winject's own places. A plan lists them, the review shows the list, and
//! no other edit may touch such a place.

use std::collections::{BTreeSet, HashSet};

use super::document::PlanDocument;
use super::edit::SavedEdit;
use super::limits::{UPLOADS_MAX, wrong};
use super::scope::is_own;
use super::steps::judge_new_path;
use crate::error::Result;
use crate::ntfs::name::is_short;
use crate::plan::change::Access;
use crate::upcase::Fold;

/// Largest file of the user, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 30;

/// What Windows keeps or reads at the top of its drive, before it runs.
const TAKEN: [&str; 16] = [
    "boot",
    "boot.ini",
    "bootfont.bin",
    "bootmgr",
    "bootmgr.efi",
    "bootnxt",
    "bootsect.dos",
    "efi",
    "hiberfil.sys",
    "ntdetect.com",
    "ntldr",
    "pagefile.sys",
    "recovery",
    "swapfile.sys",
    "system volume information",
    "winpepge.sys",
];

/// Why a file of the user does not go to this path of a volume with this Windows folder.
pub(crate) fn judge_upload_path(path: &str, windows_folder: &str) -> std::result::Result<(), String> {
    judge_new_path(path)?;
    let lower = path.to_ascii_lowercase();
    let windows = windows_folder.to_ascii_lowercase();
    let is_below =
        |folder: &str| lower.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if is_below(&windows) {
        return Err("it lies in the Windows folder".to_owned());
    }
    if is_own(&lower) {
        return Err("it lies in winject's own folder".to_owned());
    }
    let top = lower.split('/').nth(1).unwrap_or_default();
    if TAKEN.contains(&top) {
        return Err("Windows itself has this name at the top of its drive".to_owned());
    }
    // A short name may stand for any folder, also for one that is out of bounds.
    let is_generated = |name: &str| name.split('~').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    match path.split('/').find(|name| is_generated(name) && is_short(&(*name).into())) {
        Some(name) => Err(format!("{name} may be the short name of another file or folder")),
        None => Ok(()),
    }
}

/// Judges the list of a document: sorted, each place fit for it, and each written by an edit.
pub(super) fn judge_uploads(document: &PlanDocument) -> Result<()> {
    let uploads = &document.uploads;
    let require = |is_right: bool, why: &str| if is_right { Ok(()) } else { Err(wrong("uploads", why)) };
    require(uploads.len() <= UPLOADS_MAX, "more files of the user than one plan may have")?;
    require(uploads.is_sorted_by(|a, b| a < b), "each is listed once, in order")?;
    let folded: BTreeSet<String> = uploads.iter().map(|path| path.folded()).collect();
    require(folded.len() == uploads.len(), "two are one file to Windows")?;
    let written = document.steps.iter().filter_map(|step| match &step.edit {
        SavedEdit::WriteFile { path, access: Access::Inherited, .. } => Some(path.as_str()),
        _ => None,
    });
    let written: HashSet<&str> = written.collect();
    for path in uploads {
        let at = |why: String| wrong(&format!("uploads: {path}"), why);
        judge_upload_path(path, &document.windows.folder).map_err(at)?;
        let above = path.folded();
        let is_folder =
            folded.range(format!("{above}/")..).next().is_some_and(|next| next.starts_with(&format!("{above}/")));
        require(!is_folder, "one is the folder of another")?;
        require(written.contains(path.as_str()), "one is not written by any edit")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{SavedFile, SavedFileContent, SavedStep, Sha256Sum, sample};
    use super::*;
    use crate::error::Kind;

    #[test]
    fn only_places_of_the_user_are_taken() {
        for path in ["/Tools/x.exe", "/x", "/Program Files/A/b.txt", "/Windows.old/x", "/Users/Public/ä.txt", "/a~b/c"]
        {
            assert_eq!(judge_upload_path(path, "/Windows"), Ok(()), "{path}");
        }
        for path in [
            "/Windows",
            "/WINDOWS/x.dll",
            "/windows/System32/drivers/new.sys",
            "/hyper2kvm",
            "/Hyper2KVM/firstboot.cmd",
            "/HYPER2~1/firstboot.cmd",
            "/PROGRA~1/x",
            "/a/B~2.TXT",
            "/bootmgr",
            "/EFI/Boot/bootx64.efi",
            "/hiberfil.sys",
            "/System Volume Information/x",
            "/$Extend/x",
            "/a/../Windows/x",
            "/a//b",
            "/a/",
            "/a:b",
            "/a\\b",
            "/a/con.txt",
            "/a/b.",
            "/a/b ",
            "a",
            "",
            "/",
        ] {
            assert!(judge_upload_path(path, "/Windows").is_err(), "{path}");
        }
        assert!(judge_upload_path(&format!("/{}", "n".repeat(255)), "/Windows").is_ok());
        assert!(judge_upload_path(&format!("/{}", "n".repeat(256)), "/Windows").is_err());
        assert!(judge_upload_path("/WinNT/x", "/WINNT").is_err());
    }

    /// A document that puts these files into the guest, with their folders.
    fn with_uploads(paths: &[&str], folders: &[&str]) -> PlanDocument {
        let mut document = sample::document();
        let sha256 = Sha256Sum::of(b"a tool");
        document.files.push(SavedFile { sha256, size: 6, content: SavedFileContent::Host("tool.exe".to_owned()) });
        document.files.sort_by_key(|file| file.sha256);
        let folders =
            folders.iter().map(|path| SavedEdit::CreateDir { path: (*path).to_owned(), access: Access::Inherited });
        let files = paths.iter().map(|path| SavedEdit::WriteFile {
            path: (*path).to_owned(),
            sha256,
            size: 6,
            access: Access::Inherited,
            before: None,
        });
        let edits = folders.chain(files).map(|edit| SavedStep { reason: "upload".to_owned(), edit });
        document.steps.splice(0..0, edits.collect::<Vec<_>>());
        document.uploads = paths.iter().map(|path| (*path).to_owned()).collect();
        document
    }

    fn refused(document: &PlanDocument) -> String {
        let error = document.judge().unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        error.to_string()
    }

    #[test]
    fn a_plan_writes_what_it_lists_and_lists_what_it_writes() {
        let good = with_uploads(&["/Tools/a.exe", "/b.exe"], &["/Tools"]);
        good.judge().unwrap();
        assert_eq!(PlanDocument::parse(&good.to_bytes()).unwrap(), good);

        let mut unlisted = good.clone();
        unlisted.uploads.pop();
        assert!(refused(&unlisted).contains("no such edit in this place"));
        let mut unwritten = good.clone();
        unwritten.uploads.push("/c.exe".to_owned());
        assert!(refused(&unwritten).contains("not written"));
        let mut replaced = good.clone();
        for step in &mut replaced.steps {
            if let SavedEdit::WriteFile { path, before, .. } = &mut step.edit
                && path == "/b.exe"
            {
                *before = Some(crate::plan::saved::FileFact { size: 1, sha256: Sha256Sum::of(b"x") });
            }
        }
        assert!(refused(&replaced).contains("no such edit in this place"));
        for (paths, folders) in [
            (&["/Tools/a.exe"][..], &["/Tools", "/Other"][..]),
            (&["/Tools/a.exe"], &["/Windows"]),
            (&["/Windows/System32/new.dll"], &[]),
            (&["/hyper2kvm/new.cmd"], &[]),
            (&["/b", "/a"], &[]),
            (&["/A", "/a"], &[]),
            (&["/a", "/a/b"], &[]),
            (&["/a", "/a", "/b"], &[]),
        ] {
            refused(&with_uploads(paths, folders));
        }
    }

    /// What runs in the guest is shown by the review: a plan may not take the text of a script from elsewhere.
    #[test]
    fn a_script_is_held_by_the_plan_itself() {
        for content in [SavedFileContent::Host("setup.cmd".to_owned()), SavedFileContent::Media("setup.cmd".to_owned())]
        {
            let mut document = sample::document();
            for file in &mut document.files {
                if matches!(file.content, SavedFileContent::Text(_)) {
                    file.content = content.clone();
                }
            }
            assert!(refused(&document).contains("no review shows it"));
        }
    }

    proptest! {
        /// No spelling leads into the Windows folder or winject's own, or to a name that Windows would not have.
        #[test]
        fn no_accepted_path_leads_elsewhere(names in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec!["Windows", "wINDOWS", "hyper2kvm", "HYPER2~1", "..", ".", "", "Tools", "con", "a.", "$MFT"])
                    .prop_map(str::to_owned),
                "[a-zA-Z~$. :\\\\/]{0,6}",
                any::<String>(),
            ], 0..4)) {
            let path = format!("/{}", names.join("/"));
            if judge_upload_path(&path, "/Windows").is_ok() {
                let lower = path.to_lowercase();
                prop_assert!(!lower.starts_with("/windows/") && lower != "/windows");
                prop_assert!(!lower.starts_with("/hyper2kvm/") && lower != "/hyper2kvm");
                for name in path.split('/').skip(1) {
                    prop_assert!(crate::ntfs::name::problem_with(&name.into()).is_none(), "{:?}", name);
                    prop_assert!(name != "." && name != "..");
                }
            }
        }
    }
}
