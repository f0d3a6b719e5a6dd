//! The files of one run: none that it reads may become one that it writes, and no two outputs may be one file.

use std::path::{Path, PathBuf};

use super::file_id::FileId;
use super::target::Target;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

#[derive(Debug)]
struct Known {
    what: &'static str,
    /// Of a file that exists.
    id: Option<FileId>,
    /// The path without symbolic links; for an output that does not exist, of its folder, and its name.
    real: Option<PathBuf>,
    is_folder: bool,
}

impl Known {
    fn is(&self, other: &Self) -> bool {
        (self.id.is_some() && self.id == other.id) || (self.real.is_some() && self.real == other.real)
    }
}

/// Collects the files of a run and refuses an output that is one of them.
#[derive(Debug, Default)]
pub(crate) struct RunFiles {
    inputs: Vec<Known>,
    outputs: Vec<Known>,
}

impl RunFiles {
    /// Adds a file, or a folder, that the run reads; `what` it is, with an article ("the input image").
    pub(crate) fn add_input(&mut self, what: &'static str, path: &Path) {
        let is_folder = path.is_dir();
        self.inputs.push(Known { what, id: FileId::of_data(path), real: path.canonicalize().ok(), is_folder });
    }

    /// Adds a file that the run is going to write.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is an input or another output of the run, also by another name, through a symbolic or a
    /// hard link; when it is an existing file in an input folder; or for what [`Target::resolve`] refuses.
    pub(crate) fn add_output(&mut self, what: &'static str, path: &Path) -> Result<()> {
        let target = Target::resolve(path, what)?;
        let refused = |reason: String| {
            Err(Error::new(Kind::Usage, Layer::Host, format!("cannot write {what}: {reason}"))
                .with_code(ErrorCode::OutputIsInput)
                .path(path.display().to_string())
                .hint("choose another name"))
        };
        let id = FileId::of_data(target.path());
        let output = Known { what, id, real: target.real_path(), is_folder: false };
        if let Some(other) = self.inputs.iter().find(|other| other.is(&output)) {
            return refused(format!("it is the same file as {}", other.what));
        }
        if let Some(other) = self.outputs.iter().find(|other| other.is(&output)) {
            return refused(format!("this run writes {} to the same file", other.what));
        }
        // An image that an earlier run left in a folder of drivers is not one of them.
        let is_image = ["qcow2", "raw", "img"].iter().any(|e| target.path().extension().is_some_and(|x| x == *e));
        let holds = |folder: &&Known| {
            let (Some(folder), Some(real)) = (&folder.real, &output.real) else { return false };
            real.starts_with(folder)
        };
        let folder = self.inputs.iter().filter(|input| input.is_folder).find(holds);
        if let Some(folder) = folder.filter(|_| id.is_some() && !is_image && what != REPORT) {
            return refused(format!("it is a file in {}", folder.what));
        }
        self.outputs.push(output);
        Ok(())
    }
}

/// The name of an output that only ever replaces its like, wherever it is.
pub(crate) const REPORT: &str = "the report";
