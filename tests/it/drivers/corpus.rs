//! The real INFs of three virtio-win generations.

use crate::support;
use std::path::{Path, PathBuf};
use winject::internals::drivers::inf::Inf;
use winject::internals::drivers::{Arch, GuestTarget};

/// All INFs of the corpus with their paths below it.
fn infs() -> Option<Vec<(String, PathBuf)>> {
    let root = support::corpus("inf")?;
    let below = |path: PathBuf| (path.strip_prefix(&root).unwrap().display().to_string(), path);
    let mut out: Vec<_> = super::matrix::infs(&root).into_iter().map(below).collect();
    out.sort();
    assert!(out.len() > 40, "{}", out.len());
    Some(out)
}

fn parse(name: &str, path: &Path) -> Inf {
    Inf::parse(&std::fs::read(path).unwrap(), name).unwrap_or_else(|e| panic!("{e}"))
}

fn every_real_inf_parses_without_unexplained_warnings() {
    let Some(infs) = infs() else { return };
    for (name, path) in infs {
        let inf = parse(&name, &path);
        let mut fitting = 0;
        for arch in Arch::ALL {
            for (build, server) in
                [(2600, false), (7601, false), (9600, true), (10240, false), (26100, false), (26100, true)]
            {
                let guest = GuestTarget::of_build(arch, build, server);
                let facts = inf.facts(&guest).unwrap_or_else(|e| panic!("{e}"));
                assert!(facts.warnings.is_empty(), "{name}: {:?}", facts.warnings);
                assert_eq!(facts.models.is_empty(), inf.misfit(&guest).is_some(), "{name} for {guest}");
                fitting += usize::from(!facts.models.is_empty());
            }
        }
        assert!(fitting > 0, "{name} fits no guest: {:?}", inf.targets());
    }
}

/// What the INF says, against what a person reads in it.
fn facts_of_a_real_boot_driver() {
    let Some(path) = support::corpus("inf/virtio-win-0.1.285/w11-2k25/vioscsi.inf") else { return };
    let guest = GuestTarget::of_build(Arch::Amd64, 26100, false);
    let facts = parse("vioscsi.inf", &path).facts(&guest).unwrap();
    assert_eq!(facts.class_guid.braced(), "{4D36E97B-E325-11CE-BFC1-08002BE10318}");
    assert_eq!((facts.driver_date_text.as_str(), facts.version_text().as_str()), ("2025-07-09", "100.101.104.28500"));
    assert_eq!((facts.provider.raw.as_str(), facts.provider.resolved.as_str()), ("%VENDOR%", "Red Hat, Inc."));
    let ids = ["PCI\\VEN_1AF4&DEV_1004&SUBSYS_00081AF4&REV_00", "PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01"];
    assert_eq!(facts.hardware_ids(), ids);
    assert_eq!(facts.compatible_ids(), ["PCI\\VEN_1AF4&DEV_1004", "PCI\\VEN_1AF4&DEV_1048"]);
    let service = facts.function_service().unwrap();
    assert_eq!((service.name.as_str(), service.start, service.kind, service.flags), ("vioscsi", 0, 1, 2));
    assert_eq!((service.binary.dirid, service.binary.path.as_str()), (13, "vioscsi.sys"));
    assert_eq!(service.group.as_deref(), Some("SCSI miniport"));
    assert_eq!(service.dword("Parameters", "BusType"), Some(0x0A));
    assert_eq!(service.dword("Parameters\\PnpInterface", "5"), Some(1));
    assert_eq!(service.dword("Parameters", "DmaRemappingCompatible"), Some(0));
    let log = service.event_log.as_ref().unwrap();
    assert_eq!((log.log.as_str(), log.source.as_str()), ("System", "vioscsi"));
    assert_eq!(log.registry[0].data.as_text().as_deref(), Some("%SystemRoot%\\System32\\IoLogMsg.dll"));
    let install = &facts.installs[0];
    assert_eq!((install.name.as_str(), install.section.as_str()), ("scsi_inst", "scsi_inst"));
    assert_eq!(install.copy_files[0].destination.dirid, 13);
    let limit = install.hardware.iter().find(|v| v.name == "MessageNumberLimit").unwrap();
    assert_eq!((limit.data.kind.0, limit.data.bytes.as_slice()), (4, [2, 1, 0, 0].as_slice()));
}

/// Facts of the package's own texts, which any clone has.
fn facts_of_our_own_fixtures() {
    let folder = support::root().join("test-images/inf");
    let w10 = GuestTarget::of_build(Arch::Amd64, 19045, false);
    let facts = |name: &str, guest: &GuestTarget| parse(name, &folder.join(name)).facts(guest).unwrap();

    let storage = facts("storage.inf", &w10);
    assert_eq!(storage.models[0].description.resolved, "Test \"fast\" controller");
    assert_eq!(storage.function_service().unwrap().dword("parameters", "bustype"), Some(10));
    let early = GuestTarget::of_build(Arch::Amd64, 14393, false);
    assert!(facts("storage.inf", &early).models.is_empty());

    let network = facts("network.inf", &w10);
    assert_eq!(network.catalog.as_deref(), Some("net64.cat"));
    assert_eq!(network.source_files, ["sub/x64/network.sys"]);
    assert_eq!(network.installs[0].section, "new.ndi.nt");
    assert_eq!(network.function_service().unwrap().dependencies, ["NDIS", "+TDI"]);
    let bytes = network.installs[0].software.iter().find(|v| v.name == "bytes").unwrap();
    assert_eq!((bytes.data.kind.0, bytes.data.bytes.as_slice()), (3, [1, 2, 3, 4].as_slice()));
    let w7 = GuestTarget::of_build(Arch::Amd64, 7601, false);
    assert_eq!(facts("network.inf", &w7).models[0].compatible_ids.len(), 1);
    let w2000 = GuestTarget::new(Arch::X86, 5, 0, 2195, false);
    let old = facts("network.inf", &w2000);
    assert_eq!(
        (old.models[0].install.as_str(), old.includes.as_slice()),
        ("old.ndi", ["netrasa.inf".to_owned()].as_slice())
    );
    assert_eq!(old.installs[0].needs, ["Ndi-Mp-Any"]);
    let german = Inf::parse_in(&std::fs::read(folder.join("network.inf")).unwrap(), "network.inf", 0x0407).unwrap();
    assert_eq!(german.facts(&w10).unwrap().models[0].description.resolved, "Testadapter");

    let null = facts("null-utf16.inf", &w10);
    assert_eq!(null.models[0].description.resolved, "Gerät für Arbeitsplätze");
    assert!(null.installs[0].null_service && null.function_service().is_none());
    let server = GuestTarget::of_build(Arch::Amd64, 20348, true);
    assert_eq!(facts("null-utf16.inf", &server).models[0].description.resolved, "Gerät für Server");
}

tests![every_real_inf_parses_without_unexplained_warnings, facts_of_a_real_boot_driver, facts_of_our_own_fixtures,];
