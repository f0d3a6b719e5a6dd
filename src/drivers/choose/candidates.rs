//! Every INF of the sources, grouped by driver: the same driver for several Windows releases, CPUs, or found twice.

use std::sync::Arc;

use crate::drivers::package::Skipped;
use crate::drivers::source::{Layout, Source, Sources};
use crate::error::{Error, Kind, Layer, Result};

/// Most INFs of all sources together; a full virtio-win image has some three hundred.
const INFS_MAX: usize = 5000;

/// One INF on the media.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub source: Arc<Source>,
    /// Position of the source in the user's order.
    pub source_index: usize,
    /// Path of the INF below the source.
    pub path: String,
    /// Driver, release and CPU by the folder's path.
    pub layout: Layout,
}

impl Candidate {
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    pub fn inf_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The INF's name without its ending, in lower case.
    pub fn stem(&self) -> String {
        let name = self.inf_name().to_lowercase();
        name.strip_suffix(".inf").unwrap_or(&name).to_owned()
    }

    /// Path of the INF for messages.
    pub fn shown(&self) -> String {
        self.source.show(&self.path)
    }
}

/// The candidates of one driver.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The driver's folder on the media, or the INF's stem.
    pub driver: String,
    /// Name of the INF, in lower case.
    pub inf_name: String,
    pub candidates: Vec<Candidate>,
}

/// Finds all INFs. Packages that must not be installed go to `skipped`, with the reason.
pub(super) fn discover(sources: &Sources, skipped: &mut Vec<Skipped>) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut shared = Vec::new();
    let mut excluded: Vec<(String, &'static str, usize)> = Vec::new();
    let mut count = 0;
    for (source_index, source) in sources.iter().enumerate() {
        let has_fwcfg = source.files().iter().any(|file| file.name().eq_ignore_ascii_case("fwcfg.inf"));
        for file in source.files().iter().filter(|file| has_ending(file.name(), "inf")) {
            if let Some(reason) = harmful(&file.path, has_fwcfg) {
                match excluded.iter_mut().find(|(name, _, _)| name.eq_ignore_ascii_case(file.name())) {
                    Some((_, _, count)) => *count += 1,
                    None => excluded.push((file.name().to_owned(), reason, 1)),
                }
                continue;
            }
            count += 1;
            if count > INFS_MAX {
                return Err(Error::new(Kind::Drivers, Layer::Drivers, format!("there are more than {INFS_MAX} INFs"))
                    .path(sources.describe())
                    .hint("give a folder or an image with the drivers for this guest only"));
            }
            let layout = Layout::of(file.folder());
            let candidate = Candidate { source: Arc::clone(source), source_index, path: file.path.clone(), layout };
            match candidate.layout.driver.clone() {
                Some(driver) => add(&mut groups, &driver, candidate),
                None => shared.push(candidate),
            }
        }
    }
    for (name, reason, count) in excluded {
        skipped.push(Skipped { name, reason: format!("{reason} (found in {count} folders)") });
    }
    // folders of many drivers have no name of their own: their INFs belong to the driver that has an INF of that name
    for candidate in shared {
        let name = candidate.inf_name().to_lowercase();
        let driver = groups.iter().find(|g| g.inf_name == name).map(|g| g.driver.clone());
        let driver = driver.unwrap_or_else(|| candidate.stem());
        add(&mut groups, &driver, candidate);
    }
    Ok(groups)
}

fn add(groups: &mut Vec<Group>, driver: &str, candidate: Candidate) {
    let inf_name = candidate.inf_name().to_lowercase();
    match groups.iter_mut().find(|g| g.inf_name == inf_name && g.driver.eq_ignore_ascii_case(driver)) {
        Some(group) => group.candidates.push(candidate),
        None => groups.push(Group { driver: driver.to_owned(), inf_name, candidates: vec![candidate] }),
    }
}

/// Whether a file name has an ending, without regard to case.
pub(super) fn has_ending(name: &str, ending: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found.eq_ignore_ascii_case(ending))
}

/// Why a package would do harm, if it would.
fn harmful(path: &str, has_fwcfg: bool) -> Option<&'static str> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if folder.split('/').any(|part| part.eq_ignore_ascii_case("sriov")) {
        return Some("SR-IOV companions disturb the installation of the network driver");
    }
    if name.eq_ignore_ascii_case("vioprot.inf") {
        return Some("the vioprot protocol disturbs the installation of the network driver");
    }
    if name.eq_ignore_ascii_case("qemufwcfg.inf") && has_fwcfg {
        return Some("fwcfg.inf is there too and claims the same device");
    }
    None
}
