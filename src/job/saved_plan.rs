//! A saved plan in its file, and what belongs to the file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Layer, Result};
use crate::escape::{escape, shell_argument};
use crate::host;
use crate::plan::saved::{PLAN_BYTES_MAX, PlanDocument, SavedEdit, Sha256Sum};
use crate::windows::is_foreign_program;

/// A plan that was read from a file and judged: it says nothing impossible, and touches nothing that winject does not.
/// Whether it fits an image, [`apply`](super::apply()) finds out.
#[derive(Debug, Clone)]
pub struct SavedPlan {
    path: PathBuf,
    document: PlanDocument,
    sha256: Sha256Sum,
}

impl SavedPlan {
    /// Reads a plan.
    ///
    /// # Errors
    /// [`Kind::Io`] when the file cannot be read; [`Kind::Usage`] when it is not as `winject plan` wrote it.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = host::read(path, PLAN_BYTES_MAX)
            .map_err(|error| error.into_error("the plan", path, Layer::Job))
            .map_err(|error| error.hint("name a file that winject plan has written"))?;
        let read = || {
            let document = PlanDocument::parse(&bytes)?;
            document.judge()?;
            judge_program(&document)?;
            Ok(document)
        };
        let document = read().map_err(|error: Error| error.within(path.display()))?;
        Ok(Self { path: path.to_owned(), document, sha256: Sha256Sum::of(&bytes) })
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    #[must_use]
    pub fn document(&self) -> &PlanDocument {
        &self.document
    }

    /// SHA-256 of its file, in hexadecimal: what a signature of the plan stands for.
    #[must_use]
    pub fn sha256(&self) -> String {
        self.sha256.to_string()
    }

    /// The disks that it was made for, the one with Windows first: the files of their names in the folder of the plan.
    ///
    /// # Errors
    /// [`Kind::Usage`] when there is no such file.
    pub fn disks_in_its_folder(&self) -> Result<Vec<PathBuf>> {
        let others = self.document.others.iter().map(|other| &other.name);
        let names: Vec<&Option<String>> = std::iter::once(&self.document.image).chain(others).collect();
        for (index, name) in names.iter().enumerate() {
            if let Some(name) = name
                && names.iter().take(index).any(|other| other.as_ref() == Some(name))
            {
                let what =
                    format!("cannot find the plan's disks in the folder of the plan: two are called {}", escape(name));
                return Err(self.unnamed_disks(what, "name all of them"));
            }
        }
        names.into_iter().map(|name| self.find_in_its_folder(name.as_deref())).collect()
    }

    fn unnamed_disks(&self, what: String, advice: &str) -> Error {
        let images = " --image IMAGE".repeat(1 + self.document.others.len());
        let plan = shell_argument(&self.path, "PLAN.json");
        Error::new(Kind::Usage, Layer::Job, what)
            .path(self.path.display().to_string())
            .hint(format!("{advice}: winject apply {plan}{images}"))
    }

    fn find_in_its_folder(&self, name: Option<&str>) -> Result<PathBuf> {
        // The name comes from outside: it must not lead to another folder.
        let name = name.map(OsStr::new);
        let name = name.filter(|name| Path::new(name).file_name() == Some(name));
        let path = name.map(|name| self.path.with_file_name(name)).filter(|path| path.exists());
        path.ok_or_else(|| {
            let what = match name {
                Some(name) => format!("cannot find the plan's image {} in the folder of the plan", name.display()),
                None => "the plan does not name its image".to_owned(),
            };
            self.unnamed_disks(what, "name the image")
        })
    }

    /// The folder of the plan's bundle, if there is one.
    #[must_use]
    pub fn bundle_if_any(&self) -> Option<PathBuf> {
        let folder = bundle_of(&self.path);
        folder.is_dir().then_some(folder)
    }
}

/// A plan puts no other program in the place of winject's own, which the guest runs as the system: people cannot review
/// one.
fn judge_program(document: &PlanDocument) -> Result<()> {
    let is_foreign = |edit: &SavedEdit| match edit {
        SavedEdit::WriteFile { path, sha256, .. } => is_foreign_program(path, &sha256.0),
        _ => false,
    };
    match document.steps.iter().find(|step| is_foreign(&step.edit)).and_then(|step| step.edit.path()) {
        None => Ok(()),
        Some(path) => Err(Error::new(
            Kind::Usage,
            Layer::Job,
            "cannot use the plan: the service program in it is not that of this winject",
        )
        .path(path)
        .hint("make the plan again with this winject, or apply it with the winject that made it")),
    }
}

/// The folder of the files that belong to a plan: `PLAN.files` for `PLAN.json`.
#[must_use]
pub fn bundle_of(plan: &Path) -> PathBuf {
    plan.with_extension("files")
}
