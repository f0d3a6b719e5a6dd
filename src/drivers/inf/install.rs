//! `DDInstall` sections with the sections that they name: files, services, registry.

use std::collections::HashSet;

use super::columns::{add_service, copy_files, destination_dirs};
use super::document::Inf;
use super::error::error_at;
use super::facts::{Companions, CopyFile, DirPath, EventLogFacts, Facts, Install, ServiceFacts};
use super::lex::{Line, Section};
use super::notes::Notes;
use super::number::parse_number;
use crate::drivers::guest::GuestTarget;
use crate::error::Result;

/// Most sections that one section may pull in through `Needs`.
const NEEDS_MAX: usize = 64;

/// Cost of a service, in lines: a thousand services are more than any real INF has.
const SERVICE_COST: usize = 600;

/// Lines of a section and of the sections that it needs.
struct Lines<'a> {
    lines: Vec<&'a Line>,
    /// Needed sections that other INFs hold.
    foreign: Vec<String>,
    includes: Vec<String>,
}

impl Lines<'_> {
    /// All fields of all entries of a key.
    fn fields(&self, inf: &Inf, key: &str) -> Vec<String> {
        self.of(key).flat_map(|line| &line.fields).map(|f| inf.expand(f)).filter(|f| !f.is_empty()).collect()
    }

    fn of(&self, key: &str) -> impl Iterator<Item = &Line> {
        self.lines.iter().copied().filter(move |line| line.has_key(key))
    }

    /// The value of a key; the last one counts.
    fn value(&self, key: &str) -> Option<&Line> {
        self.of(key).last()
    }

    fn first_line(&self) -> usize {
        self.lines.first().map_or(0, |line| line.number)
    }
}

/// A byte in hexadecimal digits, with or without `0x`.
fn hexadecimal(text: &str) -> Option<u8> {
    let digits = text.trim().trim_start_matches("0x").trim_start_matches("0X");
    u8::from_str_radix(digits, 16).ok()
}

impl Inf {
    /// Reads the install section of every model.
    pub(super) fn install_facts(&self, guest: &GuestTarget, facts: &mut Facts, notes: &mut Notes) -> Result<()> {
        let mut seen = HashSet::new();
        let mut missing = HashSet::new();
        for model in &facts.models {
            if !seen.insert(model.install.to_lowercase()) {
                continue;
            }
            let Some(section) = self.actual_section(&model.install, guest) else {
                let line = usize::try_from(model.line).unwrap_or_default();
                notes.warn(self.warning(line, format!("the install section [{}] is missing", model.install)));
                missing.insert(model.install.to_lowercase());
                continue;
            };
            let install = self.install(&model.install, section, &mut facts.includes, notes)?;
            facts.installs.push(install);
        }
        facts.models.retain(|model| !missing.contains(&model.install.to_lowercase()));
        Ok(())
    }

    /// `name.NT<arch>`, else `name.NT`, else `name`.
    fn actual_section(&self, name: &str, guest: &GuestTarget) -> Option<&Section> {
        let names = [format!("{name}.NT{}", guest.arch.inf_name()), format!("{name}.NT"), name.to_owned()];
        names.iter().find_map(|name| self.section(name))
    }

    fn install(&self, name: &str, section: &Section, includes: &mut Vec<String>, notes: &mut Notes) -> Result<Install> {
        let main = self.lines(section, notes)?;
        let mut companion = |suffix: &str| match self.section(&format!("{}.{suffix}", section.name)) {
            Some(section) => self.lines(section, notes),
            None => Ok(Lines { lines: Vec::new(), foreign: Vec::new(), includes: Vec::new() }),
        };
        let (hw, services) = (companion("HW")?, companion("Services")?);
        let has = |suffix: &str| self.section(&format!("{}.{suffix}", section.name)).is_some();
        let companions = Companions {
            hardware: has("HW"),
            services: has("Services"),
            interfaces: has("Interfaces"),
            co_installers: has("CoInstallers"),
        };
        let feature_score = main.value("FeatureScore").map(|line| self.expand(line.value()));
        let mut out = Install {
            name: name.to_owned(),
            section: section.name.clone(),
            copy_files: self.copy_files(&main, notes)?,
            software: self.reg_values(&main.fields(self, "AddReg"), main.first_line(), notes)?,
            hardware: self.reg_values(&hw.fields(self, "AddReg"), hw.first_line(), notes)?,
            services: Vec::new(),
            companions,
            feature_score: feature_score.as_deref().and_then(hexadecimal).unwrap_or(u8::MAX),
            null_service: false,
            needs: Vec::new(),
        };
        for line in services.of("AddService") {
            if self.expand(line.field(add_service::NAME)).is_empty() {
                out.null_service = true;
            } else {
                out.services.push(self.service(line, notes)?);
            }
        }
        for lines in [&main, &hw, &services] {
            out.needs.extend(lines.foreign.iter().cloned());
            for include in &lines.includes {
                if !includes.iter().any(|i| i.eq_ignore_ascii_case(include)) {
                    includes.push(include.clone());
                }
            }
        }
        Ok(out)
    }

