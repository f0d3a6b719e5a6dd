//! Injections with different options, one after the other: the last manifest lists the work of all of them, and one removal
//! takes all of it out.

use winject::internals::hive::RegistryData;
use winject::internals::windows::{
    DataDisks, ExtrasOptions, FirstBootMethod, FirstBootOptions, InjectOptions, Registration, RepairOptions, Upload,
};

use super::{Content, content, copied, edit_hive, fixture_drivers, injected, only, remove, set};
use crate::inject::folder;
use crate::windows::guests;

/// Sets of options, each with something that the others do not write.
fn variants(folder: &std::path::Path) -> Vec<(&'static str, InjectOptions)> {
    let file = folder.join("notes.txt");
    std::fs::write(&file, "notes").unwrap();
    let repairs = RepairOptions { no_auto_reboot: true, data_disks: DataDisks::Online, ..RepairOptions::default() };
    let script = FirstBootOptions { method: FirstBootMethod::Script, ..FirstBootOptions::default() };
    let upload = Upload { file, guest: "C:\\Tools\\notes.txt".to_owned() };
    let extras = ExtrasOptions { uploads: vec![upload], ..ExtrasOptions::default() };
    let default = InjectOptions::default;
    vec![
        ("default", default()),
        ("full", InjectOptions { registration: Registration::Full, ..default() }),
        ("repairs", InjectOptions { repairs, ..default() }),
        ("script and upload", InjectOptions { first_boot: script, extras, ..default() }),
        ("no in-box controllers", InjectOptions { keep_inbox_controllers: false, ..default() }),
    ]
}

/// What stays of any injection: in-box controllers that start at boot, whose earlier `Start` is not known; and keys of device
/// ids without a value, which the full form leaves of a minimal one that it replaces.
fn without_inbox(found: &Content) -> Content {
    let is_empty_id = |item: &str| {
        let below = format!("{item} : ");
        item.contains("\\DeviceIds\\") && !item.contains(" : ") && !found.keys().any(|other| other.starts_with(&below))
    };
    let is_inbox = |item: &str| item.contains("\\StartOverride") || item.ends_with(" : Start") || is_empty_id(item);
    found.iter().filter(|(item, _)| !is_inbox(item)).map(|(item, what)| (item.clone(), what.clone())).collect()
}

fn one_removal_takes_out_the_work_of_two_runs() {
    let (original, _) = injected();
    let made = copied(original);
    let before = made.disk.copy("before");
    // The first run replaces it; the second must not take that for the guest's own.
    edit_hive(&mut before.volume(), "SYSTEM", |hive| {
        set(hive, "ControlSet001\\Control\\CrashControl", "AutoReboot", &RegistryData::dword(1));
    });
    let wanted = without_inbox(&content(&before));
    let host = folder();
    let media = fixture_drivers();
    for (first, a) in &variants(host.path()) {
        for (second, b) in variants(host.path()).iter().filter(|(second, _)| second != first) {
            let disk = before.copy("runs");
            guests::inject(&disk, &media, a);
            guests::inject(&disk, &media, b);
            let again = guests::inject(&disk, &media, b).plan;
            assert!(again.is_empty(), "{first}, {second}, {second}: {again}");
            let removal = remove(&disk).unwrap();
            let found = without_inbox(&content(&disk));
            let (more, less) = (only(&found, &wanted), only(&wanted, &found));
            assert!(
                more.is_empty() && less.is_empty(),
                "{first}, {second}: more: {more:#?}\nless: {less:#?}\nleft: {:#?}",
                removal.left
            );
            std::fs::remove_file(&disk.path).unwrap();
        }
    }
}

fn the_report_of_a_removal_names_a_certificate_of_an_earlier_run() {
    let (original, _) = injected();
    let made = copied(original);
    let media = fixture_drivers();
    let certificate = std::fs::read(media.join("cert/winject-test-publisher.cer")).unwrap();
    let trusting = InjectOptions { trusted_publishers: vec![certificate], ..InjectOptions::default() };
    guests::inject(&made.disk, &media, &trusting);
    guests::inject(&made.disk, &media, &InjectOptions::default());
    let removal = remove(&made.disk).unwrap();
    assert!(removal.left.iter().any(|left| left.what.contains("trusted publisher")), "{:#?}", removal.left);
}

tests![one_removal_takes_out_the_work_of_two_runs, the_report_of_a_removal_names_a_certificate_of_an_earlier_run,];
