//! Conversion: from every container to raw and qcow2, judged by qemu-img.

mod injection;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use winject::internals::block::convert::{Compression, ConvertOptions, ConvertProgress, DiskSource, convert};
use winject::internals::block::{Extent, ExtentKind, Format, OpenOptions, Stage, StageOptions, open};
use winject::internals::units::ImageOffset;
use winject::{Error, Kind, Layer};

use crate::formats::{Random, assert_same, disk, image, qemu_img, read_qemu};
use crate::support::{program, rounds, run};

/// Every kind of output.
fn outputs() -> Vec<(&'static str, ConvertOptions<'static>)> {
    let qcow2 = |compression, cluster_bits| ConvertOptions { compression, cluster_bits, ..ConvertOptions::default() };
    vec![
        ("raw", ConvertOptions { format: Format::Raw, ..ConvertOptions::default() }),
        ("qcow2", qcow2(None, 16)),
        ("qcow2 zlib", qcow2(Some(Compression::Zlib), 16)),
        ("qcow2 zstd", qcow2(Some(Compression::Zstd), 16)),
        ("qcow2 512", qcow2(None, 9)),
        ("qcow2 zlib 512", qcow2(Some(Compression::Zlib), 9)),
        ("qcow2 zstd 4096", qcow2(Some(Compression::Zstd), 12)),
        ("qcow2 zlib 2M", qcow2(Some(Compression::Zlib), 21)),
        ("qcow2 2M", qcow2(None, 21)),
    ]
}

fn qemu_format(options: &ConvertOptions<'_>) -> &'static str {
    if options.format == Format::Raw { "raw" } else { "qcow2" }
}

fn judge(path: &Path, options: &ConvertOptions<'_>, content: &[u8], what: &str) {
    let format = qemu_format(options);
    if format == "qcow2" {
        run(Command::new("qemu-img").args(["check", "-q"]).arg(path));
    }
    assert_same(&read_qemu(path, format), content, what);
}

fn everything_to_everything() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // A size that is no multiple of any cluster.
    let content = disk((7 << 20) + 512, 31);
    std::fs::write(at("in.raw"), &content).unwrap();
    let sources = [
        ("raw", ""),
        ("qcow2", "compression_type=zlib"),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vhdx", "subformat=dynamic"),
        ("vdi", ""),
    ];
    for (i, (format, options)) in sources.iter().enumerate() {
        let input = at(&format!("{i}.in"));
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        if *format == "qcow2" {
            arguments.push("-c");
        }
        let raw = at("in.raw");
        arguments.extend([raw.to_str().unwrap(), input.to_str().unwrap()]);
        qemu_img(&arguments);
        // All outputs of the plain source, the common ones of the others.
        for (name, options) in outputs().into_iter().take(if i == 0 { usize::MAX } else { 4 }) {
            let out = at("out");
            let done = convert(&*image(&input), &out, &options).unwrap();
            judge(&out, &options, &content, &format!("{format} to {name}"));
            assert_eq!(done.virtual_size, content.len() as u64);
            assert_eq!(done.file_length, out.metadata().unwrap().len());
            std::fs::remove_file(&out).unwrap();
        }
    }
}

fn the_same_bytes_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.raw");
    std::fs::write(&input, disk(19 << 20, 5)).unwrap();
    let out = folder.path().join("out");
    for (name, options) in outputs() {
        let mut first: Option<Vec<u8>> = None;
        for threads in [1, 2, 3, 8, 2] {
            let options = ConvertOptions { threads: Some(threads), overwrite: true, ..options.clone() };
            convert(&*image(&input), &out, &options).unwrap();
            let bytes = std::fs::read(&out).unwrap();
            match &first {
                Some(first) => assert_same(&bytes, first, name),
                None => first = Some(bytes),
            }
        }
    }
}

/// Random disks with random changes staged over them.
fn staged_changes_are_merged_in_the_pass() {
    if program("qemu-img").is_none() {
        return;
    }
    for seed in 0..rounds(6, 25) {
        let mut random = Random(seed);
        let folder = tempfile::tempdir().unwrap();
        let size = (1 + random.below(6_000)) * 512 + (random.below(4) << 20);
        let input = folder.path().join("in.raw");
        let mut content = disk(size.max(1024) as usize, seed);
        std::fs::write(&input, &content).unwrap();
        let mut stage = Stage::new(image(&input), StageOptions::default());
        for _ in 0..random.below(12) {
            let at = random.below(content.len() as u64) as usize;
            let length = (random.below(200_000) as usize).min(content.len() - at);
            let mut data = vec![0; length];
            if random.below(3) > 0 {
                random.fill(&mut data);
            }
            stage.write_at(ImageOffset(at as u64), &data).unwrap();
            content[at..at + length].copy_from_slice(&data);
        }
        let all = outputs();
        let (name, options) = &all[random.below(all.len() as u64) as usize];
        let out = folder.path().join("out");
        convert(&stage, &out, options).unwrap();
        judge(&out, options, &content, &format!("seed {seed}, {name}"));
        assert_eq!(std::fs::read(&input).unwrap().len(), content.len(), "the input is not touched");
    }
}

