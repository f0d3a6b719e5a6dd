//! Every row of the release table × every virtio-win generation of the corpus, against a second reading of the INFs and a
//! second choice that share no code with ours (`choose.py`, written from the documentation).

use super::{Random, media};
use crate::support;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use winject::internals::drivers::inf::{Facts, Inf};
use winject::internals::drivers::{
    Arch, Definitions, GuestTarget, Policy, ProductType, SignatureLevel, Sources, select,
};

/// Name for people, CPU, build, server: every row of the reference's table of releases, on every CPU that it has.
const GUESTS: &[(&str, Arch, u32, bool)] = &[
    ("XP", Arch::X86, 2600, false),
    ("XP x64", Arch::Amd64, 3790, false),
    ("2003", Arch::X86, 3790, true),
    ("2003 x64", Arch::Amd64, 3790, true),
    ("Vista", Arch::X86, 6002, false),
    ("Vista x64", Arch::Amd64, 6002, false),
    ("2008", Arch::X86, 6003, true),
    ("2008 x64", Arch::Amd64, 6003, true),
    ("7", Arch::X86, 7601, false),
    ("7 x64", Arch::Amd64, 7601, false),
    ("2008 R2", Arch::Amd64, 7601, true),
    ("8", Arch::X86, 9200, false),
    ("8 x64", Arch::Amd64, 9200, false),
    ("2012", Arch::Amd64, 9200, true),
    ("8.1", Arch::X86, 9600, false),
    ("8.1 x64", Arch::Amd64, 9600, false),
    ("2012 R2", Arch::Amd64, 9600, true),
    ("10 1507", Arch::Amd64, 10240, false),
    ("10 1607", Arch::Amd64, 14393, false),
    ("10 1709", Arch::Amd64, 16299, false),
    ("10 22H2", Arch::Amd64, 19045, false),
    ("10 22H2 x86", Arch::X86, 19045, false),
    ("10 22H2 ARM64", Arch::Arm64, 19045, false),
    ("2016", Arch::Amd64, 14393, true),
    ("2019", Arch::Amd64, 17763, true),
    ("2022", Arch::Amd64, 20348, true),
    ("11 21H2", Arch::Amd64, 22000, false),
    ("11 23H2", Arch::Amd64, 22631, false),
    ("11 23H2 ARM64", Arch::Arm64, 22631, false),
    ("11 24H2", Arch::Amd64, 26100, false),
    ("11 24H2 ARM64", Arch::Arm64, 26100, false),
    ("11 25H2", Arch::Amd64, 26200, false),
    ("2025", Arch::Amd64, 26100, true),
    ("2025 ARM64", Arch::Arm64, 26100, true),
];

const RELEASES: [&str; 3] = ["0.1.217", "0.1.240", "0.1.285"];
const LENIENT: Policy = Policy { signature: SignatureLevel::Present };

type Guests = Vec<(String, GuestTarget)>;

fn guests() -> Guests {
    GUESTS
        .iter()
        .map(|&(name, arch, build, server)| (name.to_owned(), GuestTarget::of_build(arch, build, server)))
        .collect()
}

/// What `choose.py` answers in a mode.
fn second(mode: &str, guests: Option<&Guests>, arguments: &[&Path]) -> Value {
    let temp = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.arg("-B").arg(support::root().join("tests/it/drivers/choose.py")).arg(mode);
    if let Some(guests) = guests {
        let list: Vec<Value> = guests
            .iter()
            .map(|(name, g)| {
                json!({"name": name, "arch": g.arch.to_string(), "build": g.build, "server": g.server,
                    "product": g.product_type.number(), "suite": g.suite})
            })
            .collect();
        let file = temp.path().join("guests.json");
        std::fs::write(&file, serde_json::to_vec(&list).unwrap()).unwrap();
        command.arg(file);
    }
    serde_json::from_slice(&support::run(command.args(arguments)).stdout).unwrap()
}

/// Our reading in the form of the other one: `[[section, [[id, …], …]], …]`, sections in lower case.
fn sections(facts: &Facts) -> Value {
    let mut out: Vec<(String, Vec<Vec<String>>)> = Vec::new();
    for model in &facts.models {
        let section = model.section.to_lowercase();
        if out.last().is_none_or(|(last, _)| *last != section) {
            out.push((section, Vec::new()));
        }
        let ids = [&model.hardware_id].into_iter().chain(&model.compatible_ids);
        out.last_mut().unwrap().1.push(ids.filter(|id| !id.is_empty()).cloned().collect());
    }
    json!(out)
}

