//! The built-in definitions, and the merging of a user's over them.

use std::collections::BTreeMap;
use std::path::Path;

use super::category::Category;
use super::definition::Definition;
use super::user_file::{TEXT_MAX, UserFile};
use crate::drivers::guest::GuestTarget;
use crate::drivers::inf::Facts;
use crate::error::{Layer, Result};
use crate::host;
use crate::yaml::Document;

/// The built-in definitions, with a user's merged over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definitions {
    /// The user's definitions first.
    pub drivers: Vec<Definition>,
    /// The user's order of release folders, by folder (`w10`) or release (`windows_10`), keys in lower case.
    pub buckets: BTreeMap<String, Vec<String>>,
    /// Warnings about the user's file, with line numbers.
    pub warnings: Vec<String>,
}

impl Default for Definitions {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Definitions {
    /// The built-in definitions alone.
    #[must_use]
    pub fn builtin() -> Self {
        let drivers = [
            (Category::Storage, "viostor", "viostor", "viostor.inf"),
            (Category::Storage, "vioscsi", "vioscsi", "vioscsi.inf"),
            (Category::Network, "NetKVM", "netkvm", "netkvm.inf"),
            (Category::Balloon, "Balloon", "BALLOON", "balloon.inf"),
            (Category::Serial, "vioserial", "VirtioSerial", "vioser.inf"),
            (Category::Rng, "viorng", "VirtRng", "viorng.inf"),
            (Category::Input, "vioinput", "VirtioInput", "vioinput.inf"),
            (Category::Filesystem, "viofs", "VirtioFsDrv", "viofs.inf"),
            (Category::Gpu, "viogpudo", "VioGpuDod", "viogpudo.inf"),
            (Category::Gpu, "qxldod", "qxldod", "qxldod.inf"),
            (Category::Gpu, "qxl", "qxl", "qxl.inf"),
            (Category::Other("socket".to_owned()), "viosock", "VirtioSocket", "viosock.inf"),
            (Category::Other("memory".to_owned()), "viomem", "viomem", "viomem.inf"),
            (Category::Other("crypto".to_owned()), "viocrypt", "viocrypt", "viocrypt.inf"),
            (Category::Other("system".to_owned()), "pvpanic", "PVPanic", "pvpanic.inf"),
            (Category::Other("system".to_owned()), "fwcfg", "FwCfg", "fwcfg.inf"),
            (Category::Other("system".to_owned()), "qemufwcfg", "", "qemufwcfg.inf"),
            (Category::Other("system".to_owned()), "qemupciserial", "", "qemupciserial.inf"),
            (Category::Other("system".to_owned()), "smbus", "", "smbus.inf"),
        ]
        .map(|(category, name, service, inf)| Definition {
            name: name.to_owned(),
            service: service.to_owned(),
            inf_hint: Some(inf.to_owned()),
            ..Definition::new(category)
        });
        Self { drivers: drivers.to_vec(), buckets: BTreeMap::new(), warnings: Vec::new() }
    }

    /// A user's YAML file merged over the built-in definitions.
    ///
    /// # Errors
    /// [`Kind::Usage`] with file and line, when the file is not YAML or a value is impossible; [`Kind::Io`] when it cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let hint = "--definitions takes a YAML file with driver definitions, as UTF-8";
        let bytes = host::read(path, TEXT_MAX)
            .map_err(|e| e.into_error("the driver definitions", path, Layer::Drivers).hint(hint))?;
        let text = Document::new(&shown, Layer::Drivers).text_of(bytes, "the driver definitions", hint)?;
        Self::parse(&text, &shown)
    }

    /// Like [`load`](Self::load), from a text; `name` is for messages.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let user = UserFile::parse(text, name)?;
        let mut out = Self::builtin();
        let is_redefined = |builtin: &Definition| {
            user.drivers.iter().any(|d| !builtin.service.is_empty() && d.service.eq_ignore_ascii_case(&builtin.service))
        };
        out.drivers.retain(|builtin| !is_redefined(builtin));
        out.drivers.splice(0..0, user.drivers);
        out.buckets = user.buckets;
        out.warnings = user.warnings;
        Ok(out)
    }

    /// The same definitions, with nothing registered offline: every package is only staged.
    #[must_use]
    pub fn staged_only(mut self) -> Self {
        self.drivers.iter_mut().for_each(|definition| definition.staged_only = true);
        self
    }

    /// The definition of the driver of an INF, the user's before the built-in ones.
    #[must_use]
    pub fn of(&self, facts: &Facts) -> Option<&Definition> {
        self.drivers.iter().find(|d| d.describes(facts))
    }

    /// The folders of the media to try for a guest, best first: the user's order, then the built-in one.
    #[must_use]
    pub fn buckets_for(&self, guest: &GuestTarget) -> Vec<String> {
        let release = guest.release();
        let own = release.buckets.first().copied().unwrap_or_default();
        // a key of the original program covers the R2 release too
        let keys = [release.key, release.key.trim_end_matches("_r2"), own];
        let user = keys.iter().find_map(|key| self.buckets.get(&key.to_ascii_lowercase()));
        let mut out: Vec<String> = Vec::new();
        for name in user.into_iter().flatten().map(String::as_str).chain(release.buckets.iter().copied()) {
            if !out.iter().any(|b| b.eq_ignore_ascii_case(name)) {
                out.push(name.to_owned());
            }
        }
        out
    }
}