fn holes_and_zeros_stay_holes() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.raw");
    let file = File::create(&input).unwrap();
    file.set_len(3 << 30).unwrap();
    // A megabyte of data and eight of zeros that are stored as data.
    file.write_all_at(&[5; 1 << 20], 1 << 30).unwrap();
    file.write_all_at(&vec![0; 8 << 20], 2 << 30).unwrap();
    drop(file);
    for (name, options) in outputs().into_iter().take(4) {
        let out = folder.path().join("out");
        let options = ConvertOptions { overwrite: true, ..options };
        let done = convert(&*image(&input), &out, &options).unwrap();
        assert!(done.bytes_read <= 10 << 20, "{name}: {} bytes read", done.bytes_read);
        let allocated = out.metadata().unwrap().blocks() * 512;
        assert!(allocated < 2 << 20, "{name}: {allocated} bytes allocated");
    }
}

fn compressed_size_is_near_qemus() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Programs are what disks are full of.
    let program: Vec<u8> = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    std::fs::write(at("in.raw"), &program[..program.len().min(48 << 20) / 65_536 * 65_536]).unwrap();
    for (kind, word) in [(Compression::Zlib, "zlib"), (Compression::Zstd, "zstd")] {
        let options = ConvertOptions { compression: Some(kind), overwrite: true, ..ConvertOptions::default() };
        let ours = convert(&*image(&at("in.raw")), &at("ours"), &options).unwrap().file_length;
        let (input, output) = (at("in.raw"), at("theirs"));
        let kind = format!("compression_type={word}");
        qemu_img(&[
            "convert",
            "-c",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            &kind,
            input.to_str().unwrap(),
            output.to_str().unwrap(),
        ]);
        let theirs = output.metadata().unwrap().len();
        println!("{word}: {ours} bytes, qemu-img {theirs} bytes");
        assert!(ours * 100 <= theirs * 102, "{word}: {ours} bytes against {theirs}");
    }
}

fn the_checksum_is_that_of_the_file() {
    let Some(sha256sum) = program("sha256sum") else { return };
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.raw");
    std::fs::write(&input, disk(3 << 20, 1)).unwrap();
    let out = folder.path().join("out");
    let options = ConvertOptions { checksum: true, ..ConvertOptions::default() };
    let sum = convert(&*image(&input), &out, &options).unwrap().sha256.unwrap();
    let output = run(Command::new(sha256sum).arg(&out));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&sum));
}

fn progress_ends_at_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.raw");
    std::fs::write(&input, disk(9 << 20, 1)).unwrap();
    let seen = Mutex::new(Vec::new());
    let note = |p: ConvertProgress| seen.lock().unwrap().push(p);
    let options = ConvertOptions { progress: Some(&note), ..ConvertOptions::default() };
    convert(&*image(&input), &folder.path().join("out"), &options).unwrap();
    let last = *seen.lock().unwrap().last().unwrap();
    assert!(last.total > 0 && last.done == last.total, "{last:?}");
}

/// A disk whose reading fails behind a point, and one that changes under the conversion.
struct Failing {
    length: u64,
    good: u64,
}

impl DiskSource for Failing {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> winject::Result<()> {
        if offset.0 + buf.len() as u64 > self.good {
            return Err(Error::damaged(Layer::Block, "a broken sector").at(offset));
        }
        buf.fill(1);
        Ok(())
    }
    fn extent_at(&self, _offset: ImageOffset, limit: u64) -> winject::Result<Extent> {
        Ok(Extent { length: limit, kind: ExtentKind::Data })
    }
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

fn a_failure_leaves_nothing_behind() {
    for (_, options) in outputs() {
        for good in [0, 5 << 20, 19 << 20] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            std::fs::write(&out, b"old").unwrap();
            let options = ConvertOptions { overwrite: true, ..options.clone() };
            let error = convert(&Failing { length: 20 << 20, good }, &out, &options).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{error}");
            assert_eq!(std::fs::read(&out).unwrap(), b"old");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
        }
    }
}

fn a_source_that_does_not_pass_leaves_nothing_behind() {
    for (_, options) in outputs() {
        for patience in [0, 300] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            // early, while the workers work, or long after them
            let verify = || {
                std::thread::sleep(std::time::Duration::from_millis(patience));
                assert!(!out.exists(), "the output has its name before it is verified");
                Err(Error::new(Kind::Verify, Layer::Block, "no"))
            };
            let options = ConvertOptions { verify: Some(&verify), ..options.clone() };
            let source = Failing { length: 20 << 20, good: 20 << 20 };
            assert_eq!(convert(&source, &out, &options).unwrap_err().kind(), Kind::Verify);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left");
        }
    }
}