/// The other reading without the makers that have nothing; `None` where the documented rules leave it open.
fn theirs(value: &Value) -> Option<Value> {
    let makers: Vec<&Value> = value.as_array().unwrap().iter().filter(|maker| !maker.is_null()).collect();
    if makers.iter().any(|maker| maker.is_string()) {
        return None;
    }
    Some(makers.iter().map(|maker| json!([maker[0].as_str().unwrap().to_lowercase(), maker[1]])).collect())
}

/// All INFs below a folder.
pub(super) fn infs(root: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("inf")) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// Both readings of some INFs for some guests. How many agreed on devices, on none, and how many the rules leave open.
fn agree(paths: &[PathBuf], guests: &Guests) -> [usize; 3] {
    let answer = second("sections", Some(guests), &paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let mut counts = [0; 3];
    for path in paths {
        let inf = Inf::parse(&std::fs::read(path).unwrap(), "x.inf").unwrap_or_else(|e| panic!("{path:?}: {e}"));
        for (name, guest) in guests {
            let facts = inf.facts(guest).unwrap_or_else(|e| panic!("{path:?}, {name}: {e}"));
            match theirs(&answer[path.to_str().unwrap()][name]) {
                Some(theirs) => {
                    assert_eq!(sections(&facts), theirs, "{} for {name}", path.display());
                    counts[usize::from(facts.models.is_empty())] += 1;
                }
                None => counts[2] += 1,
            }
        }
    }
    counts
}

fn every_real_inf_for_every_guest() {
    let Some(root) = support::corpus("inf") else { return };
    let paths = infs(&root);
    let [some, none, open] = agree(&paths, &guests());
    println!("{} INFs, {} guests: {some} with devices, {none} without", paths.len(), GUESTS.len());
    assert!(paths.len() > 40 && some > 300 && none > 300 && open == 0);
}

/// INFs with every mixture of decorations, for guests of every product type and suite.
fn random_decorations_for_every_guest() {
    if support::program("python3").is_none() {
        return;
    }
    let mut guests = guests();
    for (index, (name, guest)) in guests.clone().into_iter().enumerate() {
        let domain = if guest.server { ProductType::LanmanNt } else { guest.product_type };
        let suite = [0x10, 0x112, 0x80, 0x102][index % 4];
        guests.push((format!("{name} variant"), GuestTarget { product_type: domain, suite, ..guest }));
    }
    let temp = tempfile::tempdir().unwrap();
    let mut random = Random(11);
    let mut paths = Vec::new();
    for number in 0..support::rounds(150, 600) {
        let path = temp.path().join(format!("{number}.inf"));
        std::fs::write(&path, random_inf(&mut random)).unwrap();
        paths.push(path);
    }
    let [some, none, open] = agree(&paths, &guests);
    println!("random INFs: {some} answers with devices, {none} without, {open} that the rules leave open");
    assert!(some > paths.len() && none > paths.len());
    assert!(open * 10 < some, "the other reading must decide nearly always");
}

fn random_inf(random: &mut Random) -> String {
    fn one<'a>(random: &mut Random, list: &[&'a str]) -> &'a str {
        list[random.next(list.len())]
    }
    let mut text = "[Version]\r\nSignature = \"$Windows NT$\" ; why not\r\nClass=Net\r\n[Manufacturer]\r\n".to_owned();
    let mut bodies = String::new();
    for maker in 0..1 + random.next(2) {
        let mut line = format!("%Maker% = Dev{maker}");
        if random.next(3) == 0 {
            let _ = write!(bodies, "[Dev{maker}]\r\n%D% = I, PCI\\PLAIN\r\n");
        }
        let mut taken = std::collections::HashSet::new();
        for index in 0..random.next(7) {
            let cpu = one(random, &["amd64", "AMD64", "x86", "arm64", "ia64", "", "amd64", "amd64"]);
            let version =
                one(random, &["", ".6", ".6.1", ".6.2", ".6.3", ".10", ".10.0", ".5.1", ".0xA.0", ".10.0", ".10.0"]);
            let mut name = format!("NT{cpu}{version}");
            let is_full = version.matches('.').count() == 2;
            if is_full && random.next(3) == 0 {
                let product = one(random, &["1", "3", "2", "0x3", ""]);
                let suite = one(random, &["", "0x10", "0x2", "0x100"]);
                let build = one(random, &["", "", "14393", "16299", "22000", "26100"]);
                name += format!(".{product}.{suite}.{build}").trim_end_matches('.');
            }
            // the same target twice: nobody says which section counts
            if !taken.insert(name.to_lowercase().replace("0xa", "10").replace("0x", "")) {
                continue;
            }
            let space = one(random, &["", " ", "\t"]);
            let _ = write!(line, ",{space}{name}{space}");
            match random.next(8) {
                0 => {}
                1 => {
                    let _ = write!(bodies, "[Dev{maker}.{name}]\r\n; nothing for this one\r\n");
                }
                _ => {
                    let header = if random.next(2) == 0 { name.to_uppercase() } else { name.clone() };
                    let _ = write!(bodies, "[dev{maker}.{header}]\r\n%D% = I, PCI\\A{index}, \\\r\n PCI\\B ; and\r\n");
                    let _ = write!(bodies, "\"A; \"\"name\"\", = this\" = I,, %ID%\r\n");
                }
            }
        }
        text += &line;
        text += "\r\n";
    }
    text + &bodies + "[I]\r\n[Strings]\r\nMaker=\"M, Inc.\"\r\nD = \"Device\"\r\nID = \"PCI\\C\"\r\n"
}

