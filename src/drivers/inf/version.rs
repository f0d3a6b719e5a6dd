//! `[Version]`: class, provider, date and version, catalogue. And the list of files on the media.

use super::columns::{driver_ver, source_disks_files, source_disks_names};
use super::document::Inf;
use super::error::error_at;
use super::facts::Text;
use super::facts::{Facts, Guid};
use super::notes::Notes;
use super::number::parse_number;
use crate::clock::FileTime;
use crate::drivers::guest::GuestTarget;
use crate::error::Result;

/// Classes whose GUID an INF may leave out.
const CLASSES: &[(&str, &str)] = &[
    ("SCSIAdapter", "{4D36E97B-E325-11CE-BFC1-08002BE10318}"),
    ("HDC", "{4D36E96A-E325-11CE-BFC1-08002BE10318}"),
    ("Net", "{4D36E972-E325-11CE-BFC1-08002BE10318}"),
    ("System", "{4D36E97D-E325-11CE-BFC1-08002BE10318}"),
    ("Display", "{4D36E968-E325-11CE-BFC1-08002BE10318}"),
    ("DiskDrive", "{4D36E967-E325-11CE-BFC1-08002BE10318}"),
    ("HIDClass", "{745A17A0-74D3-11D0-B6FE-00A0C90F57DA}"),
    ("Keyboard", "{4D36E96B-E325-11CE-BFC1-08002BE10318}"),
    ("Mouse", "{4D36E96F-E325-11CE-BFC1-08002BE10318}"),
    ("Ports", "{4D36E978-E325-11CE-BFC1-08002BE10318}"),
    ("MultiFunction", "{4D36E971-E325-11CE-BFC1-08002BE10318}"),
    ("USB", "{36FC9E60-C465-11CF-8056-444553540000}"),
    ("Media", "{4D36E96C-E325-11CE-BFC1-08002BE10318}"),
    ("Volume", "{71A27CDD-812A-11D0-BEC7-08002BE2092F}"),
];

/// Most files of a package that are read from `SourceDisksFiles`.
const SOURCE_FILES_MAX: usize = 4096;
/// Most disks of a package.
const DISKS_MAX: usize = 64;

impl Inf {
    pub(super) fn version_facts(&self, guest: &GuestTarget, notes: &mut Notes) -> Result<Facts> {
        let text = |key: &str| self.version_line(key).map_or_else(Text::default, |line| self.text(line.value()));
        let class = text("Class").resolved;
        let class_guid = self.class_guid(&class)?;
        let (driver_date, driver_date_text, driver_version) = self.driver_ver(notes);
        Ok(Facts {
            file_name: self.file.rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
            class,
            class_guid,
            provider: text("Provider"),
            driver_date,
            driver_date_text,
            driver_version,
            catalog: self.catalog(guest),
            pnp_lockdown: parse_number(&text("PnpLockdown").resolved) == Some(1),
            models: Vec::new(),
            installs: Vec::new(),
            source_files: Vec::new(),
            strings: std::collections::BTreeMap::new(),
            includes: Vec::new(),
            warnings: Vec::new(),
        })
    }

    fn class_guid(&self, class: &str) -> Result<Guid> {
        if let Some(line) = self.version_line("ClassGuid") {
            let text = self.expand(line.value());
            return Guid::parse(&text)
                .ok_or_else(|| error_at(&self.file, line.number, format!("ClassGuid is not a GUID: {text:?}")));
        }
        let known = CLASSES.iter().find(|(name, _)| name.eq_ignore_ascii_case(class));
        known.and_then(|(_, guid)| Guid::parse(guid)).ok_or_else(|| {
            let line = self.section("Version").map_or(0, |s| s.number);
            error_at(
                &self.file,
                line,
                format!("[Version] has no ClassGuid, and the class {class:?} is not a known one"),
            )
        })
    }

    /// `DriverVer = mm/dd/yyyy[, a.b.c.d]`.
    fn driver_ver(&self, notes: &mut Notes) -> (FileTime, String, [u16; 4]) {
        let nothing = (FileTime(0), String::new(), [0; 4]);
        let Some(line) = self.version_line("DriverVer") else { return nothing };
        let (date, version) = (self.expand(line.field(driver_ver::DATE)), self.expand(line.field(driver_ver::VERSION)));
        let Some((time, iso)) = parse_date(&date) else {
            notes.warn(self.warning(line.number, format!("DriverVer has no valid date: {date:?}")));
            return nothing;
        };
        let Some(version) = parse_version(&version) else {
            notes.warn(self.warning(line.number, format!("DriverVer has no valid version: {version:?}")));
            return (time, iso, [0; 4]);
        };
        (time, iso, version)
    }

    /// `CatalogFile.NT<arch>`, else `CatalogFile.NT`, else `CatalogFile`.
    fn catalog(&self, guest: &GuestTarget) -> Option<String> {
        let keys = [format!("CatalogFile.NT{}", guest.arch.inf_name()), "CatalogFile.NT".into(), "CatalogFile".into()];
        let line = keys.iter().find_map(|key| self.version_line(key))?;
        Some(self.expand(line.value())).filter(|name| !name.is_empty())
    }

