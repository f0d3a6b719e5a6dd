//! `.reg` files: round trips, ours and those of hivexregedit.

use std::process::Command;

use winject::internals::hive::Hive;
use winject::internals::hive::reg_file::{Applied, Document, KeyPath, apply, diff, export};

use super::support::{HIVES, NOW, assert_clean, clean_hive, folder};
use crate::support;

fn whole(hive: &Hive) -> Document {
    export(hive, hive.root(), &KeyPath::default()).unwrap()
}

fn exports_of_real_hives_come_back_the_same() {
    for path in HIVES {
        let Some(bytes) = clean_hive(path) else { return };
        let prefix = KeyPath::from(r"HKEY_LOCAL_MACHINE\TEST");
        let text = whole(&Hive::open(bytes).unwrap()).to_bytes(&prefix).unwrap();
        let read = Document::parse(&text, &prefix).unwrap();
        let mut copy = Hive::create("ROOT", NOW);
        apply(&mut copy, &read, NOW).unwrap();
        let bytes = copy.finish(&[]).unwrap();
        if path.contains("misc") {
            assert_clean(&bytes, None);
        }
        let mut copy = Hive::open(bytes).unwrap();
        assert!(whole(&copy).to_bytes(&prefix).unwrap() == text, "{path}: the export of the copy differs");
        assert_eq!(apply(&mut copy, &read, NOW).unwrap(), Applied::default());
        assert!(!copy.is_changed());
    }
}

/// What injections write, and what is hard to write.
fn sample() -> String {
    let mut text = String::from("Windows Registry Editor Version 5.00\r\n\r\n[\\]\r\n\r\n[\\ControlSet001]\r\n\r\n");
    for i in 0..40 {
        text += &format!(
            "[\\ControlSet001\\Sörvice {i:02} [x]]\r\n@=\"default \\\"{i}\\\"\"\r\n\"Start\"=dword:000000{i:02x}\r\n\
             \"Image\\\\Path\"=hex(2):25,00,61,00,25,00,00,00\r\n\"Empty\"=hex:\r\n\"None\"=hex(0):\r\n\
             \"Q\"=hex(b):01,02,03,04,05,06,07,08\r\n\"Ωmega\"=\"ω ≠ Ω\"\r\n\"Odd\"=hex(1):41\r\n\
             \"Multi\"=hex(7):61,00,00,00,62,00,00,00,00,00\r\n\r\n"
        );
    }
    text
}

fn hivexregedit_takes_our_files_and_we_take_its() {
    let Some(tool) = support::program("hivexregedit") else { return };
    let root = KeyPath::default();
    let wanted = Document::parse(sample().as_bytes(), &root).unwrap();
    let empty = Hive::create("ROOT", NOW).finish(&[]).unwrap();
    let folder = folder(&[("theirs", &empty), ("ours.reg", wanted.to_text(&root).unwrap().as_bytes())]);
    let (theirs, ours) = (folder.path().join("theirs"), folder.path().join("ours.reg"));
    // Ours into theirs, and what they made of it, back into ours.
    support::run(Command::new(&tool).env("PERL_UNICODE", "O").arg("--merge").arg(&theirs).arg(&ours));
    let merged = Hive::open(std::fs::read(&theirs).unwrap()).unwrap();
    let mut copy = Hive::open(empty).unwrap();
    apply(&mut copy, &wanted, NOW).unwrap();
    let difference = diff((&copy, copy.root()), (&merged, merged.root()), &root).unwrap();
    assert_eq!(difference, Document::default());

    let exported = support::run(Command::new(&tool).env("PERL_UNICODE", "O").arg("--export").arg(&theirs).arg("\\"));
    let read = Document::parse(&exported.stdout, &root).unwrap();
    let mut again = Hive::create("ROOT", NOW);
    apply(&mut again, &read, NOW).unwrap();
    assert_eq!(diff((&copy, copy.root()), (&again, again.root()), &root).unwrap(), Document::default());
    assert_clean(&again.finish(&[]).unwrap(), None);
}

fn a_difference_of_real_hives_leads_from_one_to_the_other() {
    let (Some(a), Some(b)) = (clean_hive("hives/win8.1/SYSTEM.xz"), clean_hive("hives/win7/SYSTEM.xz")) else { return };
    let (mut old, new) = (Hive::open(a).unwrap(), Hive::open(b).unwrap());
    let path = "ControlSet001\\Services";
    let keys = (old.find(old.root(), path).unwrap().unwrap(), new.find(new.root(), path).unwrap().unwrap());
    let document = diff((&old, keys.0), (&new, keys.1), &KeyPath::from(path)).unwrap();
    apply(&mut old, &document, NOW).unwrap();
    let left = diff((&old, keys.0), (&new, keys.1), &KeyPath::from(path)).unwrap();
    assert_eq!(left, Document::default());
    assert_clean(&old.finish(&[]).unwrap(), None);
}

/// Real hives through hivexregedit: exported by us, merged by it into an empty hive, exported by it, imported by us.
fn real_hives_survive_the_way_through_hivexregedit() {
    let Some(tool) = support::program("hivexregedit") else { return };
    let root = KeyPath::default();
    for path in ["hives/misc/BCD.xz", "hives/misc/SAM.xz", "hives/misc/SECURITY.xz", "hives/misc/NTUSER.DAT.xz"] {
        let Some(bytes) = clean_hive(path) else { return };
        let original = Hive::open(bytes).unwrap();
        let empty = Hive::create("ROOT", NOW).finish(&[]).unwrap();
        let text = whole(&original).to_text(&root).unwrap();
        let folder = folder(&[("theirs", &empty), ("ours.reg", text.as_bytes())]);
        let (theirs, ours) = (folder.path().join("theirs"), folder.path().join("ours.reg"));
        support::run(Command::new(&tool).env("PERL_UNICODE", "O").arg("--merge").arg(&theirs).arg(&ours));
        let exported =
            support::run(Command::new(&tool).env("PERL_UNICODE", "O").arg("--export").arg(&theirs).arg("\\"));
        let mut back = Hive::create("ROOT", NOW);
        apply(&mut back, &Document::parse(&exported.stdout, &root).unwrap(), NOW).unwrap();
        let difference = diff((&original, original.root()), (&back, back.root()), &root).unwrap();
        assert_eq!(difference, Document::default(), "{path}");
    }
}

tests![
    exports_of_real_hives_come_back_the_same,
    hivexregedit_takes_our_files_and_we_take_its,
    a_difference_of_real_hives_leads_from_one_to_the_other,
    real_hives_survive_the_way_through_hivexregedit,
];
