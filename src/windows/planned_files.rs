//! The guest's files as they are going to be when a plan is applied. Nothing is written for it.

use std::collections::HashMap;
use std::sync::Arc;

use super::guest_files::{GuestFiles, Protection};
use crate::error::{Error, Layer, Result};
use crate::ntfs::security::{Protected, inherited};
use crate::plan::{Access, Change, Content, Plan};

/// The files below, with the edits of a plan over them. Hives are as they were.
pub(crate) struct PlannedFiles<'a> {
    below: &'a dyn GuestFiles,
    /// By the lower-case path.
    planned: HashMap<String, Planned<'a>>,
    /// Names of files and folders that are new, by the lower-case path of their folder.
    new_names: HashMap<String, Vec<&'a str>>,
    /// Whether the plan removes any file or folder.
    removes: bool,
}

/// What a plan makes of a path.
enum Planned<'a> {
    Folder(&'a Access),
    /// The permissions are those of a new file.
    File(&'a Content, Option<&'a Access>),
    Protected,
    Gone,
}

impl<'a> PlannedFiles<'a> {
    /// The files `below` with the edits of `plan`, which was made for them.
    pub(crate) fn new(below: &'a dyn GuestFiles, plan: &'a Plan) -> Self {
        let mut files = Self { below, planned: HashMap::new(), new_names: HashMap::new(), removes: false };
        for step in plan.files() {
            let (path, planned) = match &step.change {
                Change::CreateDir { path, access } => (path, Planned::Folder(access)),
                Change::WriteFile { path, content, replaces, access } => {
                    (path, Planned::File(content, (!replaces).then_some(access)))
                }
                Change::Protect { path } => (path, Planned::Protected),
                Change::DeleteFile { path } => (path, Planned::Gone),
                _ => continue,
            };
            if let (Planned::Folder(_) | Planned::File(_, Some(_)), Some((folder, name))) =
                (&planned, path.rsplit_once('/'))
            {
                files.new_names.entry(folder.to_lowercase()).or_default().push(name);
            }
            files.removes |= matches!(planned, Planned::Gone);
            files.planned.insert(path.to_lowercase(), planned);
        }
        files
    }

    /// What the plan makes of a path; `None` if it stays as it is.
    fn of(&self, path: &str) -> Option<&Planned<'a>> {
        let path = path.trim_end_matches('/').to_lowercase();
        let own = self.planned.get(&path);
        if own.is_some() || !self.removes {
            return own;
        }
        // What lies in a folder that is removed goes with it.
        let above = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let folders = std::iter::successors(above(&path), |path| above(path));
        folders.filter_map(|folder| self.planned.get(&folder)).find(|planned| matches!(planned, Planned::Gone))
    }

    /// The content that the plan writes; the inner `None` for a folder or for nothing.
    fn content(&self, path: &str) -> Option<Option<&'a Content>> {
        match self.of(path)? {
            Planned::File(content, _) => Some(Some(content)),
            Planned::Folder(_) | Planned::Gone => Some(None),
            Planned::Protected => None,
        }
    }

    /// What a new file or folder inherits from its folder.
    fn inherited_protection(&self, path: &str, is_folder: bool) -> Result<Option<Protection>> {
        let folder = match path.trim_end_matches('/').rsplit_once('/') {
            None | Some(("", _)) => "/",
            Some((folder, _)) => folder,
        };
        let found = self.protection(folder)?.and_then(|found| found.descriptor);
        Ok(Some(Protection { descriptor: Some(inherited(found.as_deref(), is_folder)), is_link: false }))
    }

    /// Names in a folder: those `below` that stay, and the new ones of the kind that is asked for.
    fn names(&self, path: &str, below: Vec<String>, is_wanted: impl Fn(&Planned<'_>) -> bool) -> Vec<String> {
        let folder = path.trim_end_matches('/');
        let at = |name: &str| self.of(&format!("{folder}/{name}"));
        let mut names: Vec<String> =
            below.into_iter().filter(|name| !matches!(at(name), Some(Planned::Gone))).collect();
        let new = self.new_names.get(&folder.to_lowercase()).into_iter().flatten();
        names.extend(new.filter(|name| at(name).is_some_and(&is_wanted)).map(|name| (*name).to_owned()));
        names
    }
}