fn outputs_that_must_not_be() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.raw");
    std::fs::write(&input, disk(1 << 20, 1)).unwrap();
    let opened = image(&input);
    let default = ConvertOptions::default();
    let overwrite = ConvertOptions { overwrite: true, ..ConvertOptions::default() };
    let kind = |out: &Path, options: &ConvertOptions<'_>| convert(&*opened, out, options).unwrap_err().kind();
    assert_eq!(kind(&input, &overwrite), Kind::Usage, "the input itself");
    std::os::unix::fs::symlink(&input, folder.path().join("link")).unwrap();
    assert_eq!(kind(&folder.path().join("link"), &overwrite), Kind::Usage, "a link to the input");
    std::fs::write(folder.path().join("there"), b"x").unwrap();
    assert_eq!(kind(&folder.path().join("there"), &default), Kind::Usage);
    assert_eq!(kind(folder.path(), &overwrite), Kind::Usage, "a folder");
    assert_eq!(kind(&folder.path().join("no/such/folder"), &default), Kind::Usage);
    let out = folder.path().join("out");
    for wrong in [
        ConvertOptions { format: Format::Raw, compression: Some(Compression::Zlib), ..ConvertOptions::default() },
        ConvertOptions { cluster_bits: 8, ..ConvertOptions::default() },
        ConvertOptions { cluster_bits: 40, ..ConvertOptions::default() },
    ] {
        assert_eq!(kind(&out, &wrong), Kind::Usage);
    }
    let vmdk = ConvertOptions { format: Format::Vmdk, ..ConvertOptions::default() };
    assert_eq!(kind(&out, &vmdk), Kind::Unsupported);
    assert!(!out.exists());
}

fn empty_and_tiny_disks() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for size in [512usize, 1024, 65_536, 65_536 + 512] {
        let input = folder.path().join("in.raw");
        std::fs::write(&input, vec![0; size]).unwrap();
        for (name, options) in outputs() {
            let out = folder.path().join("out");
            let options = ConvertOptions { overwrite: true, ..options };
            let opened = open(&input, &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() }).unwrap();
            convert(&*opened, &out, &options).unwrap();
            judge(&out, &options, &vec![0; size], name);
        }
    }
}

fn the_command_converts_and_answers() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let content = disk(2 << 20, 6);
    std::fs::write(at("in.raw"), &content).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", &at("in.raw"), &at("in.vmdk")]);
    let winject = || assert_cmd::Command::cargo_bin("winject").unwrap();
    winject()
        .args(["convert", "-O", "qcow2", "--compress", "zstd", "--checksum", &at("in.vmdk"), &at("out.qcow2")])
        .assert()
        .success();
    assert_same(&read_qemu(&folder.path().join("out.qcow2"), "qcow2"), &content, "command");
    winject().args(["convert", &at("in.vmdk"), &at("out.qcow2")]).assert().code(2);
    winject().args(["convert", "-O", "vmdk", &at("in.vmdk"), &at("x")]).assert().code(2);
    winject().args(["convert", &at("missing"), &at("x.raw")]).assert().code(7);
    let check = winject().args(["image", "check", "--json", &at("out.qcow2")]).assert().success();
    let ours: serde_json::Value = serde_json::from_slice(&check.get_output().stdout).unwrap();
    let theirs: serde_json::Value =
        serde_json::from_str(&qemu_img(&["check", "--output=json", &at("out.qcow2")])).unwrap();
    for field in ["format", "check-errors", "total-clusters", "allocated-clusters", "compressed-clusters"] {
        assert_eq!(ours.get(field), theirs.get(field), "check: {field}");
    }
}

/// Fields of `image info --json` that qemu-img has too have its values.
/// What a map calls zeros, neighbours joined.
fn zeros_of(map: &serde_json::Value) -> Vec<std::ops::Range<usize>> {
    let number = |entry: &serde_json::Value, field: &str| entry[field].as_u64().unwrap() as usize;
    let mut out: Vec<std::ops::Range<usize>> = Vec::new();
    for entry in map.as_array().unwrap().iter().filter(|entry| entry["zero"] == true) {
        let start = number(entry, "start");
        let end = start + number(entry, "length");
        match out.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => out.push(start..end),
        }
    }
    out
}

