//! Commands that only read: they see the replayed guest, and leave the image as it is.

use super::made::{Unclean, ends, fixture_drivers, inject, sha256, unclean, winject};

fn questions_see_the_replayed_volume_and_write_nothing() {
    let Some(Unclean { image, folder, .. }) = unclean("--seed 2 --version 2.0 --end lose") else { return };
    let before = sha256(&image);
    let ask = |words: &str, code: i32| {
        let mut words = words.split(' ').map(|word| if word == "IMAGE" { image.to_str().unwrap() } else { word });
        let mut command = winject();
        command.args(&mut words);
        ends(&mut command, code)
    };
    let text = ask("inspect IMAGE", 0);
    assert!(text.contains("NTFS log: open, version 2.0: "), "{text}");
    assert!(text.contains("State:     not shut down cleanly; an edit replays the NTFS log first"), "{text}");
    let inspected: serde_json::Value = serde_json::from_str(&ask("inspect IMAGE --json", 0)).unwrap();
    let log = &inspected["disks"][0]["windows"][0]["ntfs_log"];
    assert_eq!((log["state"].as_str(), log["version"].as_str()), (Some("pending"), Some("2.0")));
    assert!(log["records"].as_u64().unwrap() > 0 && log["open_transactions"] == 1, "{log}");
    assert!(ask("fsck IMAGE", 1).contains("checked as it is after the replay of its NTFS log"));
    assert!(ask("fsck IMAGE --no-replay", 1).contains("A4"));
    let shown: serde_json::Value = serde_json::from_str(&ask("ntfs-log show IMAGE --json", 1)).unwrap();
    let transactions = shown["volumes"].as_array().unwrap().iter().flat_map(|v| v["transactions"].as_array()).flatten();
    assert!(transactions.filter(|transaction| transaction["finished"] == false).count() == 1, "{shown}");
    ask(r"reg query IMAGE HKLM\SYSTEM\Select", 0);
    ask("check IMAGE", 1);
    ask("ntfs-log replay IMAGE --dry-run", 0);
    let report = folder.path().join("r.json");
    let text = ends(inject(&image, &["--dry-run", "--report"]).arg(&report), 0);
    assert!(text.contains("Dry run:"), "{text}");
    assert!(std::fs::read_to_string(&report).unwrap().contains("\"log_replay\""));
    let mut list = winject();
    ends(list.args(["drivers", "list"]).arg(fixture_drivers()).arg("--for").arg(&image), 0);
    assert_eq!(before, sha256(&image));
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["clean.vol", "open.vol", "open.vol.want", "r.json", "win10.raw"]);
}

tests![questions_see_the_replayed_volume_and_write_nothing];
