//! The manifest in the guest as input: read, judged, and indexed.
//!
//! It is as untrustworthy as a saved plan: it counts only where no user of the guest but its administrators can have
//! written it, and only if every place in it is one that winject writes to.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorCode, Layer, Result};
use crate::hex;
use crate::hive::{Hive, KeyId, RegistryData};
use crate::plan::GuestHive;
use crate::plan::saved::{Scope, judge_key, judge_path, judge_upload_path, judge_value};
use crate::upcase::Fold;
use crate::windows::earlier_boot::EarlierBoot;
use crate::windows::guest_paths::{FIRSTBOOT_SCRIPTS, GUEST_AGENT, JOB_PROGRAMS, MANIFEST, SETUP, STAGE, TOP};
use crate::windows::plan_builder::{PlanBuilder, ReplacedValue};
use crate::windows::staging::manifest::{BYTES_MAX, Manifest, ManifestPackage, ManifestReplaced, SCHEMA};

/// Most keys of the guest that are compared with those of one driver.
const COMPARED_KEYS_MAX: usize = 20_000;

/// A file that winject wrote.
#[derive(Debug, Clone)]
pub(crate) struct ListedFile {
    pub path: String,
    pub sha256: [u8; 32],
}

/// A registry value that winject wrote, or found as it wanted it.
#[derive(Debug, Clone)]
pub(super) struct ListedValue {
    pub hive: GuestHive,
    pub key: String,
    pub name: String,
    pub data: RegistryData,
}

/// What the manifest lists.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub files: Vec<ListedFile>,
    /// Files of the user that winject put outside of its own places.
    pub uploads: Vec<ListedFile>,
    /// Folders that were made for them.
    pub upload_folders: Vec<String>,
    pub(super) values: Vec<ListedValue>,
    /// Keys that winject removed if they were there.
    pub(super) removed_keys: Vec<(GuestHive, String)>,
    /// Packages in `DriverDatabase`, as they are listed: for people, nothing is decided by them.
    pub packages: Vec<ManifestPackage>,
    /// Edits of the boot volume.
    pub boot: EarlierBoot,
    /// Values of the guest's own that winject replaced, with what they were.
    pub replaced: Vec<ReplacedValue>,
    /// Index of a file by its path in lower case.
    paths: BTreeMap<String, usize>,
    /// Indexes of the values of a key in lower case, by their names in lower case.
    keys: BTreeMap<(GuestHive, String), BTreeMap<String, usize>>,
}

/// The values below a key: the rest of the key in lower case (empty for the key itself) and the values' indexes by name.
pub(super) type Subtree = BTreeMap<String, BTreeMap<String, usize>>;

/// Reads the manifest of the guest; `None` if it has none.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when other users of the guest can have written it, or it is not one of
/// winject's; when the volume is damaged there.
pub(crate) fn read(builder: &PlanBuilder<'_>) -> Result<Option<Listed>> {
    if !builder.exists(MANIFEST)? {
        return Ok(None);
    }
    if !builder.is_protected_file(MANIFEST)? {
        let what = "cannot use the manifest: it is not protected as winject protects it, so that any user of the guest \
                    can have written it";
        return Err(Error::refused(Layer::Windows, what).with_code(ErrorCode::ManifestUnusable).path(MANIFEST).hint(
            "winject inject IMAGE --drivers MEDIA --in-place protects the folder and writes the manifest anew; then remove",
        ));
    }
    let bytes = builder.read_small_file(MANIFEST, BYTES_MAX)?.unwrap_or_default();
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| unusable(&error.to_string()))?;
    Listed::judge(manifest, &builder.guest.windows_dir).map(Some)
}

fn unusable(why: &str) -> Error {
    Error::refused(Layer::Windows, format!("cannot use the manifest: {why}"))
        .with_code(ErrorCode::ManifestUnusable)
        .path(MANIFEST)
        .hint(
            "winject does not write such a manifest: find out who changed it; winject inject IMAGE --drivers MEDIA \
         --in-place writes it anew",
        )
}

