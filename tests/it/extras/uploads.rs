//! `--upload`: each file is there with the rights that Windows would give, and replaces none of the guest's.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use winject::internals::block::Format;
use winject::internals::hex;
use winject::internals::ntfs::security::inherited;
use winject::internals::plan::Access;
use winject::internals::plan::saved::{PlanDocument, SavedEdit};
use winject::internals::plan::verify::independent::IndependentVolume;

use super::{file, refuse, run, seen_by_ntfs_3g, succeed};
use crate::inject::state::put;
use crate::inject::{disk_sha256, folder, sha256, stderr, writable_fixture};
use crate::remove::{content, disk, only};

/// A small file, and one that is copied piece by piece.
fn files(folder: &Path) -> [Vec<u8>; 2] {
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()).collect();
    let contents = [b"a tool\r\n".to_vec(), large];
    file(folder, "tool.exe", &contents[0]);
    file(folder, "k=v large.bin", &contents[1]);
    contents
}

const UPLOADS: [&str; 4] =
    ["--upload", r"tool.exe=C:\Tools\Sub\tool.exe", "--upload", r"k=v large.bin=\windows.old\k=v.bin"];

fn inject<'a>(image: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    [&["inject", image, "--in-place", "--no-undo"], options].concat()
}

fn an_upload_has_its_content_and_inherits_its_rights() {
    let folder = folder();
    let contents = files(folder.path());
    let image = writable_fixture(folder.path(), Format::Raw);
    let report = succeed(folder.path(), &inject("win10.raw", &[&UPLOADS[..], &["--report", "r.json"]].concat()));
    assert!(report.contains("Done:"), "{report}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("r.json")).unwrap()).unwrap();
    let reported = json["virtio"]["uploads"].as_array().unwrap();
    let places: Vec<_> = reported.iter().map(|one| one["destination"].as_str().unwrap()).collect();
    assert_eq!(places, ["/Tools/Sub/tool.exe", "/windows.old/k=v.bin"]);
    assert!(reported.iter().all(|one| one["action"] == "created"));

    let disk = disk(image);
    let volume = disk.volume();
    let device = volume.into_device();
    let independent = IndependentVolume::open(&device).unwrap();
    assert_eq!(independent.holds("/Tools/Sub/tool.exe", &contents[0]).unwrap(), Some(true));
    assert_eq!(independent.holds("/windows.old/k=v.bin", &contents[1]).unwrap(), Some(true));
    let rights = |path: &str| independent.security(path).unwrap();
    let chain = [("/", "/Tools", true), ("/Tools", "/Tools/Sub", true), ("/Tools/Sub", "/Tools/Sub/tool.exe", false)];
    for (parent, child, is_folder) in chain {
        let parent = rights(parent);
        assert!(parent.is_some(), "the folder of {child} has rights to hand down");
        assert_eq!(rights(child), Some(inherited(parent.as_deref(), is_folder)), "{child}");
    }
    let paths = ["/Tools", "/Tools/Sub", "/Tools/Sub/tool.exe", "/windows.old/k=v.bin"];
    let Some(seen) = seen_by_ntfs_3g(&disk.path, disk.offset, &paths) else { return };
    for path in paths {
        assert_eq!(seen[path].0, hex::encode(&rights(path).unwrap()), "{path}");
    }
    for (path, content) in [(paths[2], &contents[0]), (paths[3], &contents[1])] {
        assert_eq!(seen[path].1, hex::encode(&Sha256::digest(content)), "{path}");
    }
}

fn a_second_run_changes_nothing_and_a_later_one_without_the_option_knows_them() {
    let folder = folder();
    files(folder.path());
    let image = writable_fixture(folder.path(), Format::Raw);
    let before = content(&disk(image.clone()));
    succeed(folder.path(), &inject("win10.raw", &UPLOADS));
    let once = sha256(&image);
    let again = succeed(folder.path(), &inject("win10.raw", &UPLOADS));
    assert!(again.contains("Unchanged"), "{again}");
    // Another spelling of the same place, and no upload at all.
    for options in [&["--upload", r"tool.exe=c:\TOOLS\sub\Tool.EXE"][..], &[]] {
        let again = succeed(folder.path(), &inject("win10.raw", options));
        assert!(again.contains("Unchanged"), "{options:?}: {again}");
        assert_eq!(sha256(&image), once);
    }
    let removed = succeed(folder.path(), &["remove", "win10.raw", "--in-place", "--no-undo"]);
    assert!(removed.contains("Removed:  the uploaded file /Tools/Sub/tool.exe"), "{removed}");
    let after = content(&disk(image));
    let left: Vec<&str> = only(&after, &before).into_iter().filter(|item| !item.contains('\\')).collect();
    assert_eq!(left, Vec::<&str>::new(), "files that removal leaves");
    let gone: Vec<&str> = only(&before, &after).into_iter().filter(|item| !item.contains('\\')).collect();
    assert_eq!(gone, Vec::<&str>::new(), "files of the guest that removal takes");
}

fn what_the_guest_has_made_of_it_stays() {
    let folder = folder();
    files(folder.path());
    let image = writable_fixture(folder.path(), Format::Raw);
    // The guest's own file with the same content is the guest's.
    put(&image, "/own.exe", b"a tool\r\n");
    let own = ["--upload", r"tool.exe=C:\own.exe"];
    let said = succeed(folder.path(), &inject("win10.raw", &[&UPLOADS[..], &own].concat()));
    assert!(said.contains("Done:"), "{said}");
    put(&image, "/Tools/Sub/tool.exe", b"changed by the guest");
    put(&image, "/Tools/notes.txt", b"of the guest");
    let removed = succeed(folder.path(), &["remove", "win10.raw", "--in-place", "--no-undo"]);
    for line in [
        "Left:     /Tools/Sub/tool.exe (it is not as it was uploaded)",
        "Left:     /Tools/Sub (it holds files of others)",
        "Left:     /Tools (it holds files of others)",
        "Removed:  the uploaded file /windows.old/k=v.bin",
    ] {
        assert!(removed.contains(line), "{line} is not in {removed}");
    }
    let after = content(&disk(image));
    for path in ["/own.exe", "/Tools/Sub/tool.exe", "/Tools/notes.txt"] {
        assert!(after.contains_key(path), "{path}");
    }
    assert!(!after.contains_key("/windows.old/"), "a folder that was made for an upload");
}

fn nothing_of_the_guest_is_replaced_and_bad_input_is_refused() {
    let folder = folder();
    let here = folder.path();
    files(here);
    let image = writable_fixture(here, Format::Raw);
    put(&image, "/mine.txt", b"of the guest");
    let hives = r"tool.exe=C:\Windows\System32\config\SYSTEM";
    for (upload, code, word) in [
        (r"tool.exe=C:\MINE.txt", 3, "another file of this name"),
        (r"tool.exe=C:\mine.txt\x", 3, "in the place of a folder"),
        (r"tool.exe=C:\Users", 3, "another file of this name"),
        (r"tool.exe=D:\x", 2, "Windows is on C:"),
        (r"tool.exe=C:\..\x", 2, "leads over . or .."),
        (r"tool.exe=C:\a\\x", 2, "two backslashes"),
        (r"tool.exe=C:\a\", 2, "name of a file"),
        (r"tool.exe=C:\a/b", 2, "slash"),
        (r"tool.exe=C:\nul", 2, "device"),
        (r"tool.exe=C:\a:b", 2, "leads elsewhere"),
        (r"tool.exe=C:\a.", 2, "a dot"),
        (r"tool.exe=C:\hyper2kvm\firstboot.cmd", 2, "winject's own folder"),
        (r"tool.exe=C:\HYPER2~1\firstboot.cmd", 2, "short name"),
        (r"tool.exe=C:\bootmgr", 2, "Windows itself"),
        (r"tool.exe=C:\$MFT", 2, "NTFS itself"),
        (hives, 2, "in the Windows folder"),
        (r"missing.exe=C:\x", 7, "missing.exe"),
        (r".=C:\x", 2, "not a regular file"),
        ("tool.exe", 2, "HOST=GUEST"),
        ("tool.exe=/x", 2, "HOST=GUEST"),
    ] {
        let text = refuse(here, "win10.raw", &inject("win10.raw", &["--upload", upload]), code);
        assert!(text.contains(word), "{upload}: {text}");
    }
    for (first, second, word) in [
        (r"tool.exe=C:\a", r"tool.exe=C:\A", "two files would be one"),
        (r"tool.exe=C:\a", r"tool.exe=C:\a\b", "needs it as a folder"),
    ] {
        let options = ["--upload", first, "--upload", second];
        let text = refuse(here, "win10.raw", &inject("win10.raw", &options), 2);
        assert!(text.contains(word), "{text}");
    }
    // An output never replaces a file that is uploaded.
    let arguments = ["inject", "win10.raw", "--overlay", "tool.exe", "--overwrite", "--upload", r"tool.exe=C:\x"];
    refuse(here, "win10.raw", &arguments, 2);
    // Too large for the guest's free space.
    std::fs::File::create(here.join("huge")).unwrap().set_len(1 << 30).unwrap();
    let text = refuse(here, "win10.raw", &inject("win10.raw", &["--upload", r"huge=C:\huge"]), 3);
    assert!(text.contains("too little free space"), "{text}");
}

fn a_saved_plan_shows_them_and_does_the_same() {
    let folder = folder();
    let here = folder.path();
    files(here);
    writable_fixture(here, Format::Qcow2);
    let direct = here.join("direct.qcow2");
    crate::inject::copy(&here.join("win10.qcow2"), &direct);
    succeed(here, &inject("direct.qcow2", &UPLOADS));

    let plan = [&["plan", "win10.qcow2", "-o", "p.json"], &UPLOADS[..]].concat();
    let review = succeed(here, &[&plan[..], &["--bundle"]].concat());
    assert!(review.contains("\nUploads\n"), "{review}");
    assert!(review.contains("+ /Tools/Sub/tool.exe: 8 bytes"), "{review}");
    assert!(review.contains("from tool.exe, a file of the user"), "{review}");
    assert_eq!(succeed(here, &["plan", "--show", "p.json"]), review);
    let text = std::fs::read_to_string(here.join("p.json")).unwrap();
    let document = PlanDocument::parse(text.as_bytes()).unwrap();
    assert_eq!(document.uploads, ["/Tools/Sub/tool.exe", "/windows.old/k=v.bin"]);

    // A reviewer's plan, changed so that it goes elsewhere.
    for (from, to) in [
        ("\"/windows.old/k=v.bin\"", "\"/Windows/System32/new.dll\""),
        ("\"/windows.old/k=v.bin\"", "\"/hyper2kvm/new.cmd\""),
        ("\"uploads\": [\n    \"/Tools/Sub/tool.exe\",\n", "\"uploads\": [\n"),
    ] {
        assert!(text.contains(from), "{from}");
        file(here, "forged.json", text.replace(from, to).as_bytes());
        let said = refuse(here, "win10.qcow2", &["apply", "forged.json", "--in-place", "--image", "win10.qcow2"], 2);
        assert!(said.contains("cannot use the plan"), "{said}");
    }
    // Neither media nor the files are needed with the bundle; without it, they are found by their hashes.
    for name in ["tool.exe", "k=v large.bin"] {
        std::fs::rename(here.join(name), here.join(format!("p.files/{name} moved"))).unwrap();
    }
    succeed(here, &["apply", "p.json", "--in-place", "--no-undo"]);
    assert_eq!(disk_sha256(&here.join("win10.qcow2")), disk_sha256(&direct));
    let again = run(here, &["apply", "p.json", "--in-place"]);
    assert!(again.status.code() == Some(9) && stderr(&again).contains("applied already"), "{}", stderr(&again));
}

/// A plan whose folder became a link, or whose place was taken, is stale.
fn a_plan_for_a_place_that_was_taken_since_is_stale() {
    let folder = folder();
    let here = folder.path();
    files(here);
    let image = writable_fixture(here, Format::Raw);
    succeed(here, &[&["plan", "win10.raw", "-o", "p.json", "--bundle"], &UPLOADS[..]].concat());
    let document = PlanDocument::parse(&std::fs::read(here.join("p.json")).unwrap()).unwrap();
    let is_upload = |edit: &SavedEdit| {
        let is_listed = document.uploads.iter().any(|upload| edit.path() == Some(upload));
        is_listed && matches!(edit, SavedEdit::WriteFile { access: Access::Inherited, .. })
    };
    let uploaded = document.steps.iter().filter(|step| is_upload(&step.edit));
    assert_eq!(uploaded.count(), 2);
    put(&image, "/Tools/Sub/tool.exe", b"a program of the guest");
    let said = refuse(here, "win10.raw", &["apply", "p.json", "--in-place"], 9);
    assert!(said.contains("stale"), "{said}");
}

tests![
    an_upload_has_its_content_and_inherits_its_rights,
    a_second_run_changes_nothing_and_a_later_one_without_the_option_knows_them,
    what_the_guest_has_made_of_it_stays,
    nothing_of_the_guest_is_replaced_and_bad_input_is_refused,
    a_saved_plan_shows_them_and_does_the_same,
    a_plan_for_a_place_that_was_taken_since_is_stale,
];