    /// The files of `SourceDisksFiles`, with the sub-folders of the disk and the file, relative to the INF's folder.
    pub(super) fn source_files(&self, guest: &GuestTarget) -> Vec<String> {
        let arch = guest.arch.inf_name();
        let of = |base: &str| [format!("{base}.{arch}"), base.to_owned()];
        let mut disks: Vec<(String, String)> = Vec::new();
        for line in of("SourceDisksNames").iter().filter_map(|n| self.section(n)).flat_map(|s| &s.lines) {
            if let Some(key) = line.key.as_ref().filter(|_| disks.len() < DISKS_MAX) {
                disks.push((self.expand(key), self.expand(line.field(source_disks_names::PATH))));
            }
        }
        let mut out: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for line in of("SourceDisksFiles").iter().filter_map(|n| self.section(n)).flat_map(|s| &s.lines) {
            let Some(key) = &line.key else { continue };
            let name = self.expand(key);
            if !seen.insert(name.to_lowercase()) {
                continue;
            }
            if out.len() >= SOURCE_FILES_MAX {
                break;
            }
            let disk = self.expand(line.field(source_disks_files::DISK_ID));
            let folder = disks.iter().find(|(id, _)| *id == disk).map_or("", |(_, path)| path.as_str());
            out.push(join(&[folder, &self.expand(line.field(source_disks_files::SUBDIR)), &name]));
        }
        out
    }
}

/// Joins Windows path pieces with `/`, leaving out empty ones and `.`.
fn join(pieces: &[&str]) -> String {
    let parts =
        pieces.iter().flat_map(|piece| piece.split(['\\', '/'])).filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

fn parse_date(text: &str) -> Option<(FileTime, String)> {
    let mut parts = text.trim().split(['/', '-']);
    let month: u8 = parts.next()?.trim().parse().ok()?;
    let day: u8 = parts.next()?.trim().parse().ok()?;
    let year: u16 = parts.next()?.trim().parse().ok()?;
    if parts.next().is_some() {
        return None;
    }
    Some((FileTime::from_date(year, month, day)?, format!("{year:04}-{month:02}-{day:02}")))
}

/// One to four numbers; missing ones are zero, so that an empty text is version 0. A full stop at the end is ignored.
fn parse_version(text: &str) -> Option<[u16; 4]> {
    let mut out = [0; 4];
    if text.trim().is_empty() {
        return Some(out);
    }
    let text = text.trim();
    for (index, part) in text.strip_suffix('.').unwrap_or(text).split('.').enumerate() {
        *out.get_mut(index)? = part.trim().parse().ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::guest::Arch;

    fn facts(version: &str) -> Result<Facts> {
        let text = format!("[Version]\nSignature=\"$Windows NT$\"\n{version}\n[Strings]\nProv=\"P\"\n");
        Inf::parse(text.as_bytes(), "x.inf")?.facts(&GuestTarget::of_build(Arch::Amd64, 19045, false))
    }

    #[test]
    fn version_section() {
        let facts = facts(
            "Class=Net\nProvider=%PROV%\nDriverVer = 07/09/2025,100.101.104.28500\nCatalogFile=a.cat\n\
             CatalogFile.NTamd64 = b.cat\nPnpLockdown=1",
        )
        .unwrap();
        assert_eq!(facts.class_guid.braced(), "{4D36E972-E325-11CE-BFC1-08002BE10318}");
        assert_eq!(facts.provider, Text { raw: "%PROV%".into(), resolved: "P".into() });
        assert_eq!(facts.provider.token(), Some("PROV"));
        assert_eq!(Some(facts.driver_date), FileTime::from_date(2025, 7, 9));
        assert_eq!(
            (facts.driver_date_text.as_str(), facts.version_text().as_str()),
            ("2025-07-09", "100.101.104.28500")
        );
        assert_eq!(facts.catalog.as_deref(), Some("b.cat"));
        assert!(facts.pnp_lockdown);
    }

    #[test]
    fn a_full_stop_at_the_end_of_a_version_means_nothing() {
        for (text, version) in
            [("1.2.3.4.", "1.2.3.4"), ("1.2.", "1.2.0.0"), ("6.1.7600.16385. ; old", "6.1.7600.16385")]
        {
            let facts = facts(&format!("Class=Net\nDriverVer=01/02/2020,{text}")).unwrap();
            assert_eq!((facts.version_text().as_str(), facts.warnings.len()), (version, 0), "{text}");
        }
    }

    #[test]
    fn odd_driver_versions_are_warnings() {
        for bad in [
            "DriverVer=13/32/2020,1.2",
            "DriverVer=today",
            "DriverVer=01/02/2020,1.2.3.4.5",
            "DriverVer=01/02/2020,70000",
        ] {
            let facts = facts(&format!("Class=Net\n{bad}")).unwrap();
            assert!(facts.warnings[0].contains("x.inf:4: DriverVer"), "{:?}", facts.warnings);
        }
    }

    #[test]
    fn impossible_versions_are_errors() {
        for (text, part) in [
            ("", "no [Version]"),
            ("[Version]\nClass=Net\n", "x.inf:1: [Version] has no Signature"),
            ("[Version]\nSignature=\"hello\"\n", "x.inf:2"),
        ] {
            let error = Inf::parse(text.as_bytes(), "x.inf").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = facts("Class=Own").unwrap_err().to_string();
        assert!(error.contains("no ClassGuid"), "{error}");
        let error = facts("Class=Own\nClassGuid={XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}").unwrap_err().to_string();
        assert!(error.contains("x.inf:4: ClassGuid is not a GUID"), "{error}");
    }
}