/// Folder and models section of every driver: ours in the form of the other choice.
fn ours(sources: &Sources, guest: &GuestTarget) -> Value {
    let selection = match select(sources, guest, &Definitions::builtin(), &LENIENT) {
        Ok(selection) => selection,
        Err(error) => {
            assert_eq!(error.kind(), winject::Kind::Drivers);
            return Value::Null;
        }
    };
    for (package, boot) in selection.boot_packages() {
        assert!(never_newer(&package.bucket, guest), "{guest}: {} of {}", package.inf_name, package.bucket);
        assert!(!boot.data.is_empty());
    }
    let choices = selection.packages.iter().map(|package| {
        // never for another CPU
        let folder = match guest.arch {
            Arch::X86 => "/x86",
            Arch::Amd64 => "/amd64",
            Arch::Arm64 => "/ARM64",
        };
        assert!(package.source_path.ends_with(folder), "{guest}: {}", package.source_path);
        let section = package.inf.models[0].section.to_lowercase();
        (format!("{}/{}", package.driver, package.inf_name.to_lowercase()), json!([package.bucket, section]))
    });
    json!(choices.collect::<BTreeMap<_, _>>())
}

/// Disk drivers from random parts of a medium, with a user's own order of folders that asks for newer ones: a driver made
/// for a newer kernel, by its folder or by its INF, is never taken.
fn a_boot_driver_for_a_newer_kernel_is_never_taken() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let mut folders = Vec::new();
    for driver in ["viostor", "vioscsi"] {
        for bucket in std::fs::read_dir(tree.join(driver)).unwrap() {
            let bucket = bucket.unwrap().file_name().into_string().unwrap();
            for arch in
                ["x86", "amd64", "ARM64"].into_iter().filter(|a| tree.join(driver).join(&bucket).join(a).is_dir())
            {
                folders.push((driver, bucket.clone(), arch));
            }
        }
    }
    folders.sort();
    let wishes = Definitions::parse(
        "buckets:\n  xp: [w10, w7]\n  w7: [w11, w10, w8]\n  w8: [w10]\n  2k12R2: [2k25, w10]\n  w10: [w11, 2k25]\n  2k16: [2k22, w11]\n",
        "wishes.yaml",
    )
    .unwrap();
    let mut random = Random(23);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..support::rounds(12, 40) {
        let temp = tempfile::tempdir().unwrap();
        for (driver, bucket, arch) in &folders {
            if random.next(4) == 0 {
                // half of them where no folder's name tells the release: then the INF alone does
                let name = if random.next(2) == 0 { bucket.clone() } else { format!("build-{}", random.next(1 << 20)) };
                // copied, as a link that leads out of the folder is not followed
                let place = temp.path().join(driver).join(name).join(arch);
                std::fs::create_dir_all(&place).unwrap();
                for file in std::fs::read_dir(tree.join(driver).join(bucket).join(arch)).unwrap() {
                    let file = file.unwrap();
                    std::fs::copy(file.path(), place.join(file.file_name())).unwrap();
                }
            }
        }
        let sources = Sources::open(&[temp.path()]).unwrap();
        for (name, guest) in guests() {
            for definitions in [&Definitions::builtin(), &wishes] {
                let Ok(selection) = select(&sources, &guest, definitions, &LENIENT) else {
                    refused += 1;
                    continue;
                };
                for (package, _) in selection.boot_packages() {
                    taken += 1;
                    assert!(package.bucket.is_empty() || never_newer(&package.bucket, &guest), "{name}: {package:?}");
                    let section = &package.inf.models[0].section;
                    let numbers: Vec<u32> =
                        section.split('.').skip(2).map(|n| n.parse().unwrap_or(0)).chain([0; 5]).take(5).collect();
                    let lowest = (numbers[0], numbers[1], numbers[4]);
                    assert!(lowest <= (guest.major, guest.minor, guest.build), "{name}: {section}");
                }
            }
        }
    }
    println!("{taken} boot drivers taken, {refused} choices refused");
    assert!(taken > 200 && refused > 100);
}

