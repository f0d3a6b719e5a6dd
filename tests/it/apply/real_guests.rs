//! Guests of all releases with real hives: a saved plan makes of them what an injection makes, and undo takes it back.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::fail;
use crate::inject::{sha256, succeed, winject};
use crate::support;
use crate::windows::guests::{self, Disk, PRODUCTS, Product};

/// What is chosen for a guest, whether it is injected or planned.
struct Choice {
    media: PathBuf,
    form: &'static str,
}

impl Choice {
    fn add(&self, command: &mut Command) {
        // The stand-in media carry noise in place of signatures.
        command.arg("--drivers").arg(&self.media).args(["--signature-policy", "warn", "--registration", self.form]);
    }

    fn plan(&self, image: &Path, more: &[&str]) -> Command {
        let mut command = winject();
        command.arg("plan").arg(image).args(more);
        self.add(&mut command);
        command
    }

    /// Plans and applies, injects, compares, and takes it back.
    fn require_the_same(&self, what: &str, made: &Disk) {
        let images = ["injected", "applied"].map(|name| made.copy(&format!("{name}-{}", self.form)).path);
        let [injected, applied] = &images;
        let old = sha256(applied);
        let mut inject = winject();
        inject.arg("inject").arg(injected).args(["--in-place", "--no-undo"]);
        self.add(&mut inject);
        succeed(&mut inject);

        let saved = applied.with_extension("json");
        let save = ["--overwrite", "-q", "-o", saved.to_str().unwrap()];
        succeed(&mut self.plan(applied, &save));
        let text = std::fs::read(&saved).unwrap();
        assert_eq!(sha256(applied), old, "{what}: a plan writes nothing");
        let mut apply = winject();
        apply.arg("apply").arg(&saved).arg("--in-place").arg("--image").arg(applied).arg("--drivers").arg(&self.media);
        succeed(&mut apply);
        assert_eq!(sha256(injected), sha256(applied), "{what}");
        let said = fail(&mut apply, 9);
        assert!(said.contains("the plan has been applied already"), "{what}: {said}");
        succeed(&mut self.plan(applied, &["--check", "-q"]));

        succeed(winject().arg("undo").arg(applied));
        assert_eq!(sha256(applied), old, "{what}: undone");
        succeed(&mut self.plan(applied, &save));
        assert!(std::fs::read(&saved).unwrap() == text, "{what}: the plan for the image that was undone");
        images.iter().chain([&saved]).for_each(|path| std::fs::remove_file(path).unwrap());
    }
}

/// A few of the combinations; all of them in a campaign.
fn a_plan_makes_of_a_real_guest_what_an_injection_makes() {
    let Some(media) = guests::media() else { return };
    let all = PRODUCTS.iter().flat_map(|product| ["minimal", "full"].map(|form| (product, form)));
    let all: Vec<(&Product, &str)> = all.collect();
    // A step of seven meets all releases and both forms.
    let count = usize::try_from(support::rounds(2, 3)).unwrap().min(all.len());
    for (product, form) in (0..count).map(|index| all[index * 7 % all.len()]) {
        let Some(made) = guests::guest(product) else { return };
        let choice = Choice { media: media.clone(), form };
        choice.require_the_same(&format!("{} {form}", product.name), &made);
    }
}

tests![a_plan_makes_of_a_real_guest_what_an_injection_makes];