impl GuestFiles for PlannedFiles<'_> {
    fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.of(path) {
            Some(Planned::File(content, _)) => Ok(Some(content.size())),
            Some(Planned::Folder(_)) => Ok(Some(0)),
            Some(Planned::Gone) => Ok(None),
            Some(Planned::Protected) | None => self.below.size(path),
        }
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.content(path) {
            Some(Some(content)) if content.size() > limit => {
                Err(Error::refused(Layer::Windows, "the file is larger than one of its kind may be")
                    .path(path)
                    .expected_found(format_args!("at most {limit} bytes"), content.size())
                    .hint("leave it out of the driver media"))
            }
            Some(content) => content.map(|content| content.read().map(Arc::unwrap_or_clone)).transpose(),
            None => self.below.read(path, limit),
        }
    }

    fn sha256(&self, path: &str) -> Result<Option<[u8; 32]>> {
        match self.content(path) {
            Some(content) => Ok(content.map(Content::sha256_bytes)),
            None => self.below.sha256(path),
        }
    }

    fn head(&self, path: &str, length: usize) -> Result<Option<Vec<u8>>> {
        let Some(content) = self.content(path) else { return self.below.head(path, length) };
        let Some(content) = content else { return Ok(None) };
        let length = usize::try_from(content.size()).unwrap_or(usize::MAX).min(length);
        match content.held() {
            Ok(bytes) => Ok(Some(bytes.get(..length).unwrap_or(bytes).to_vec())),
            Err(media) => {
                let mut head = vec![0; length];
                media.read_at(0, &mut head)?;
                Ok(Some(head))
            }
        }
    }

    fn folders(&self, path: &str) -> Result<Vec<String>> {
        let below = self.below.folders(path)?;
        Ok(self.names(path, below, |planned| matches!(planned, Planned::Folder(_))))
    }

    fn file_names(&self, path: &str) -> Result<Vec<String>> {
        let below = self.below.file_names(path)?;
        Ok(self.names(path, below, |planned| matches!(planned, Planned::File(..))))
    }

    fn is_folder(&self, path: &str) -> Result<bool> {
        match self.of(path) {
            Some(Planned::Folder(_)) => Ok(true),
            Some(Planned::File(..) | Planned::Gone) => Ok(false),
            Some(Planned::Protected) | None => self.below.is_folder(path),
        }
    }

    fn protection(&self, path: &str) -> Result<Option<Protection>> {
        let kind = match self.of(path) {
            Some(Planned::Gone) => return Ok(None),
            Some(Planned::File(_, None)) | None => return self.below.protection(path),
            Some(Planned::Folder(Access::Like(sample)) | Planned::File(_, Some(Access::Like(sample)))) => {
                return self.below.protection(sample);
            }
            Some(Planned::Folder(Access::Inherited)) => return self.inherited_protection(path, true),
            Some(Planned::File(_, Some(Access::Inherited))) => return self.inherited_protection(path, false),
            Some(Planned::File(..)) => Protected::File,
            Some(Planned::Folder(_)) => kind_of_folder(path),
            Some(Planned::Protected) if self.below.is_folder(path)? => kind_of_folder(path),
            Some(Planned::Protected) => Protected::File,
        };
        Ok(Some(Protection { descriptor: Some(kind.descriptor()), is_link: false }))
    }

    fn free_space(&self) -> Option<u64> {
        self.below.free_space()
    }
}

