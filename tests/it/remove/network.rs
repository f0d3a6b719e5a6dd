//! A kept network on guests with real hives: in the job, once; a removal brings back what was freed; plans of it can be
//! saved, and a forged one is refused; wrong addresses are answered with the adapters of the guest.

use winject::internals::hive::RegistryData;
use winject::internals::plan::saved::{PlanDocument, SavedEdit};
use winject::internals::windows::{FirstBootMethod, FirstBootOptions, InjectOptions, NetworkOptions};

use super::{edit_hive, remove, seen_differences, set};
use crate::inject::{stderr, stdout, succeed, winject};
use crate::windows::guests::{self, Disk, PRODUCTS};

const INTERFACES: &str = "ControlSet001\\Services\\Tcpip\\Parameters\\Interfaces";
const NET: &str = "ControlSet001\\Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}";
const GHOST: &str = "{6A6A6A6A-0542-4DB2-8760-CCFFA953737C}";

/// The adapter of the guest's hive, with a static address that also an adapter of an earlier machine has.
fn prepare(disk: &Disk, guid: &str) {
    edit_hive(&mut disk.volume(), "SYSTEM", |hive| {
        for guid in [guid, GHOST] {
            let key = format!("{INTERFACES}\\{guid}");
            set(hive, &key, "EnableDHCP", &RegistryData::dword(0));
            set(hive, &key, "IPAddress", &RegistryData::multi_sz(&["10.0.0.5"]));
            set(hive, &key, "SubnetMask", &RegistryData::multi_sz(&["255.255.255.0"]));
            set(hive, &key, "DefaultGateway", &RegistryData::multi_sz(&["10.0.0.1"]));
        }
        set(hive, &format!("{NET}\\{GHOST}\\Connection"), "Name", &RegistryData::sz("old"));
    });
}

/// What stays of an injection into a guest that has not run: in-box controllers that start at boot.
fn is_inbox(line: &str) -> bool {
    line.ends_with("\\StartOverride") || line.contains("\\StartOverride : ") || line.ends_with(" : Start")
}

fn a_removal_brings_back_what_a_kept_network_freed() {
    let Some(media) = guests::media() else { return };
    use FirstBootMethod::{Auto, Script};
    for (product, method, guid, mac, name) in [
        ("w7", Auto, "{698E50A9-4F58-4D86-B61D-F42E58DCACF6}", "00-50-56-a5-12-69", "Local Area Connection 2"),
        ("w8.1", Auto, "{B0E24C4B-50F2-4B60-BCB3-EF2C3FF3394E}", "08-00-27-49-97-16", "Ethernet"),
        ("w10", Auto, "{5F3F359E-9D52-4566-9BEC-37EFDFB25ABE}", "00-0c-29-f3-ff-de", "Ethernet0"),
        ("w10", Script, "{5F3F359E-9D52-4566-9BEC-37EFDFB25ABE}", "00-0c-29-f3-ff-de", "Ethernet0"),
    ] {
        let options = InjectOptions {
            network: NetworkOptions { keep: true, new_macs: Vec::new() },
            first_boot: FirstBootOptions { method, ..FirstBootOptions::default() },
            ..InjectOptions::default()
        };
        let Some(made) = guests::guest(PRODUCTS.iter().find(|one| one.name == product).unwrap()) else { return };
        let before = made.copy("before-network");
        prepare(&before, guid);
        let disk = before.copy("network");
        let injection = guests::inject(&disk, &media, &options);
        let kept = &injection.record.network;
        assert_eq!(kept.kept.len(), 1, "{kept:?}");
        assert_eq!((kept.kept[0].mac.replace(':', "-"), kept.kept[0].connection.as_str()), (mac.to_owned(), name));
        assert_eq!(kept.released, ["old"], "{product}");
        assert!(guests::inject(&disk, &media, &options).plan.is_empty(), "{product}: nothing to do again");
        let Some(seen) = seen_differences(&before, &disk.path) else { return };
        for line in [format!("{NET}\\{guid}\\Connection : Name"), format!("{INTERFACES}\\{GHOST} : IPAddress")] {
            assert!(seen.iter().any(|seen| seen.to_lowercase().ends_with(&line.to_lowercase())), "{line}: {seen:#?}");
        }
        let own = format!("{INTERFACES}\\{guid}").to_lowercase();
        assert!(!seen.iter().any(|seen| seen.to_lowercase().contains(&own)), "the way back keeps its addresses");
        let removal = remove(&disk).unwrap();
        let Some(seen) = seen_differences(&before, &disk.path) else { return };
        let unexplained: Vec<&String> = seen.iter().filter(|line| !is_inbox(line)).collect();
        assert!(unexplained.is_empty(), "{product}: {unexplained:#?}\nleft: {:#?}", removal.left);
        for disk in [before, disk] {
            std::fs::remove_file(disk.path).unwrap();
        }
    }
}