impl Listed {
    /// Takes what the manifest lists, if winject can have written it.
    pub(super) fn judge(manifest: Manifest, windows_dir: &str) -> Result<Self> {
        if manifest.schema != SCHEMA {
            return Err(unusable("another version of winject wrote it"));
        }
        if manifest.is_too_long() {
            return Err(unusable("it lists more than winject writes"));
        }
        let boot = EarlierBoot::judge(manifest.boot).map_err(|why| unusable(&format!("boot volume: {why}")))?;
        let scope = Scope::new(windows_dir);
        let mut out = Self { boot, packages: manifest.driver_database, ..Self::default() };
        for file in manifest.files {
            let wrong = |why: &str| unusable(&format!("{}: {why}", file.path));
            judge_path(&file.path).map_err(|why| wrong(&why))?;
            let sha256: [u8; 32] = hex::decode_array(&file.sha256).ok_or_else(|| wrong("not a SHA-256"))?;
            if !scope.allows_file(&file.path) || !is_own_kind(&file.path.folded()) {
                return Err(wrong("winject writes no such file"));
            }
            match out.paths.get(&file.path.folded()).and_then(|at| out.files.get(*at)) {
                Some(known) if known.sha256 != sha256 => return Err(wrong("listed with two contents")),
                Some(_) => {}
                None => {
                    out.paths.insert(file.path.folded(), out.files.len());
                    out.files.push(ListedFile { path: file.path, sha256 });
                }
            }
        }
        for file in manifest.uploads {
            let wrong = |why: &str| unusable(&format!("{}: {why}", file.path));
            judge_upload_path(&file.path, windows_dir).map_err(|why| wrong(&why))?;
            let sha256 = hex::decode_array(&file.sha256).ok_or_else(|| wrong("not a SHA-256"))?;
            out.uploads.push(ListedFile { path: file.path, sha256 });
        }
        for path in manifest.upload_folders {
            judge_upload_path(&path, windows_dir).map_err(|why| unusable(&format!("{path}: {why}")))?;
            out.upload_folders.push(path);
        }
        for value in manifest.registry {
            let place = format!("{} : {}", value.key, value.name);
            let wrong = |why: &str| unusable(&format!("{place}: {why}"));
            let (hive, key) = split_hive(&value.key).ok_or_else(|| wrong("no such hive"))?;
            judge_key(key)
                .and_then(|()| judge_value(&value.name, [Some(&value.data), None]))
                .map_err(|why| wrong(&why))?;
            if !Scope::allows_value(hive, key, &value.name) {
                return Err(wrong("winject writes no such value"));
            }
            let values = out.keys.entry((hive, key.folded())).or_default();
            if values.insert(value.name.folded(), out.values.len()).is_some() {
                return Err(wrong("listed twice"));
            }
            out.values.push(ListedValue { hive, key: key.to_owned(), name: value.name, data: value.data });
        }
        for place in manifest.removed_keys {
            let wrong = |why: &str| unusable(&format!("{place}: {why}"));
            let (hive, key) = split_hive(&place).ok_or_else(|| wrong("no such hive"))?;
            judge_key(key).map_err(|why| wrong(&why))?;
            if !Scope::allows_removed_key(hive, key) {
                return Err(wrong("winject removes no such key"));
            }
            out.removed_keys.push((hive, key.to_owned()));
        }
        out.replaced = judge_replaced(manifest.replaced)?;
        Ok(out)
    }

    /// The index of a file.
    pub(super) fn file(&self, path: &str) -> Option<usize> {
        self.paths.get(&path.folded()).copied()
    }

