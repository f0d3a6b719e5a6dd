//! The three forms of a review, on a document whose every text is forged.

use super::*;
use crate::drivers::SignatureLevel;
use crate::plan::change::Access;
use crate::plan::saved::{PlanDocument, SavedEdit, SavedFile, SavedFileContent, SavedStep, Sha256Sum, sample};

/// Text that breaks out of lines, tables, code and tags where it is not escaped.
const FORGED: &str = "x\n# y\r\n</td></pre><script>alert(1)</script>\u{1b}[2J\u{202e}````\n| ``` | [a](b) &lt; \" ' \\";

fn forged() -> PlanDocument {
    let mut document = sample::document();
    let text = || FORGED.to_owned();
    document.image = Some(text());
    document.tool = text();
    document.windows.text = text();
    document.disk.id = Some(text());
    document.notes = vec![text()];
    document.warnings = vec![text()];
    for driver in &mut document.drivers {
        (driver.name, driver.inf, driver.version, driver.signer) = (text(), text(), Some(text()), Some(text()));
    }
    for verdict in document.verdict.before.iter_mut().chain(&mut document.verdict.after) {
        verdict.bus = text();
        verdict.findings.iter_mut().for_each(|f| (f.gate, f.code, f.text) = (text(), text(), text()));
    }
    for file in &mut document.files {
        file.content = SavedFileContent::Text(text());
    }
    for step in &mut document.steps {
        step.reason = text();
        match &mut step.edit {
            SavedEdit::CreateDir { path, .. }
            | SavedEdit::WriteFile { path, .. }
            | SavedEdit::Protect { path, .. }
            | SavedEdit::DeleteFile { path, .. } => *path = text(),
            SavedEdit::CopyBootFile { path, from, .. } => (*path, *from) = (text(), text()),
            SavedEdit::CreateKey { key, .. } => *key = text(),
            SavedEdit::SetValue { key, name, .. } | SavedEdit::DeleteValue { key, name, .. } => {
                (*key, *name) = (text(), text());
            }
            SavedEdit::DeleteKey { key, before, .. } => (*key, *before) = (text(), text()),
        }
    }
    document
}

/// The line without the characters that a backslash makes plain ones.
fn without_escapes(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
        } else if chars.next().is_none() {
            break;
        }
    }
    plain
}

#[test]
fn forged_text_stays_text() {
    let review = Review::new(&forged());
    let forms = [review.to_text(), review.to_markdown(), review.to_html()];
    for form in &forms {
        let is_steering = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!form.contains(is_steering), "{form}");
    }
    let [_, markdown, html] = &forms;
    assert!(!html.contains("<script") && !html.contains("</td></pre>") && html.contains("&lt;script&gt;"), "{html}");
    for tag in ["pre", "table", "td", "ins", "del", "details", "h3"] {
        let count = |text: &str| html.matches(text).count();
        let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
    }
    // Outside of code no mark-up is left; every fence is closed by one of its length.
    let mut fence: Option<usize> = None;
    for line in markdown.lines() {
        let ticks = line.chars().take_while(|c| *c == '`').count();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            None => {
                let line = without_escapes(line);
                let has_markup = line.contains("<script") || line.contains("[a](") || line.starts_with("# y");
                assert!(!has_markup, "{line}");
            }
            Some(open) if line.len() == ticks && ticks >= open => fence = None,
            Some(_) => {}
        }
    }
    assert_eq!(fence, None, "{markdown}");
}

#[test]
fn shows_what_is_changed_and_what_was_there() {
    let document = sample::document();
    let review = Review::new(&document);
    let text = review.to_text();
    for line in [
        "Boots from virtio-blk: no before, yes after",
        "    - NO      modern controller: <b>what was found</b>",
        "    - /Windows/System32/drivers/viostor.sys: 3 bytes",
        "      [HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\viostor]",
        "    - \"Start\"=dword:00000003",
        "    + \"Start\"=dword:00000000",
        "    + \"Old\"=-",
        "    + [-HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\viostor\\StartOverride]",
        "    - \"0\"=dword:00000003",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    for form in [&text, &review.to_html(), &review.to_markdown()] {
        assert!(form.contains("echo \\u{202e}off") && form.contains("as the plan says"), "{form}");
    }
    // The same edits in every form.
    let signs = |text: &str, sign: &str| text.lines().filter(|line| line.trim_start().starts_with(sign)).count();
    let markdown = review.to_markdown();
    assert_eq!(signs(&text, "+ "), signs(&markdown, "+ "));
    assert_eq!(signs(&text, "+ "), review.to_html().matches("<ins>").count());
}

/// The plan's own contents are all that it runs in the guest besides the drivers.
#[test]
fn every_form_shows_what_the_plan_runs_in_the_guest() {
    let mut document = sample::document();
    let script = "net user x y /add\r\nrem second line\r\n";
    let write = |path: &str, bytes: &[u8], content: SavedFileContent, document: &mut PlanDocument| {
        let (sha256, size) = (Sha256Sum::of(bytes), bytes.len() as u64);
        document.files.push(SavedFile { sha256, size, content });
        let (path, access) = (path.to_owned(), Access::Protected);
        let edit = SavedEdit::WriteFile { path, sha256, size, access, before: None };
        document.steps.push(SavedStep { reason: "forged".to_owned(), edit });
    };
    write("/hyper2kvm/firstboot.cmd", script.as_bytes(), SavedFileContent::Text(script.to_owned()), &mut document);
    write("/hyper2kvm/a.exe", b"MZ\xff", SavedFileContent::Hex("4d5aff".to_owned()), &mut document);
    write("/hyper2kvm/hyper2kvm-firstboot.exe", b"MZ\x00", SavedFileContent::Hex("4d5a00".to_owned()), &mut document);
    write("/hyper2kvm/manifest.json", b"{\n}\n", SavedFileContent::Text("{\n}\n".to_owned()), &mut document);
    let review = Review::new(&document);
    let text = review.to_text();
    for form in [&text, &review.to_html(), &review.to_markdown()] {
        for shown in
            ["/hyper2kvm/firstboot.cmd", "net user x y /add", "rem second line", "4d5aff", "a program of 3 bytes"]
        {
            assert!(form.contains(shown), "{shown}\n{form}");
        }
        assert!(!form.contains("4d5a00"), "{form}");
    }
    assert!(text.contains("  /hyper2kvm/firstboot.cmd:\n    | net user x y /add\n    | rem second line\n"), "{text}");
    assert!(text.contains("/hyper2kvm/manifest.json: 2 lines of JSON, not shown here"), "{text}");
}

/// What nothing proves is not shown as a fact: a driver that the plan does not write, another policy for signatures.
#[test]
fn claims_of_a_plan_are_marked() {
    let mut document = sample::document();
    let file = |document: &PlanDocument| Review::new(document).to_text();
    assert!(file(&document).contains("/Windows/System32/drivers/viostor.sys\n"), "{}", file(&document));
    assert!(!file(&document).contains("not written by this plan") && !file(&document).contains("Decision"));
    document.drivers[0].sha256 = Some(Sha256Sum::of(b"another"));
    document.expects.signature_policy = SignatureLevel::Warn;
    let text = file(&document);
    assert!(text.contains("not written by this plan"), "{text}");
    assert!(text.contains("Decision: boot drivers without a signature are accepted"), "{text}");
}