/// The kernel that a folder is made for is not newer than the guest's. Kernels as Microsoft numbers them.
fn never_newer(bucket: &str, guest: &GuestTarget) -> bool {
    let kernel = match bucket {
        "xp" => (5, 1),
        "2k3" => (5, 2),
        "2k8" => (6, 0),
        "w7" | "2k8R2" => (6, 1),
        "w8" | "2k12" => (6, 2),
        "w8.1" | "2k12R2" => (6, 3),
        _ => (10, 0),
    };
    kernel <= (guest.major, guest.minor)
}

/// Both choices from a tree, for every guest. How many drivers were chosen in all, and the folders of the disk drivers.
fn same_choice(name: &str, tree: &Path) -> (usize, BTreeMap<String, BTreeMap<String, String>>) {
    let answer = second("tree", Some(&guests()), &[tree]);
    let sources = Sources::open(&[tree]).unwrap();
    let (mut count, mut disks) = (0, BTreeMap::new());
    for (guest_name, guest) in guests() {
        let found = ours(&sources, &guest);
        let mut theirs = answer[&guest_name].clone();
        for (_, choice) in theirs.as_object_mut().into_iter().flatten() {
            choice[1] = json!(choice[1].as_str().unwrap().to_lowercase());
        }
        assert_eq!(found, theirs, "{name} for {guest_name}");
        let chosen = found.as_object().cloned().unwrap_or_default();
        count += chosen.len();
        let folders = ["viostor", "vioscsi"].into_iter().filter_map(|driver| {
            let choice = chosen.get(&format!("{driver}/{driver}.inf"))?;
            Some((driver.to_owned(), choice[0].as_str()?.to_owned()))
        });
        disks.insert(guest_name, folders.collect());
    }
    (count, disks)
}

/// The judges' trees: where the corpus lacks a release's INF they hold that of another one, which the choice must pass over.
fn every_release_and_every_generation() {
    for release in RELEASES {
        let Some(tree) = media::tree(release) else { return };
        let (count, _) = same_choice(release, &tree);
        println!("virtio-win {release}: {count} choices for {} guests", GUESTS.len());
        assert!(count > 200);
    }
}

/// Trees as they are published: every folder has the INF of the build that it is copied from. There the folders follow from
/// the build system's file map alone.
fn media_as_published() {
    let (Some(map), Some(_)) = (support::corpus("inf/virtio-win-filemap.json"), support::program("python3")) else {
        return;
    };
    let by_map = second("filemap", Some(&guests()), &[&map]);
    let by_map: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_value(by_map).unwrap();
    for release in RELEASES {
        let Some(plain) = media::tree(release) else { return };
        let made = media::made(&format!("virtio-win-{release}-published"), |out| {
            support::run(Command::new("cp").arg("-r").arg(&plain).arg(out));
            let changed = second("media", None, &[&map, map.parent().unwrap(), Path::new(release), out]);
            assert!(changed.as_u64() > Some(100), "{changed}");
            Some(())
        });
        let (_, disks) = same_choice(release, &made.unwrap());
        for (guest, folders) in &disks {
            assert_eq!(folders, &by_map[guest], "virtio-win {release} for {guest}");
        }
        assert!(disks.values().all(|folders| !folders.is_empty()) || disks["2025 ARM64"].is_empty(), "{disks:?}");
    }
}

tests![
    every_real_inf_for_every_guest,
    random_decorations_for_every_guest,
    a_boot_driver_for_a_newer_kernel_is_never_taken,
    every_release_and_every_generation,
    media_as_published,
];
