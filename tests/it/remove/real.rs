//! Removal on guests with real hives, in both forms of registration, judged by foreign readers.

use winject::internals::hive::RegistryData;
use winject::internals::ntfs::CreateOptions;
use winject::internals::windows::{InjectOptions, Registration};

use super::taken_over::judge_any;
use super::{content, edit_hive, only, remove, seen_differences, set};
use crate::support;
use crate::windows::guests::{self, PRODUCTS};

/// What stays of an injection into a guest that has not run: changes to the guest's own items.
fn is_own_item(line: &str) -> bool {
    line.ends_with("\\StartOverride") || line.contains("\\StartOverride : ") || line.ends_with(" : Start")
}

fn a_real_guest_is_as_it_was_after_either_form() {
    let Some(media) = guests::media() else { return };
    let forms = [Registration::Minimal, Registration::Full];
    let all: Vec<_> = PRODUCTS.iter().flat_map(|product| forms.map(|form| (product, form))).collect();
    // Three of them show every kind of registry; a campaign takes all.
    let chosen = [(&PRODUCTS[0], forms[0]), (&PRODUCTS[1], forms[1]), (&PRODUCTS[2], forms[0])];
    let count = usize::try_from(support::rounds(3, 3)).unwrap();
    let cases = if count > chosen.len() { all } else { chosen.to_vec() };
    for (product, registration) in cases {
        let Some(made) = guests::guest(product) else { return };
        let before = made.copy("before-removal");
        if product.name != "w7" {
            guests::add_drivers_hive(&before);
        }
        let disk = before.copy("removal");
        let options = InjectOptions { registration, ..InjectOptions::default() };
        guests::inject(&disk, &media, &options);
        assert!(!only(&content(&disk), &content(&before)).is_empty());
        let removal = remove(&disk).unwrap();
        let Some(seen) = seen_differences(&before, &disk.path) else { return };
        let unexplained: Vec<&String> = seen.iter().filter(|line| !is_own_item(line)).collect();
        assert!(
            unexplained.is_empty(),
            "{} {registration:?}: {unexplained:#?}\nleft: {:#?}",
            product.name,
            removal.left
        );
        for line in seen {
            let service = line.split("\\Services\\").nth(1).and_then(|rest| rest.split(['\\', ' ']).next()).unwrap();
            let is_listed = removal.left.iter().any(|item| item.what.contains(service));
            assert!(is_listed, "{}: {line} is not listed: {:#?}", product.name, removal.left);
        }
        // The same injection again finds what it found first.
        let again = guests::inject(&disk, &media, &options);
        assert!(!again.plan.is_empty());
        assert!(guests::inject(&disk, &media, &options).plan.is_empty());
        for disk in [before, disk] {
            std::fs::remove_file(disk.path).unwrap();
        }
    }
}

/// What Windows does with a package of the full form that it takes over: a device bound by it, a file precompiled next to
/// it, another value in its records. All of the package stays.
fn a_package_that_windows_took_over_stays_whole() {
    let Some(media) = guests::media() else { return };
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    for case in 0..support::rounds(2, 2).min(4) {
        let disk = made.copy(&format!("package-{case}"));
        guests::inject(&disk, &media, &InjectOptions { registration: Registration::Full, ..InjectOptions::default() });
        let listed = content(&disk);
        let store = "/Windows/System32/DriverStore/FileRepository/viostor.inf_amd64_";
        let folder = listed.keys().find(|item| item.starts_with(store) && item.ends_with('/')).unwrap().clone();
        let package = folder.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
        let key = format!("DriverDatabase\\DriverPackages\\{package}");
        let oem = listed[&format!("SYSTEM\\{key} : ")].clone();
        let oem = oem[oem.find("oem").unwrap()..].split(".inf").next().unwrap().to_owned() + ".inf";
        let mut volume = disk.volume();
        match case {
            0 => edit_hive(&mut volume, "SYSTEM", |hive| {
                let class = "ControlSet001\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}\\0009";
                set(hive, class, "InfPath", &RegistryData::sz(&oem));
            }),
            1 => {
                volume.replace_file(&format!("{folder}viostor.PNF"), b"x", &CreateOptions::default()).unwrap();
                volume.flush().unwrap();
            }
            2 => edit_hive(&mut volume, "SYSTEM", |hive| set(hive, &key, "F6", &RegistryData::dword(0))),
            _ => edit_hive(&mut volume, "SYSTEM", |hive| {
                set(hive, "ControlSet001\\Services\\viostor", "Owners", &RegistryData::multi_sz(&[&oem, "oem99.inf"]));
            }),
        }
        drop(volume);
        let before = content(&disk);
        let removal = remove(&disk).unwrap();
        let after = content(&disk);
        for (item, what) in &before {
            let lower = item.to_lowercase();
            let is_of_package = lower.contains(&package)
                || lower.contains("\\services\\viostor")
                || lower.ends_with("/drivers/viostor.sys")
                || lower.contains(&oem.replace(".inf", "."));
            if is_of_package {
                assert_eq!(after.get(item), Some(what), "case {case}: {item}");
            }
        }
        assert!(removal.left.iter().any(|item| item.what == "driver viostor"), "{:#?}", removal.left);
        assert!(removal.left.iter().any(|item| item.what == format!("package {package}")), "{:#?}", removal.left);
        assert!(removal.removed.contains(&"driver vioscsi".to_owned()), "case {case}: {:#?}", removal.left);
        std::fs::remove_file(disk.path).unwrap();
    }
}

/// The changes of Windows and of people, on real hives.
fn a_real_guest_that_has_run_keeps_what_was_changed() {
    let Some(media) = guests::media() else { return };
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    let injected = made.copy("run-since");
    guests::inject(&injected, &media, &InjectOptions::default());
    let contents = (content(&made), content(&injected));
    for seed in 0..support::rounds(1, 2) {
        let disk = injected.copy("mutated");
        judge_any(seed, &contents, &disk);
        std::fs::remove_file(disk.path).unwrap();
    }
    std::fs::remove_file(injected.path).unwrap();
}

tests![
    a_real_guest_is_as_it_was_after_either_form,
    a_package_that_windows_took_over_stays_whole,
    a_real_guest_that_has_run_keeps_what_was_changed,
];
