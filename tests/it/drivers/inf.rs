//! The INF language, element by element: what Microsoft's documentation says of each, as tables.

use winject::internals::drivers::inf::{DirPath, Facts, Inf, RegAction, RegRoot, RegValue};
use winject::internals::drivers::{Arch, GuestTarget};

fn w10() -> GuestTarget {
    GuestTarget::of_build(Arch::Amd64, 19045, false)
}

/// An INF whose one device uses the install section `I`, followed by more sections.
fn text(rest: &str) -> String {
    format!(
        "[Version]\nSignature=\"$Windows NT$\"\nClass=Net\nProvider=%P%\n[Manufacturer]\n%P%=M,NTx86,NTamd64,NTARM64\n\
         [M.NTx86]\n%P%=I,PCI\\X\n[M.NTamd64]\n%P%=I,PCI\\X\n[M.NTARM64]\n%P%=I,PCI\\X\n{rest}\n[Strings]\nP=\"Müller & Söhne\"\n"
    )
}

#[track_caller]
fn read(bytes: &[u8], guest: &GuestTarget) -> Facts {
    Inf::parse(bytes, "x.inf").and_then(|inf| inf.facts(guest)).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn facts(rest: &str) -> Facts {
    let facts = read(text(rest).as_bytes(), &w10());
    assert!(facts.warnings.is_empty(), "{:?}", facts.warnings);
    facts
}

fn encodings() {
    let text = text("[I]\nAddReg=R\n[R]\nHKR,,Größe,,\"naïve, ½\"").replace('\n', "\r\n");
    let units = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let expected = read(text.as_bytes(), &w10());
    assert_eq!(expected.provider.resolved, "Müller & Söhne");
    let value = &expected.installs[0].software[0];
    assert_eq!((value.name.as_str(), value.data.as_text().as_deref()), ("Größe", Some("naïve, ½")));
    for (name, bytes) in [
        ("UTF-16LE with a mark", [vec![0xFF, 0xFE], units(u16::to_le_bytes)].concat()),
        ("UTF-16BE with a mark", [vec![0xFE, 0xFF], units(u16::to_be_bytes)].concat()),
        ("UTF-8 with a mark", [vec![0xEF, 0xBB, 0xBF], text.clone().into_bytes()].concat()),
        ("the ANSI code page", text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()),
        ("line ends of Unix", text.replace("\r\n", "\n").into_bytes()),
        ("an end mark", [text.clone().into_bytes(), vec![0x1A]].concat()),
    ] {
        assert_eq!(read(&bytes, &w10()), expected, "{name}");
    }
}

fn registry_values() {
    use RegAction::{Append, Delete, KeyOnly, OverwriteOnly, Set, SetIfAbsent};
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let cases: &[(&str, RegAction, u32, Vec<u8>)] = &[
        ("HKR,K,a,,text", Set, 1, wide("text\0")),
        ("HKR,K,a,0x00000000,\"a; \"\"b\"\", c\"", Set, 1, wide("a; \"b\", c\0")),
        ("HKR,K,a,%FLG_ADDREG_TYPE_EXPAND_SZ%,%%SystemRoot%%\\x", Set, 2, wide("%SystemRoot%\\x\0")),
        ("HKR,K,a,0x00010000,one,\"two\"", Set, 7, wide("one\0two\0\0")),
        ("HKR,K,a,0x00010000,", Set, 7, wide("\0")),
        ("HKR,K,a,0x00010008,one", Append, 7, wide("one\0\0")),
        ("HKR,K,a,0x00010001,0x10", Set, 4, vec![16, 0, 0, 0]),
        ("HKR,K,a,0x00010001,-2", Set, 4, vec![0xFE, 0xFF, 0xFF, 0xFF]),
        ("HKR,K,a,0x00010001,0d,0c,0b,0a", Set, 4, vec![13, 12, 11, 10]),
        ("HKR,K,a,1,de,AD, \\\n be,0xef", Set, 3, vec![0xDE, 0xAD, 0xBE, 0xEF]),
        ("HKR,K,a,0x00020001", Set, 0, vec![]),
        ("HKR,K,a,0x000B0001,1,0,0,0,0,0,0,80", Set, 11, vec![1, 0, 0, 0, 0, 0, 0, 0x80]),
        ("HKR,K,a,2,text", SetIfAbsent, 1, wide("text\0")),
        ("HKR,K,a,0x00010003,7", SetIfAbsent, 4, vec![7, 0, 0, 0]),
        ("HKR,K,a,0x00010021,7", OverwriteOnly, 4, vec![7, 0, 0, 0]),
        ("HKR,K,a,4", Delete, 0, vec![]),
        ("HKR,K,,0x10", KeyOnly, 0, vec![]),
        ("HKR,K,,0x2000", KeyOnly, 0, vec![]),
        ("HKR,K", KeyOnly, 0, vec![]),
        // the view of the registry (64-bit, 32-bit keys) says nothing about the type
        ("HKLM,K,a,0x00011001,1", Set, 4, vec![1, 0, 0, 0]),
        ("HKLM,K,a,0x00001000,text", Set, 1, wide("text\0")),
        ("HKLM,K,a,0x00024000,text", Set, 2, wide("text\0")),
    ];
    for (line, action, kind, data) in cases {
        let rest = format!("[I]\nAddReg=R\n[R]\n{line}\n[Strings]\nFLG_ADDREG_TYPE_EXPAND_SZ=0x00020000");
        let facts = facts(&rest);
        let value: &RegValue = &facts.installs[0].software[0];
        assert_eq!((value.action, value.data.kind.0, &value.data.bytes), (*action, *kind, data), "{line}");
        assert_eq!((value.subkey.as_str(), facts.installs[0].software.len()), ("K", 1), "{line}");
        let root = if line.starts_with("HKLM") { RegRoot::LocalMachine } else { RegRoot::Relative };
        assert_eq!(value.root, root, "{line}");
    }
    // the default value, and a key's path with blanks
    let facts = facts("[I]\nAddReg=R\n[R]\nHKR,\"Interrupt Management\\Affinity Policy\",,,\"default\"");
    let value = &facts.installs[0].software[0];
    assert_eq!((value.subkey.as_str(), value.name.as_str()), ("Interrupt Management\\Affinity Policy", ""));
    assert_eq!(value.data.as_text().as_deref(), Some("default"));
}

fn files_and_their_destinations() {
    let rest = "[I]\nCopyFiles=Drivers,@alone.dll, Sub ,Other\nCopyFiles=Default\n[Drivers]\na.sys\n\"b c.sys\",source.sys,,2 ; why\n\
                [Sub]\nd.dll\n[Other]\ne.exe,,,0x00004000\n[Default]\nf.txt\n[DestinationDirs]\nDefaultDestDir=13\n\
                Drivers=12\nSub=11,\"spool\\drivers\"\nOTHER = 10 , SysWOW64 \n";
    let facts = facts(rest);
    let found: Vec<_> = facts.installs[0]
        .copy_files
        .iter()
        .map(|f| (f.name.as_str(), f.source.as_str(), f.destination.dirid, f.destination.path.as_str(), f.flags))
        .collect();
    assert_eq!(
        found,
        [
            ("a.sys", "a.sys", 12, "", 0),
            ("b c.sys", "source.sys", 12, "", 2),
            ("alone.dll", "alone.dll", 13, "", 0),
            ("d.dll", "d.dll", 11, "spool\\drivers", 0),
            ("e.exe", "e.exe", 10, "SysWOW64", 0x4000),
            ("f.txt", "f.txt", 13, "", 0),
        ]
    );
}

fn files_of_the_media() {
    let names = "[SourceDisksNames]\n1=%P%,,,\n2=%P%,,,\\Sub\\Deep\n[SourceDisksNames.amd64]\n3=%P%,,,x64\n";
    for (rest, arch, expected) in [
        ("[SourceDisksFiles]\na.sys=1\nb.dll=2,lib,,\n", Arch::Amd64, vec!["a.sys", "Sub/Deep/lib/b.dll"]),
        ("[SourceDisksFiles]\na.sys=1\n[SourceDisksFiles.amd64]\na.sys=3\n", Arch::Amd64, vec!["x64/a.sys"]),
        ("[SourceDisksFiles]\na.sys=1\n[SourceDisksFiles.amd64]\na.sys=3\n", Arch::X86, vec!["a.sys"]),
        ("[SourceDisksFiles.x86]\na.sys=1\n[SourceDisksFiles.arm64]\nb.sys=1,.\n", Arch::Arm64, vec!["b.sys"]),
    ] {
        let guest = GuestTarget::of_build(arch, 19045, false);
        let facts = read(text(&format!("[I]\n{names}{rest}")).as_bytes(), &guest);
        assert_eq!(facts.source_files, expected, "{rest}");
    }
}

fn catalogues() {
    for (lines, arch, expected) in [
        ("CatalogFile=a.cat", Arch::Amd64, Some("a.cat")),
        ("CatalogFile=a.cat\nCatalogFile.NT=n.cat", Arch::Amd64, Some("n.cat")),
        ("CatalogFile=a.cat\nCatalogFile.NTamd64=b.cat\nCatalogFile.NT=n.cat", Arch::Amd64, Some("b.cat")),
        ("CatalogFile=a.cat\nCatalogFile.NTamd64=b.cat", Arch::X86, Some("a.cat")),
        ("CatalogFile.ntarm64 = \"c d.cat\"", Arch::Arm64, Some("c d.cat")),
        ("CatalogFile.NTamd64=b.cat", Arch::Arm64, None),
    ] {
        let text = text("[I]").replacen("Class=Net", &format!("Class=Net\n{lines}"), 1);
        let facts = read(text.as_bytes(), &GuestTarget::of_build(arch, 19045, false));
        assert_eq!(facts.catalog.as_deref(), expected, "{lines}");
    }
}

/// `name.NT<cpu>`, else `name.NT`, else `name`; `.HW` and `.Services` belong to the one that was taken.
fn install_sections() {
    let body =
        |name: &str, suffix: &str| format!("[{name}{suffix}]\nAddReg={suffix}R\n[{suffix}R]\nHKR,,from,,{suffix}\n");
    for (suffixes, arch, expected) in [
        (&["", ".NT", ".NTamd64"][..], Arch::Amd64, ".NTamd64"),
        (&["", ".NT", ".NTamd64"][..], Arch::X86, ".NT"),
        (&["", ".NTarm64"][..], Arch::Amd64, ""),
        (&["", ".ntAMD64"][..], Arch::Amd64, ".ntAMD64"),
    ] {
        let rest: String = suffixes.iter().map(|suffix| body("I", suffix)).collect();
        let hardware: String =
            suffixes.iter().map(|s| format!("[I{s}.HW]\nAddReg={s}H\n[{s}H]\nHKR,,hw,,{s}\n")).collect();
        let facts = read(text(&(rest + &hardware)).as_bytes(), &GuestTarget::of_build(arch, 19045, false));
        let install = &facts.installs[0];
        assert_eq!((install.name.as_str(), &install.section), ("I", &format!("I{expected}")));
        assert_eq!(install.software[0].data.as_text().as_deref(), Some(expected));
        assert_eq!(install.hardware[0].data.as_text().as_deref(), Some(expected));
    }
}

fn services() {
    let rest = "[I]\n[I.Services]\nAddService=drv,0x00000002,Drv,Log\nAddService = helper,,Helper,HelperLog,Application,\"Helper Source\"\n\
                [Drv]\nDisplayName=%P%\nDescription=%Text%\nServiceType=%SERVICE_KERNEL_DRIVER%\nStartType=0x0\nErrorControl=1\n\
                ServiceBinary=%13%\\sub\\drv.sys\nLoadOrderGroup=SCSI miniport\nAddReg=A,B\nDependencies=one,+Group\n\
                [A]\nHKR,Parameters,BusType,0x10001,0xA\n[B]\nHKR,Parameters\\PnpInterface,5,0x10001,1\n\
                [Helper]\nServiceType=0x10\nStartType=2\nErrorControl=0\nServiceBinary=\"%11%\\my helper.exe\"\nStartName=LocalSystem\n\
                [Log]\nAddReg=L\n[L]\nHKR,,TypesSupported,0x10001,7\n[HelperLog]\nAddReg=L\n\
                [Strings]\nText=\"does, it\"\nSERVICE_KERNEL_DRIVER=1";
    let facts = facts(rest);
    let [drv, helper] = &facts.installs[0].services[..] else { panic!("{:?}", facts.installs[0].services) };
    assert_eq!((drv.name.as_str(), drv.flags, drv.kind, drv.start, drv.error_control), ("drv", 2, 1, 0, 1));
    assert_eq!(drv.binary, DirPath { dirid: 13, path: "sub\\drv.sys".to_owned() });
    assert_eq!(drv.description.as_ref().unwrap().resolved, "does, it");
    assert_eq!(
        (drv.group.as_deref(), drv.dependencies.as_slice()),
        (Some("SCSI miniport"), ["one", "+Group"].map(str::to_owned).as_slice())
    );
    assert_eq!((drv.dword("Parameters", "BusType"), drv.dword("parameters\\pnpinterface", "5")), (Some(10), Some(1)));
    let log = |s: &winject::internals::drivers::inf::ServiceFacts| {
        s.event_log.as_ref().map(|l| (l.log.clone(), l.source.clone(), l.registry.len())).unwrap()
    };
    assert_eq!(log(drv), ("System".to_owned(), "drv".to_owned(), 1));
    assert_eq!(log(helper), ("Application".to_owned(), "Helper Source".to_owned(), 1));
    assert_eq!((helper.is_function_driver(), helper.kind, helper.start), (false, 0x10, 2));
    assert_eq!((helper.binary.path.as_str(), helper.start_name.as_deref()), ("my helper.exe", Some("LocalSystem")));
    assert_eq!(facts.function_service().unwrap().name, "drv");
    for (value, path, arguments) in [
        ("%12%\\a.sys", "a.sys", ""),
        ("%11%\\svc.exe -k net", "svc.exe", "-k net"),
        ("\"\"\"%11%\\my svc.exe\"\" -k net\"", "my svc.exe", "-k net"),
        ("%10%\\My Maker\\svc.exe /run", "My Maker\\svc.exe", "/run"),
        ("%10%\\noending", "noending", ""),
    ] {
        let rest = format!(
            "[I]\n[I.Services]\nAddService=s,2,S\n[S]\nServiceType=1\nStartType=3\nErrorControl=1\nServiceBinary={value}"
        );
        let facts = self::facts(&rest);
        let service = facts.function_service().unwrap();
        assert_eq!((service.binary.path.as_str(), service.arguments.as_str()), (path, arguments), "{value}");
    }
}

fn include_and_needs_are_reported() {
    let rest = "[I]\nInclude = machine.inf, netrasa.inf\nNeeds = Foreign.Install, Own\n[Own]\nAddReg=R\n[R]\nHKR,,own,,1\n\
                [I.Services]\nInclude=machine.inf\nNeeds=Foreign.Services\nAddService=,2";
    let facts = facts(rest);
    assert_eq!(facts.includes, ["machine.inf", "netrasa.inf"]);
    assert_eq!(facts.installs[0].needs, ["Foreign.Install", "Foreign.Services"]);
    assert_eq!(facts.installs[0].software[0].name, "own", "a needed section of the same INF is followed");
    assert!(facts.installs[0].null_service);
}

fn languages() {
    let text = text("[I]").replace("%P%=I,", "%D%=I,")
        + "D=\"Device\"\n[Strings.0407]\nD=\"Gerät\"\n[Strings.0009]\nD=\"English device\"\n";
    for (language, expected) in
        [(0x0409, "English device"), (0x0809, "English device"), (0x0407, "Gerät"), (0x0411, "Device")]
    {
        let inf = Inf::parse_in(text.as_bytes(), "x.inf", language).unwrap();
        assert_eq!(inf.facts(&w10()).unwrap().models[0].description.resolved, expected, "{language:#06x}");
    }
}

fn what_is_missing_is_a_warning_with_its_line() {
    for (rest, line, part) in [
        ("[I]\nAddReg=Gone", 14, "[Gone] of an AddReg is missing"),
        ("[I]\nCopyFiles=Gone", 14, "[Gone] of a CopyFiles is missing"),
        ("", 10, "the install section [I] is missing"),
        ("[I]\nAddReg=R\n[R]\nHKR,,a,,%nobody%", 16, "%nobody% is not in [Strings]"),
        ("[I]\nAddReg=R\n[R]\na=b", 16, "without a root"),
        (
            "[I.Services]\nAddService=s,2,S,Gone\n[I]\n[S]\nServiceType=1\nStartType=3\nErrorControl=1\nServiceBinary=%12%\\s.sys",
            14,
            "event-log section [Gone]",
        ),
    ] {
        let facts = read(text(rest).as_bytes(), &w10());
        let warning = facts.warnings.first().unwrap_or_else(|| panic!("no warning: {rest}"));
        assert!(warning.starts_with(&format!("x.inf:{line}:")) && warning.contains(part), "{warning}");
    }
}

tests![
    encodings,
    registry_values,
    files_and_their_destinations,
    files_of_the_media,
    catalogues,
    install_sections,
    services,
    include_and_needs_are_reported,
    languages,
    what_is_missing_is_a_warning_with_its_line,
];