    /// The files in or below a folder, with their indexes.
    pub(crate) fn files_below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (usize, &'a ListedFile)> + use<'a> {
        let folder = format!("{}/", folder.folded());
        self.files.iter().enumerate().filter(move |(_, file)| file.path.folded().starts_with(&folder))
    }

    /// The files in winject's own folder, with their indexes.
    pub(super) fn own_files(&self) -> impl Iterator<Item = (usize, &ListedFile)> {
        self.files_below(TOP)
    }

    /// The data of a value.
    pub(super) fn data(&self, index: usize) -> Option<&RegistryData> {
        self.values.get(index).map(|value| &value.data)
    }

    /// The index of a value.
    pub(super) fn value(&self, hive: GuestHive, key: &str, name: &str) -> Option<usize> {
        self.keys.get(&(hive, key.folded()))?.get(&name.folded()).copied()
    }

    /// All values of a key and below it.
    pub(super) fn subtree(&self, hive: GuestHive, key: &str) -> Subtree {
        let key = key.folded();
        let below = format!("{key}\\");
        let mut out = Subtree::new();
        // The key itself and the keys below it need not follow each other directly: `A`, `A-B`, `A\C`.
        if let Some(values) = self.keys.get(&(hive, key)) {
            out.insert(String::new(), values.clone());
        }
        let first = (hive, below.clone());
        let in_order = self.keys.range(first..).map_while(|((at, key), values)| {
            (*at == hive).then_some(())?;
            Some((key.strip_prefix(&below)?, values))
        });
        out.extend(in_order.map(|(rest, values)| (rest.to_owned(), values.clone())));
        out
    }

    /// What is listed for this part of a control set. Windows makes copies of control sets: one that is not listed is
    /// compared with the first that is.
    pub(super) fn subtree_of_set(&self, set: &str, rest: &str) -> Subtree {
        let own = self.subtree(GuestHive::System, &format!("{set}\\{rest}"));
        if !own.is_empty() {
            return own;
        }
        let listed =
            self.control_sets().into_iter().map(|set| self.subtree(GuestHive::System, &format!("{set}\\{rest}")));
        listed.into_iter().find(|subtree| !subtree.is_empty()).unwrap_or_default()
    }

    /// The control sets that are listed, in lower case.
    pub(super) fn control_sets(&self) -> BTreeSet<&str> {
        let keys = self.keys.keys().filter(|(hive, _)| *hive == GuestHive::System);
        keys.filter_map(|(_, key)| key.split_once('\\'))
            .map(|(set, _)| set)
            .filter(|set| set.starts_with("controlset"))
            .collect()
    }

    /// How a key of the guest differs from what is listed; `None` if it holds exactly that. Keys without values are no
    /// difference.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub(super) fn difference(&self, hive: &Hive, key: KeyId, subtree: &Subtree) -> Result<Option<String>> {
        let shown = |rest: &str, name: &str| match rest {
            "" => name.to_owned(),
            rest => format!("{rest}\\{name}"),
        };
        let mut seen = 0;
        let mut count = 0;
        let mut pending = vec![(key, String::new())];
        while let Some((key, rest)) = pending.pop() {
            count += 1;
            if count > COMPARED_KEYS_MAX {
                return Ok(Some("it holds far more than winject writes".to_owned()));
            }
            let listed = subtree.get(&rest);
            for value in hive.values(key)? {
                let name = value.name.to_string();
                match listed.and_then(|listed| listed.get(&name.folded())).and_then(|at| self.data(*at)) {
                    Some(data) if *data == value.data => seen += 1,
                    Some(_) => return Ok(Some(format!("its {} has another content", shown(&rest, &name)))),
                    None => return Ok(Some(format!("winject did not write its {}", shown(&rest, &name)))),
                }
            }
            for sub in hive.subkeys(key)? {
                let name = hive.key_name(sub)?.to_string().folded();
                pending.push((sub, if rest.is_empty() { name } else { format!("{rest}\\{name}") }));
            }
        }
        let expected: usize = subtree.values().map(BTreeMap::len).sum();
        Ok((seen != expected).then(|| "a value that winject wrote is gone".to_owned()))
    }
}