fn info_and_map_agree_with_qemu() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // A hole at the end that is longer than any format's block.
    let mut content = disk(4 << 20, 8);
    content.resize(10 << 20, 0);
    std::fs::write(at("in.raw"), content).unwrap();
    let kinds = [
        ("qcow2", "compat=1.1,lazy_refcounts=on,refcount_bits=8"),
        ("qcow2", "compat=0.10,cluster_size=4096"),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vpc", "subformat=dynamic"),
        ("vhdx", "subformat=dynamic"),
        ("vdi", ""),
        ("raw", ""),
        ("vmdk", "subformat=monolithicSparse"),
        ("vpc", "subformat=fixed"),
        ("vhdx", "subformat=fixed"),
        ("vdi", "static=on"),
    ];
    for (i, (format, options)) in kinds.into_iter().enumerate() {
        let path = at(&format!("{i}.{format}"));
        let (input, options_flag) = (at("in.raw"), ["-o", options]);
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            arguments.extend(options_flag);
        }
        arguments.extend([input.as_str(), path.as_str()]);
        qemu_img(&arguments);
        let command = |what: &str| {
            let output = assert_cmd::Command::cargo_bin("winject")
                .unwrap()
                .args(["image", what, "--json", &path])
                .output()
                .unwrap();
            assert!(output.status.success(), "{format} {options}: {}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
        };
        let ours = command("info");
        let theirs: serde_json::Value =
            serde_json::from_str(&qemu_img(&["info", "--output=json", "-f", format, &path])).unwrap();
        for field in ["filename", "format", "virtual-size", "dirty-flag", "cluster-size"] {
            // `info` opens nothing that an image names: what the extents of a split disk hold is not asked.
            if field == "cluster-size" && options.contains("twoGb") {
                continue;
            }
            if let Some(value) = theirs.get(field) {
                assert_eq!(ours.get(field), Some(value), "{format} {options}: {field}");
            }
        }
        let specific =
            |info: &serde_json::Value, field: &str| info.pointer(&format!("/format-specific/data/{field}")).cloned();
        for field in [
            "compat",
            "refcount-bits",
            "lazy-refcounts",
            "corrupt",
            "extended-l2",
            "compression-type",
            "cid",
            "parent-cid",
            "create-type",
        ] {
            if let Some(value) = specific(&theirs, field) {
                assert_eq!(specific(&ours, field), Some(value), "{format} {options}: {field}");
            }
        }
        // The maps may divide differently; what reads as zeros must agree.
        let map = command("map")["ranges"].clone();
        let total: u64 = map.as_array().unwrap().iter().map(|e| e["length"].as_u64().unwrap()).sum();
        assert_eq!(Some(total), theirs["virtual-size"].as_u64(), "{format} {options}: the map covers the disk");
        let zeros = zeros_of(&map);
        let qemu: serde_json::Value =
            serde_json::from_str(&qemu_img(&["map", "--output=json", "-f", format, &path])).unwrap();
        // Of a VHDX QEMU says only that it is data.
        if format != "vhdx" {
            assert_eq!(zeros, zeros_of(&qemu), "{format} {options}: zeros in the map");
        }
        let content = std::fs::read(&input).unwrap();
        assert!(zeros.iter().any(|zero| zero.start < content.len()), "{format} {options}: no zeros at all");
        for zero in zeros {
            let part = &content[zero.start.min(content.len())..zero.end.min(content.len())];
            assert!(part.iter().all(|byte| *byte == 0), "{format} {options}: data called zeros in {zero:?}");
        }
        assert_cmd::Command::cargo_bin("winject").unwrap().args(["image", "info", &path]).assert().success();
        assert_cmd::Command::cargo_bin("winject").unwrap().args(["image", "check", &path]).assert().success();
    }
}

/// In place is refused for containers that cannot be written, and the error names the way out.
fn other_containers_are_never_written() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("in.raw"), disk(1 << 20, 8)).unwrap();
    for format in ["vmdk", "vpc", "vhdx", "vdi"] {
        let path = folder.path().join(format!("disk.{format}"));
        qemu_img(&["convert", "-f", "raw", "-O", format, &at("in.raw"), path.to_str().unwrap()]);
        let before = std::fs::read(&path).unwrap();
        let mut stage = Stage::new(image(&path), StageOptions::default());
        stage.write_at(ImageOffset(4096), &[1; 4096]).unwrap();
        let options = winject::internals::block::commit::CommitOptions::default();
        let error = winject::internals::block::commit::commit_in_place(&mut stage, &path, &options).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{format}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

tests![in injection;
    everything_to_everything, the_same_bytes_whatever_the_threads, staged_changes_are_merged_in_the_pass,
    holes_and_zeros_stay_holes, compressed_size_is_near_qemus, the_checksum_is_that_of_the_file,
    progress_ends_at_the_total, a_failure_leaves_nothing_behind, a_source_that_does_not_pass_leaves_nothing_behind,
    outputs_that_must_not_be, empty_and_tiny_disks, the_command_converts_and_answers, info_and_map_agree_with_qemu,
    other_containers_are_never_written,
];
