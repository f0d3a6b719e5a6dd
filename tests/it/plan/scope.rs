//! Every plan of winject can be saved: guests of all releases with real hives, in both forms of registration.

use std::path::Path;

use winject::internals::plan::saved::{PlanDocument, SavedEdit};
use winject::internals::windows::{InjectOptions, Registration};

use crate::inject::{succeed, winject};
use crate::windows::guests::{self, PRODUCTS};

/// The plan for a guest; `--packages-only` is not asked for, so that it also has to boot.
fn document(image: &Path, media: &Path, form: &str) -> PlanDocument {
    let mut command = winject();
    command.arg("plan").arg(image).arg("--drivers").arg(media).args(["--json", "--registration", form]);
    let output = succeed(command.args(["--signature-policy", "warn", "--rearm"]));
    let document = PlanDocument::parse(&output.stdout).unwrap();
    document.judge().unwrap();
    document
}

fn every_plan_can_be_saved() {
    let Some(media) = guests::media() else { return };
    for product in &PRODUCTS {
        let Some(made) = guests::guest(product) else { return };
        let disk = made.copy("saved");
        let mut verdict = None;
        for (form, registration) in [("minimal", Registration::Minimal), ("full", Registration::Full)] {
            let plan = document(&disk.path, &media, form);
            // What a plan says of the guest's start is what the boot check finds when the plan has been applied.
            assert!(verdict.is_none_or(|verdict| verdict == plan.verdict.before), "{} {form}", product.name);
            // Windows 7 has one form only: nothing is left for the second.
            let is_same_form = form == "full" && product.name == "w7";
            assert!(plan.steps.len() > 20 || is_same_form, "{} {form}: {}", product.name, plan.steps.len());
            // the next one removes what this one registered
            guests::inject(&disk, &media, &InjectOptions { registration, ..InjectOptions::default() });
            verdict = Some(plan.verdict.after);
        }
        let back = document(&disk.path, &media, "minimal");
        assert_eq!(verdict, Some(back.verdict.before.clone()), "{}", product.name);
        let removed = back
            .steps
            .iter()
            .filter(|step| matches!(&step.edit, SavedEdit::DeleteKey { before, .. } if !before.is_empty()));
        println!(
            "{}: {} edits back to the minimal form, {} keys removed",
            product.name,
            back.steps.len(),
            removed.count()
        );
        std::fs::remove_file(&disk.path).unwrap();
    }
}

tests![every_plan_can_be_saved];
