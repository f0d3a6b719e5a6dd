//! The report as a page.

use std::path::Path;

use super::{judged, run, setting};
use crate::support;

/// The page in a browser, if there is one: see `tests/judges/page.py`.
fn judge(page: &Path) {
    let (Some(judge), Some(_), Some(_)) =
        (support::judge("page.py"), support::program("chromium"), support::program("chromedriver"))
    else {
        return;
    };
    let shots = std::env::var_os("WINJECT_SHOTS").map(std::path::PathBuf::from);
    let shots = shots.map(|folder| folder.join(page.file_stem().unwrap()));
    if let Some(folder) = &shots {
        std::fs::create_dir_all(folder).unwrap();
    }
    let arguments: Vec<&Path> = std::iter::once(page).chain(shots.as_deref()).collect();
    judged(&judge, &arguments);
}

fn a_run_gives_a_page_that_a_browser_shows_whole() {
    let folder = setting();
    let words = ["inject", "win10.qcow2", "--drivers", "drivers", "--output", "new.qcow2", "--report", "done.html"];
    let output = run(folder.path(), &words);
    assert!(output.status.success(), "{output:?}");
    let page = folder.path().join("done.html");
    let text = std::fs::read_to_string(&page).unwrap();
    let summary =
        String::from_utf8_lossy(&output.stdout).lines().find(|line| line.starts_with("Done: ")).map(str::to_owned);
    assert!(text.contains(&summary.unwrap()), "{text}");
    for part in
        ["Does it boot?", "viostor", "vioscsi", "What was changed", "The machine to create", "ControlSet001", "Time"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // The registry as old and new.
    assert!(text.contains("<ins>+ &quot;Start&quot;=dword:00000000</ins>"), "{text}");
    assert!(text.contains("&quot;DevicePath&quot;=REG_EXPAND_SZ ") && !text.contains("=hex(2)"), "{text}");
    judge(&page);
}

fn a_failed_run_gives_a_page_with_what_to_do() {
    let folder = setting();
    let words = ["inject", "win10.qcow2", "--drivers", "nowhere", "--dry-run", "--report", "failed.html"];
    assert_eq!(run(folder.path(), &words).status.code(), Some(6));
    let page = folder.path().join("failed.html");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("Nothing was written: ") && text.contains("What to do:"), "{text}");
    judge(&page);
}

/// Strings of the guest and of the host stay text: they add neither tags nor lines, nor turn what is read around.
fn hostile_strings_stay_text() {
    let folder = setting();
    let forged = "<script>alert(1)</script></td></pre>\" onload='x' &lt; \u{202e}\u{2066}\u{1b}[31m\nDone: forged";
    let key = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion";
    let set = ["reg", "set", "win10.qcow2", key, "--value", "DisplayVersion", "--data", forged, "--in-place"];
    assert!(run(folder.path(), &set).status.success());
    let long = format!("{} <b>&\u{202e}", "A-very-long-name-without-a-space".repeat(5));
    let folder_name = folder.path().join(&long);
    std::fs::create_dir(&folder_name).unwrap();
    let image = format!("{long}/win10.qcow2");
    std::fs::rename(folder.path().join("win10.qcow2"), folder.path().join(&image)).unwrap();
    let words = ["inject", image.as_str(), "--drivers", "drivers", "--dry-run", "--report", "hostile.html"];
    let output = run(folder.path(), &words);
    assert!(output.status.success(), "{output:?}");
    let page = folder.path().join("hostile.html");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("&lt;script&gt;alert") && !text.contains("<script") && !text.contains("<b>&"), "{text}");
    let steers = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}".contains(c);
    assert!(!text.contains(steers) && !text.lines().any(|line| line.starts_with("Done: forged")));
    judge(&page);
}

fn a_page_replaces_only_a_report() {
    let folder = setting();
    let page = folder.path().join("r.html");
    let words = ["inject", "win10.qcow2", "--drivers", "drivers", "--dry-run", "--report", "r.html"];
    std::fs::write(&page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<title>mine</title>").unwrap();
    assert_eq!(run(folder.path(), &words).status.code(), Some(2));
    assert!(std::fs::read_to_string(&page).unwrap().ends_with("mine</title>"));
    std::fs::remove_file(&page).unwrap();
    assert!(run(folder.path(), &words).status.success() && run(folder.path(), &words).status.success());
}

tests![
    a_run_gives_a_page_that_a_browser_shows_whole,
    a_failed_run_gives_a_page_with_what_to_do,
    hostile_strings_stay_text,
    a_page_replaces_only_a_report,
];
