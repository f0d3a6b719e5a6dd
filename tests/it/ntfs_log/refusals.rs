//! Logs that are not replayed: nothing is written, and the message says why and what to do.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use super::made::{Unclean, ends, fixture_drivers, inject, sha256, stdout, succeed, unclean, winject};
use crate::inject::state::put;

fn refused(command: &mut Command, image: &Path, words: &[&str]) {
    let before = sha256(image);
    let text = ends(command, 3);
    for word in words {
        assert!(text.contains(word), "`{word}`: {text}");
    }
    assert_eq!(before, sha256(image));
}

/// Flips a byte in each block of the volume that begins with this signature.
fn damage(guest: &Unclean, signature: &[u8; 4]) {
    let file = File::options().read(true).write(true).open(&guest.image).unwrap();
    let (start, length) = (guest.volume.start, guest.volume.length);
    let mut page = [0; 4096];
    let mut found = 0;
    for at in (start..start + length).step_by(page.len()) {
        file.read_exact_at(&mut page, at).unwrap();
        if page.starts_with(signature) {
            page[0x40] ^= 0xFF;
            page[510] ^= 0xFF;
            file.write_all_at(&page, at).unwrap();
            found += 1;
        }
    }
    assert!(found > 0);
}

fn without_replay_an_open_log_is_refused_or_discarded() {
    let Some(guest) = unclean("--seed 5") else { return };
    let image = &guest.image;
    refused(
        &mut inject(image, &["--in-place", "--no-replay"]),
        image,
        &["unclean", "--no-replay", "--discard-ntfs-log"],
    );
    // discarding is for what cannot be replayed
    let text = stdout(&succeed(&mut inject(image, &["--in-place", "--discard-ntfs-log"])));
    assert!(text.contains("Done:"), "{text}");
    guest.judge(image);
    succeed(&mut inject(image, &["--in-place"]));
    let Some(Unclean { image, .. }) = &unclean("--seed 5") else { return };
    succeed(&mut inject(image, &["--in-place", "--no-replay", "--discard-ntfs-log", "--skip-volume-check"]));
    refused(&mut inject(image, &["--in-place"]), image, &["dirty"]);
}

fn a_torn_log_is_refused_with_its_reason() {
    for signature in [b"RSTR", b"RCRD"] {
        let Some(guest) = unclean("--seed 6 --version 2.0") else { return };
        damage(&guest, signature);
        let image = &guest.image;
        for mut command in [
            inject(image, &["--in-place"]),
            inject(image, &["--in-place", "--skip-volume-check"]),
            winject_replay(image),
        ] {
            refused(&mut command, image, &["$LogFile", "--discard-ntfs-log"]);
        }
        let mut show = winject();
        ends(show.args(["ntfs-log", "show"]).arg(image), 1);
    }
}

fn winject_replay(image: &Path) -> Command {
    let mut command = winject();
    command.args(["ntfs-log", "replay"]).arg(image).arg("--in-place");
    command
}

fn a_plan_for_another_log_is_stale() {
    let Some(guest) = unclean("--seed 7 --end lose") else { return };
    let image = &guest.image;
    let plan = guest.path("plan.json");
    let drivers = fixture_drivers();
    succeed(winject().arg("plan").arg(image).arg("--drivers").arg(&drivers).arg("-o").arg(&plan));
    let apply = |more: &[&str]| {
        let mut command = winject();
        command.arg("apply").arg(&plan).arg("--drivers").arg(&drivers).arg("--in-place").args(more);
        command
    };
    assert!(ends(&mut apply(&["--no-replay"]), 2).contains("leave out --no-replay"));
    succeed(&mut winject_replay(image));
    let before = sha256(image);
    assert!(ends(&mut apply(&[]), 9).contains("stale"));
    assert_eq!(before, sha256(image));
}

fn a_hibernated_guest_is_refused_and_replayed_without_its_session() {
    let mut session = vec![0u8; 64 << 10];
    session[..4].copy_from_slice(b"HIBR");
    let hibernate = |image: &Path| put(image, "/hiberfil.sys", &session);
    let Some(guest) = super::made::unclean_of("--seed 8 --version 2.0", hibernate) else { return };
    let image = &guest.image;
    refused(&mut inject(image, &["--in-place"]), image, &["hibernated", "--discard-hibernation"]);
    refused(&mut winject_replay(image), image, &["hibernated"]);
    succeed(&mut inject(image, &["--in-place", "--discard-hibernation"]));
    guest.judge(image);
    // the volume is not marked: a second run needs no option
    assert!(stdout(&succeed(&mut inject(image, &["--in-place"]))).contains("Unchanged:"));
}

tests![
    without_replay_an_open_log_is_refused_or_discarded,
    a_torn_log_is_refused_with_its_reason,
    a_plan_for_another_log_is_stale,
    a_hibernated_guest_is_refused_and_replayed_without_its_session,
];