fn kind_of_folder(path: &str) -> Protected {
    if path.rfind('/') == Some(0) { Protected::Top } else { Protected::Directory }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::FileTime;
    use crate::io::MemoryVolume;
    use crate::ntfs::{CreateOptions, OpenOptions, Volume};
    use crate::plan::{self, Step};

    const NOW: FileTime = FileTime(0x01DB_0000_0000_0000);
    const NAMES: [&str; 3] = ["Up", "down", "long name.txt"];

    /// A volume with files and folders under the names, up to two folders deep.
    fn volume() -> MemoryVolume {
        let packed = std::fs::File::open("test-images/ntfs/small.img.gz").unwrap();
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut image).unwrap();
        let mut volume = Volume::open(MemoryVolume(image), &OpenOptions::new(NOW)).unwrap();
        let options = CreateOptions::default();
        for (path, content) in
            [("/Up/down/Up", "one"), ("/Up/down/long name.txt", "two"), ("/Up/Up", "three"), ("/down", "four")]
        {
            let (folder, _) = path.rsplit_once('/').unwrap();
            volume.create_dir_all(folder, &options).unwrap();
            volume.replace_file(path, content.as_bytes(), &options).unwrap();
        }
        volume.create_dir_all("/long name.txt/Up", &options).unwrap();
        volume.flush().unwrap();
        volume.into_device()
    }

    fn paths() -> Vec<String> {
        let below = |folders: &[String]| -> Vec<String> {
            folders.iter().flat_map(|folder| NAMES.map(|name| format!("{folder}/{name}"))).collect()
        };
        let first = below(&[String::new()]);
        let second = below(&first);
        let third = below(&second);
        [first, second, third].concat()
    }

    /// Whether the plan makes something in this folder, or below it, that inherits its rights.
    fn has_heirs(plan: &Plan, folder: &str) -> bool {
        plan.steps.iter().any(|step| {
            let inherits = matches!(
                &step.change,
                Change::CreateDir { access: Access::Inherited, .. }
                    | Change::WriteFile { access: Access::Inherited, .. }
            );
            inherits && step.change.file().is_some_and(|path| path.starts_with(&format!("{folder}/")))
        })
    }

    /// A plan of those edits that are possible one after the other, each path once: kind, path, content.
    fn plan(files: &dyn GuestFiles, wanted: &[(u8, usize, u8)]) -> Plan {
        let paths = paths();
        // Whether there is a folder (`true`) or a file at a path, as the plan goes on.
        let kind = |path: &String| files.exists(path).unwrap().then(|| files.is_folder(path).unwrap());
        let mut there: BTreeMap<String, bool> =
            paths.iter().filter_map(|path| Some((path.clone(), kind(path)?))).collect();
        let mut touched = std::collections::HashSet::new();
        let mut plan = Plan::new("/Windows/System32/config");
        for (kind, index, byte) in wanted {
            let path = paths[index % paths.len()].clone();
            let folder = path.rsplit_once('/').unwrap().0.to_owned();
            let has_folder = folder.is_empty() || there.get(&folder) == Some(&true);
            let is_empty = !there.keys().any(|other| other.starts_with(&format!("{path}/")));
            let found = there.get(&path).copied();
            let access = if byte % 2 == 0 { Access::Protected } else { Access::Inherited };
            let change = match (kind % 4, found) {
                (0, None) if has_folder => Change::CreateDir { path: path.clone(), access },
                (1, None | Some(false)) if has_folder => {
                    let content = Content::new(vec![*byte; usize::from(*byte)]);
                    Change::WriteFile { path: path.clone(), content, replaces: found.is_some(), access }
                }
                (2, Some(false)) => Change::DeleteFile { path: path.clone() },
                (2, Some(true)) if is_empty => Change::DeleteFile { path: path.clone() },
                // What was made in the folder before has inherited what the folder had then.
                (3, Some(_)) if !has_heirs(&plan, &path) => Change::Protect { path: path.clone() },
                _ => continue,
            };
            if !touched.insert(path.clone()) {
                continue;
            }
            match &change {
                Change::CreateDir { .. } => drop(there.insert(path, true)),
                Change::WriteFile { .. } => drop(there.insert(path, false)),
                Change::DeleteFile { .. } => drop(there.remove(&path)),
                _ => {}
            }
            plan.steps.push(Step { change, reason: String::new() });
        }
        plan
    }

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort_unstable();
        names
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// They are what is there once the plan has been applied, whatever is asked and however it is spelled.
        #[test]
        fn are_the_files_after_the_plan(wanted in prop::collection::vec((0..4_u8, 0..39_usize, any::<u8>()), 0..40)) {
            let before = Volume::open(volume(), &OpenOptions::read_only()).unwrap();
            let plan = plan(&before, &wanted);
            let planned = PlannedFiles::new(&before, &plan);
            let mut after = Volume::open(volume(), &OpenOptions::new(NOW)).unwrap();
            plan::apply(&plan, &mut after, BTreeMap::new(), NOW).unwrap();
            let after: &dyn GuestFiles = &after;
            prop_assert_eq!(sorted(planned.folders("/").unwrap()), sorted(after.folders("/").unwrap()));
            for path in paths().into_iter().flat_map(|path| [path.to_uppercase(), path]) {
                prop_assert_eq!(planned.exists(&path).unwrap(), after.exists(&path).unwrap(), "{}", path);
                prop_assert_eq!(planned.size(&path).unwrap(), after.size(&path).unwrap(), "{}", path);
                prop_assert_eq!(planned.is_folder(&path).unwrap(), after.is_folder(&path).unwrap(), "{}", path);
                prop_assert_eq!(planned.protection(&path).unwrap(), after.protection(&path).unwrap(), "{}", path);
                if after.is_folder(&path).unwrap() {
                    prop_assert_eq!(sorted(planned.folders(&path).unwrap()), sorted(after.folders(&path).unwrap()));
                    let names = sorted(planned.file_names(&path).unwrap());
                    prop_assert_eq!(names, sorted(after.file_names(&path).unwrap()), "{}", path);
                } else {
                    prop_assert_eq!(planned.read(&path, 255).unwrap(), after.read(&path, 255).unwrap(), "{}", path);
                    prop_assert_eq!(planned.sha256(&path).unwrap(), after.sha256(&path).unwrap(), "{}", path);
                    prop_assert_eq!(planned.head(&path, 9).unwrap(), after.head(&path, 9).unwrap(), "{}", path);
                }
            }
        }
    }
}