    /// A section's lines, and after them those of the sections of this INF that it `Needs`.
    fn lines<'a>(&'a self, section: &'a Section, notes: &mut Notes) -> Result<Lines<'a>> {
        let mut out = Lines { lines: Vec::new(), foreign: Vec::new(), includes: Vec::new() };
        let mut seen = HashSet::from([section.name.to_lowercase()]);
        let mut queue = std::collections::VecDeque::from([section]);
        while let Some(section) = queue.pop_front() {
            notes.spend(section.lines.len().saturating_add(1), self.file(), section.number)?;
            out.lines.extend(&section.lines);
            for line in &section.lines {
                let fields = line.fields.iter().map(|f| self.expand(f)).filter(|f| !f.is_empty());
                if line.has_key("Include") {
                    out.includes.extend(fields);
                } else if line.has_key("Needs") {
                    for name in fields {
                        if !seen.insert(name.to_lowercase()) || seen.len() > NEEDS_MAX {
                            continue;
                        }
                        match self.section(&name) {
                            Some(section) => queue.push_back(section),
                            None => out.foreign.push(name),
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    fn copy_files(&self, main: &Lines<'_>, notes: &mut Notes) -> Result<Vec<CopyFile>> {
        let mut out = Vec::new();
        for name in main.fields(self, "CopyFiles") {
            if let Some(file) = name.strip_prefix('@') {
                let destination = self.destination("DefaultDestDir");
                out.push(CopyFile { name: file.to_owned(), source: file.to_owned(), destination, flags: 0 });
                continue;
            }
            let Some(section) = self.section(&name) else {
                notes.warn(self.warning(main.first_line(), format!("the section [{name}] of a CopyFiles is missing")));
                continue;
            };
            notes.spend(section.lines.len().saturating_add(1), self.file(), section.number)?;
            let destination = self.destination(&name);
            for line in section.lines.iter().filter(|line| line.key.is_none()) {
                let file = self.expand(line.field(copy_files::DESTINATION));
                let source = Some(self.expand(line.field(copy_files::SOURCE))).filter(|s| !s.is_empty());
                let source = source.unwrap_or_else(|| file.clone());
                let flags = parse_number(&self.expand(line.field(copy_files::FLAGS))).unwrap_or(0);
                out.push(CopyFile { name: file, source, destination: destination.clone(), flags });
            }
        }
        Ok(out)
    }

    /// The folder of a CopyFiles section: its line of `[DestinationDirs]`, else `DefaultDestDir`.
    fn destination(&self, name: &str) -> DirPath {
        let Some(section) = self.section("DestinationDirs") else { return DirPath::default() };
        let of = |key: &str| section.lines.iter().rfind(|line| line.has_key(key));
        let Some(line) = of(name).or_else(|| of("DefaultDestDir")) else { return DirPath::default() };
        let dirid = parse_number(&self.expand(line.field(destination_dirs::DIRID))).unwrap_or(0);
        DirPath { dirid, path: self.expand(line.field(destination_dirs::SUBDIR)).trim_matches('\\').to_owned() }
    }

    /// `AddService = name,[flags],section[,event-log section[,log[,source]]]`.
    fn service(&self, line: &Line, notes: &mut Notes) -> Result<ServiceFacts> {
        let field = |column: usize| self.expand(line.field(column));
        let (name, section_name) = (field(add_service::NAME), field(add_service::SECTION));
        let Some(section) = self.section(&section_name) else {
            return Err(error_at(
                &self.file,
                line.number,
                format!("the section [{section_name}] of the service {name} is missing"),
            ));
        };
        notes.spend(SERVICE_COST, self.file(), line.number)?;
        let lines = self.lines(section, notes)?;
        let required = |key: &str| -> Result<u32> {
            let value = lines
                .value(key)
                .ok_or_else(|| error_at(&self.file, section.number, format!("the service {name} has no {key}")))?;
            let text = self.expand(value.value());
            parse_number(&text)
                .ok_or_else(|| error_at(&self.file, value.number, format!("{key} is not a number: {text:?}")))
        };
        let text =
            |key: &str| lines.value(key).map(|l| self.text(&l.fields.join(","))).filter(|t| !t.resolved.is_empty());
        let Some(binary) = lines.value("ServiceBinary") else {
            return Err(error_at(&self.file, section.number, format!("the service {name} has no ServiceBinary")));
        };
        let (path, arguments) = self.binary(binary)?;
        let flags_text = field(add_service::FLAGS);
        Ok(ServiceFacts {
            flags: if flags_text.is_empty() { 0 } else { parse_number(&flags_text).unwrap_or(0) },
            kind: required("ServiceType")?,
            start: required("StartType")?,
            error_control: required("ErrorControl")?,
            group: text("LoadOrderGroup").map(|t| t.resolved),
            binary: path,
            arguments,
            display_name: text("DisplayName"),
            description: text("Description"),
            dependencies: lines.fields(self, "Dependencies"),
            start_name: text("StartName").map(|t| t.resolved),
            registry: self.reg_values(&lines.fields(self, "AddReg"), section.number, notes)?,
            event_log: self.event_log(line, &name, notes)?,
            line: u32::try_from(line.number).unwrap_or(u32::MAX),
            name,
        })
    }

    /// `%12%\viostor.sys`, perhaps quoted, perhaps with arguments.
    fn binary(&self, line: &Line) -> Result<(DirPath, String)> {
        let text = self.expand(&line.fields.join(","));
        let text = text.trim().trim_start_matches('"');
        let bad =
            || error_at(&self.file, line.number, format!("ServiceBinary is not a path of a directory id: {text:?}"));
        let Some(rest) = text.strip_prefix('%') else {
            let path = text.trim_matches('"').to_owned();
            return if path.is_empty() { Err(bad()) } else { Ok((DirPath { dirid: 0, path }, String::new())) };
        };
        let (dirid, path) = rest.split_once('%').ok_or_else(bad)?;
        let dirid = parse_number(dirid).ok_or_else(bad)?;
        let path = path.trim_start_matches('\\');
        let (path, arguments) = match path.split_once('"') {
            Some((path, arguments)) => (path, arguments),
            // blanks belong to the path, up to the first one after a file's extension
            None => path
                .match_indices(' ')
                .map(|(at, _)| path.split_at(at))
                .find(|(before, _)| before.rsplit('\\').next().is_some_and(|name| name.contains('.')))
                .unwrap_or((path, "")),
        };
        if path.is_empty() {
            return Err(bad());
        }
        Ok((DirPath { dirid, path: path.to_owned() }, arguments.trim().to_owned()))
    }

    fn event_log(&self, line: &Line, service: &str, notes: &mut Notes) -> Result<Option<EventLogFacts>> {
        let name = self.expand(line.field(add_service::EVENT_LOG_SECTION));
        let Some(section) = (!name.is_empty()).then(|| self.section(&name)).flatten() else {
            if !name.is_empty() {
                notes.warn(self.warning(line.number, format!("the event-log section [{name}] is missing")));
            }
            return Ok(None);
        };
        let lines = self.lines(section, notes)?;
        let field_or = |column: usize, default: &str| {
            Some(self.expand(line.field(column))).filter(|t| !t.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        Ok(Some(EventLogFacts {
            log: field_or(add_service::EVENT_LOG, "System"),
            source: field_or(add_service::EVENT_SOURCE, service),
            registry: self.reg_values(&lines.fields(self, "AddReg"), section.number, notes)?,
        }))
    }

    /// Warns about names in `%…%` that are not strings of the INF. Variables of the environment are legal, hence no error.
    pub(super) fn warn_unknown_strings(&self, notes: &mut Notes) {
        for section in self.sections().filter(|s| !s.name.to_lowercase().starts_with("strings")) {
            for line in &section.lines {
                for text in line.key.iter().chain(&line.fields) {
                    for name in self.strings.unknown(text) {
                        notes.warn(self.warning(line.number, format!("%{name}% is not in [Strings]")));
                    }
                }
            }
        }
    }
}