/// The values that winject replaced, each in a place where it does so.
fn judge_replaced(listed: Vec<ManifestReplaced>) -> Result<Vec<ReplacedValue>> {
    let mut places = BTreeSet::new();
    let mut out = Vec::new();
    for ManifestReplaced { key: place, name, data, before } in listed {
        let wrong = |why: &str| unusable(&format!("{place} : {name}: {why}"));
        let (hive, key) = split_hive(&place).ok_or_else(|| wrong("no such hive"))?;
        judge_key(key)
            .and_then(|()| judge_value(&name, [data.as_ref(), before.as_ref()]))
            .map_err(|why| wrong(&why))?;
        if !Scope::allows_replaced(hive, key, &name, data.as_ref(), before.as_ref()) {
            return Err(wrong("winject replaces no such value"));
        }
        if !places.insert((hive, key.folded(), name.folded())) {
            return Err(wrong("listed twice"));
        }
        out.push(ReplacedValue { hive, key: key.to_owned(), name, data, before });
    }
    Ok(out)
}

/// Whether a path in lower case, if it is in winject's own folder, is that of a file that winject writes there.
fn is_own_kind(path: &str) -> bool {
    let below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    let is_of_user = below(FIRSTBOOT_SCRIPTS) || below(GUEST_AGENT);
    !below(TOP) || below(STAGE) || is_of_user || path == SETUP || JOB_PROGRAMS.contains(&path)
}

