//! Inspection and plans on guests with real hives.

use winject::drivers::{Arch, ProductType};
use winject::windows::{Guest, InjectOptions, plan_injection};

use super::guests::{self, PRODUCTS};

#[test]
fn every_release_is_recognised() {
    let expected = [
        ("Windows 7", 7601, Arch::X86, ProductType::WinNt, false),
        ("Windows 8.1", 9600, Arch::Amd64, ProductType::WinNt, true),
        ("Windows 10", 19045, Arch::Amd64, ProductType::WinNt, true),
        ("Windows 11", 26100, Arch::Amd64, ProductType::WinNt, true),
        ("Windows Server 2022", 20348, Arch::Amd64, ProductType::ServerNt, true),
        ("Windows Server 2025", 26100, Arch::Amd64, ProductType::ServerNt, true),
    ];
    for (product, (name, build, arch, kind, database)) in PRODUCTS.iter().zip(expected) {
        let Some(disk) = guests::guest(product) else { return };
        let guest = Guest::inspect(&disk.volume()).unwrap().unwrap();
        assert_eq!(guest.product, name, "{guest}");
        assert_eq!(
            (guest.build, guest.arch, guest.product_type, guest.has_driver_database),
            (build, arch, kind, database),
            "{guest}"
        );
        assert_eq!(guest.windows_dir, "/Windows");
        assert!(guest.control_sets[0].is_current);
    }
}

#[test]
fn windows_7_edits_both_control_sets() {
    let (Some(media), Some(disk)) = (guests::media(), guests::guest(&PRODUCTS[0])) else { return };
    let volume = disk.volume();
    let guest = Guest::inspect(&volume).unwrap().unwrap();
    let names: Vec<&str> = guest.control_sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["ControlSet001", "ControlSet002"]);
    let chosen = guests::selection(&guest, &media);
    let injection = plan_injection(&volume, &guest, &chosen, &InjectOptions::default()).unwrap();
    let text = injection.plan.to_string();
    for set in names {
        for service in ["viostor", "vioscsi"] {
            assert!(text.contains(&format!("SYSTEM\\{set}\\Services\\{service} : Start = REG_DWORD 0x0")), "{set}");
        }
        assert!(text.contains(&format!("{set}\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_1042")), "{set}");
    }
    assert!(!text.contains("DriverDatabase\\"), "{text}");
}