fn a_saved_plan_of_a_kept_network_is_good_and_a_forged_one_is_not() {
    let Some(media) = guests::media() else { return };
    let Some(made) = guests::guest(&PRODUCTS[2]) else { return };
    let disk = made.copy("network-plan");
    prepare(&disk, "{5F3F359E-9D52-4566-9BEC-37EFDFB25ABE}");
    let run = |arguments: &[&str]| {
        let mut command = winject();
        command.arg("plan").arg(&disk.path).arg("--drivers").arg(&media).args(["--signature-policy", "warn"]);
        command.args(arguments);
        command
    };
    let mac = "00:0c:29:f3:ff:de=52:54:00:12:34:56";
    let review = stdout(&succeed(&mut run(&["--keep-network", "--mac", mac])));
    for word in ["source=static address=10.0.0.5", "Ethernet0 (former)", "52:54:00:12:34:56"] {
        assert!(review.contains(word), "`{word}` is not shown: {review}");
    }
    let document = PlanDocument::parse(&succeed(&mut run(&["--json", "--keep-network"])).stdout).unwrap();
    document.judge().unwrap();
    let forge = |new: &str| {
        let mut forged = document.clone();
        for step in &mut forged.steps {
            match &mut step.edit {
                SavedEdit::SetValue { name, data, .. } if name == "Name" => *data = RegistryData::sz(new),
                _ => {}
            }
        }
        forged.judge()
    };
    assert!(forge("Ethernet0 (former)").is_ok());
    assert!(forge("Ethernet0").is_err() && forge("").is_err());

    // What cannot be meant: the answer names the adapters, and nothing is written.
    for (arguments, word) in [
        (&["--keep-network", "--mac", "52:54:00:00:00:01=52:54:00:00:00:02"][..], "Ethernet0 (00:0c:29:f3:ff:de)"),
        (&["--keep-network", "--mac", "LAN=52:54:00:00:00:02"], "winject inspect"),
        (&["--keep-network", "--mac", "LAN=52:54:00:00"], "MAC address"),
        (&["--mac", "LAN=52:54:00:00:00:02"], "--keep-network"),
    ] {
        let output = run(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(word), "{arguments:?}: {}", stderr(&output));
    }

    let shown = stdout(&succeed(winject().arg("inspect").arg(&disk.path)));
    for word in [
        "Ethernet0 (Intel(R) 82574L Gigabit Network Connection), MAC 00:0c:29:f3:ff:de",
        "IPv4: 10.0.0.5/24",
        "ghost adapter",
    ] {
        assert!(shown.contains(word), "{shown}");
    }
    let json = stdout(&succeed(winject().arg("inspect").arg("--json").arg(&disk.path)));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let adapters = json["disks"][0]["windows"][0]["network"]["adapters"].as_array().unwrap();
    let own = adapters.iter().find(|adapter| adapter["name"] == "Ethernet0").unwrap();
    assert_eq!(own["mac"]["address"], "00:0c:29:f3:ff:de");
    assert_eq!(own["ipv4"]["addresses"][0]["address"], "10.0.0.5");
    std::fs::remove_file(&disk.path).unwrap();
}

tests![a_removal_brings_back_what_a_kept_network_freed, a_saved_plan_of_a_kept_network_is_good_and_a_forged_one_is_not,];