/// Hive and key of `HIVE\KEY`.
fn split_hive(place: &str) -> Option<(GuestHive, &str)> {
    let (hive, key) = place.split_once('\\')?;
    GuestHive::ALL.into_iter().find(|file| file.file_name() == hive).map(|file| (file, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::saved::UPLOADS_MAX;
    use crate::windows::staging::manifest::{ManifestBoot, ManifestFile, ManifestValue};

    fn empty() -> Manifest {
        Manifest {
            schema: SCHEMA.to_owned(),
            tool: "winject".to_owned(),
            version: "0".to_owned(),
            files: Vec::new(),
            uploads: Vec::new(),
            upload_folders: Vec::new(),
            registry: Vec::new(),
            removed_keys: Vec::new(),
            driver_database: Vec::new(),
            boot: ManifestBoot::default(),
            replaced: Vec::new(),
            refused_infs: Vec::new(),
        }
    }

    fn with_file(path: &str, sha256: &str) -> Manifest {
        Manifest { files: vec![ManifestFile { path: path.to_owned(), sha256: sha256.to_owned() }], ..empty() }
    }

    fn with_value(key: &str, name: &str) -> ManifestValue {
        ManifestValue { key: key.to_owned(), name: name.to_owned(), data: RegistryData::dword(1) }
    }

    #[test]
    fn only_places_that_winject_writes_to_are_taken() {
        let hash = "00".repeat(32);
        let judge = |manifest| Listed::judge(manifest, "/Windows");
        for path in ["/hyper2kvm/setup.cmd", "/Windows/System32/drivers/viostor.sys", "/Windows/INF/oem3.inf"] {
            assert!(judge(with_file(path, &hash)).is_ok(), "{path}");
        }
        for path in [
            "/Windows/System32/ntoskrnl.exe",
            "/Windows/System32/drivers/../ntoskrnl.exe",
            "/hyper2kvm/../Windows/explorer.exe",
            "/hyper2kvm/x:stream",
            "/hyper2kvm",
            "/hyper2kvm/manifest.json",
            "/hyper2kvm/notes.txt",
            "/Windows/INF/disk.inf",
            "relative",
            "/$MFT",
        ] {
            assert!(judge(with_file(path, &hash)).is_err(), "{path}");
        }
        assert!(judge(with_file("/hyper2kvm/setup.cmd", "00")).is_err());
        for (key, name, is_right) in [
            ("SYSTEM\\ControlSet001\\Services\\viostor", "Start", true),
            ("SYSTEM\\ControlSet001\\Control\\Session Manager", "BootExecute", false),
            ("SOFTWARE\\Microsoft\\Windows\\CurrentVersion", "DevicePath", true),
            ("SOFTWARE\\Microsoft\\Windows\\CurrentVersion", "ProgramFilesDir", false),
            ("SAM\\SAM", "C", false),
            ("SYSTEM", "C", false),
        ] {
            let manifest = Manifest { registry: vec![with_value(key, name)], ..empty() };
            assert_eq!(judge(manifest).is_ok(), is_right, "{key}:{name}");
        }
        let removed = |key: &str| Manifest { removed_keys: vec![key.to_owned()], ..empty() };
        assert!(judge(removed("SYSTEM\\ControlSet001\\Services\\pci\\StartOverride")).is_ok());
        assert!(judge(removed("SYSTEM\\ControlSet001\\Services\\pci")).is_err());
    }

    #[test]
    fn uploads_lie_outside_of_the_places_of_windows_and_winject() {
        let file = |path: &str| ManifestFile { path: path.to_owned(), sha256: "00".repeat(32) };
        let judge = |path: &str, is_folder: bool| {
            let (uploads, upload_folders) =
                if is_folder { (Vec::new(), vec![path.to_owned()]) } else { (vec![file(path)], Vec::new()) };
            Listed::judge(Manifest { uploads, upload_folders, ..empty() }, "/Windows").is_ok()
        };
        for is_folder in [false, true] {
            for path in ["/Tools", "/Users/x/y.txt"] {
                assert!(judge(path, is_folder), "{path}");
            }
            for path in
                ["/Windows", "/Windows/explorer.exe", "/hyper2kvm", "/bootmgr", "/a/../Windows", "/HYPER2~1", "x", "/"]
            {
                assert!(!judge(path, is_folder), "{path}");
            }
        }
        let many = vec![file("/x"); UPLOADS_MAX + 1];
        assert!(Listed::judge(Manifest { uploads: many, ..empty() }, "/Windows").is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        let mut manifest = with_file("/hyper2kvm/drivers/virtio/a", &"00".repeat(32));
        manifest.files.push(ManifestFile { path: "/HYPER2KVM/drivers/virtio/A".to_owned(), sha256: "00".repeat(32) });
        assert_eq!(Listed::judge(manifest.clone(), "/Windows").unwrap().files.len(), 1);
        manifest.files.push(ManifestFile { path: "/hyper2kvm/drivers/virtio/A".to_owned(), sha256: "11".repeat(32) });
        assert!(Listed::judge(manifest, "/Windows").is_err());
        let key = "SYSTEM\\ControlSet001\\Services\\viostor";
        let registry = vec![with_value(key, "Start"), with_value(&key.replace("viostor", "VIOSTOR"), "START")];
        assert!(Listed::judge(Manifest { registry, ..empty() }, "/Windows").is_err());
    }

    #[test]
    fn a_subtree_is_whole_and_has_no_neighbours() {
        let keys = ["a", "a-b", "a\\Parameters", "a\\Parameters\\PnP", "aa", "b"];
        let registry =
            keys.iter().map(|key| with_value(&format!("SYSTEM\\ControlSet001\\Services\\{key}"), "Start")).collect();
        let listed = Listed::judge(Manifest { registry, ..empty() }, "/Windows").unwrap();
        let subtree = listed.subtree(GuestHive::System, "controlset001\\services\\A");
        assert_eq!(subtree.keys().collect::<Vec<_>>(), ["", "parameters", "parameters\\pnp"]);
        assert_eq!(listed.subtree_of_set("ControlSet007", "Services\\a"), subtree);
        assert!(listed.subtree_of_set("ControlSet007", "Services\\c").is_empty());
    }
}
