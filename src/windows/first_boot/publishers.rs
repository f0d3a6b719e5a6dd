//! Publishers that the guest would have to be asked about.
//!
//! Windows installs a package without a question only if Microsoft signed its catalogue or the guest trusts the publisher.
//! At the first boot the question is on a desktop that no person sees, so that `pnputil` waits until its time limit.

use std::collections::BTreeMap;

use crate::drivers::Selection;
use crate::drivers::trust::Publisher;
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::PlanBuilder;

/// Warns of packages that Windows will not install by itself.
pub(super) fn warn(builder: &mut PlanBuilder<'_>, selection: &Selection, options: &InjectOptions) {
    let trusted: Vec<String> = options
        .trusted_publishers
        .iter()
        .filter_map(|certificate| Publisher::parse(certificate, "--trust-publisher").ok())
        .map(|publisher| publisher.subject)
        .collect();
    // The packages of each signer, and the catalogue of the first one.
    let mut signers: BTreeMap<&str, (Vec<&str>, Option<String>)> = BTreeMap::new();
    for package in selection.packages.iter().filter(|p| !p.inf_name.is_empty() && !p.files.is_empty()) {
        let Some(signer) = package.signature.signer.as_deref() else { continue };
        if signer.starts_with("Microsoft ") || trusted.iter().any(|known| known == signer) {
            continue;
        }
        let catalogue = package.files.iter().find(|file| file.name.to_ascii_lowercase().ends_with(".cat"));
        let (names, path) = signers.entry(signer).or_default();
        names.push(&package.stage_name);
        *path = path.take().or_else(|| catalogue.map(|file| format!("{}/{}", package.source_path, file.name)));
    }
    for (signer, (names, path)) in signers {
        let path = path.unwrap_or_else(|| "CERTIFICATE".to_owned());
        let text = format!(
            "{} signed by {signer}, not by Microsoft: Windows asks before it installs them, and at the first boot nothing \
             answers; --trust-publisher '{path}' answers it, with the certificate in that catalogue (of an ISO image: copy \
             the file out first)",
            names.join(", ")
        );
        builder.add_warning(text);
    }
}
