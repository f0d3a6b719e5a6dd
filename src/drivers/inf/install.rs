//! `DDInstall` sections and what hangs on them: files, services, registry.

use super::facts::{Companions, CopyFile, DirPath, EventLogFacts, Facts, Install, ServiceFacts};
use super::{Inf, Line, Notes, Section, broken, number};
use crate::drivers::guest::GuestTarget;
use crate::error::Result;
use std::collections::HashSet;

/// Most sections that one section may pull in through `Needs`.
const NEEDS_MAX: usize = 64;

/// What a service costs, compared with a line: an INF with a thousand services is none.
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
        self.lines.iter().copied().filter(move |line| has_key(line, key))
    }

    /// The value of a key; the last one counts.
    fn value(&self, key: &str) -> Option<&Line> {
        self.of(key).last()
    }

    fn first_line(&self) -> usize {
        self.lines.first().map_or(0, |line| line.number)
    }
}

fn has_key(line: &Line, key: &str) -> bool {
    line.key.as_deref().is_some_and(|k| k.eq_ignore_ascii_case(key))
}

/// A byte in hexadecimal digits, with or without `0x`.
fn hexadecimal(text: &str) -> Option<u8> {
    let digits = text.trim().trim_start_matches("0x").trim_start_matches("0X");
    u8::from_str_radix(digits, 16).ok()
}

impl Inf {
    /// Reads the install section of every model.
    pub(super) fn install_facts(&self, guest: &GuestTarget, facts: &mut Facts, warnings: &mut Notes) -> Result<()> {
        let mut seen = HashSet::new();
        let mut missing = HashSet::new();
        for model in &facts.models {
            if !seen.insert(model.install.to_lowercase()) {
                continue;
            }
            let Some(section) = self.actual_section(&model.install, guest) else {
                let line = usize::try_from(model.line).unwrap_or_default();
                warnings.push(self.warning(line, format!("the install section [{}] is missing", model.install)));
                missing.insert(model.install.to_lowercase());
                continue;
            };
            let install = self.install(&model.install, section, &mut facts.includes, warnings)?;
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

    fn install(
        &self,
        name: &str,
        section: &Section,
        includes: &mut Vec<String>,
        warnings: &mut Notes,
    ) -> Result<Install> {
        let main = self.lines(section, warnings)?;
        let mut companion = |suffix: &str| match self.section(&format!("{}.{suffix}", section.name)) {
            Some(section) => self.lines(section, warnings),
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
        let feature_score = main.value("FeatureScore").map(|line| self.expand(line.field(0)));
        let mut out = Install {
            name: name.to_owned(),
            section: section.name.clone(),
            copy_files: self.copy_files(&main, warnings)?,
            software: self.reg_values(&main.fields(self, "AddReg"), main.first_line(), warnings)?,
            hardware: self.reg_values(&hw.fields(self, "AddReg"), hw.first_line(), warnings)?,
            services: Vec::new(),
            companions,
            feature_score: feature_score.as_deref().and_then(hexadecimal).unwrap_or(u8::MAX),
            null_service: false,
            needs: Vec::new(),
        };
        for line in services.of("AddService") {
            if self.expand(line.field(0)).is_empty() {
                out.null_service = true;
            } else {
                out.services.push(self.service(line, warnings)?);
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
                if has_key(line, "Include") {
                    out.includes.extend(fields);
                } else if has_key(line, "Needs") {
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

    fn copy_files(&self, main: &Lines<'_>, warnings: &mut Notes) -> Result<Vec<CopyFile>> {
        let mut out = Vec::new();
        for name in main.fields(self, "CopyFiles") {
            if let Some(file) = name.strip_prefix('@') {
                let destination = self.destination("DefaultDestDir");
                out.push(CopyFile { name: file.to_owned(), source: file.to_owned(), destination, flags: 0 });
                continue;
            }
            let Some(section) = self.section(&name) else {
                warnings
                    .push(self.warning(main.first_line(), format!("the section [{name}] of a CopyFiles is missing")));
                continue;
            };
            warnings.spend(section.lines.len().saturating_add(1), self.file(), section.number)?;
            let destination = self.destination(&name);
            for line in section.lines.iter().filter(|line| line.key.is_none()) {
                let file = self.expand(line.field(0));
                let source = Some(self.expand(line.field(1))).filter(|s| !s.is_empty()).unwrap_or_else(|| file.clone());
                let flags = number(&self.expand(line.field(3))).unwrap_or(0);
                out.push(CopyFile { name: file, source, destination: destination.clone(), flags });
            }
        }
        Ok(out)
    }

    /// The folder of a CopyFiles section: its line of `[DestinationDirs]`, else `DefaultDestDir`.
    fn destination(&self, name: &str) -> DirPath {
        let Some(section) = self.section("DestinationDirs") else { return DirPath::default() };
        let of = |key: &str| section.lines.iter().rfind(|line| has_key(line, key));
        let Some(line) = of(name).or_else(|| of("DefaultDestDir")) else { return DirPath::default() };
        let dirid = number(&self.expand(line.field(0))).unwrap_or(0);
        DirPath { dirid, path: self.expand(line.field(1)).trim_matches('\\').to_owned() }
    }

    /// `AddService = name,[flags],section[,event-log section[,log[,source]]]`.
    fn service(&self, line: &Line, warnings: &mut Notes) -> Result<ServiceFacts> {
        let field = |index: usize| self.expand(line.field(index));
        let (name, section_name) = (field(0), field(2));
        let Some(section) = self.section(&section_name) else {
            return Err(broken(
                &self.file,
                line.number,
                format!("the section [{section_name}] of the service {name} is missing"),
            ));
        };
        warnings.spend(SERVICE_COST, self.file(), line.number)?;
        let lines = self.lines(section, warnings)?;
        let wanted = |key: &str| -> Result<u32> {
            let value = lines
                .value(key)
                .ok_or_else(|| broken(&self.file, section.number, format!("the service {name} has no {key}")))?;
            let text = self.expand(value.field(0));
            number(&text).ok_or_else(|| broken(&self.file, value.number, format!("{key} is no number: {text:?}")))
        };
        let text =
            |key: &str| lines.value(key).map(|l| self.text(&l.fields.join(","))).filter(|t| !t.resolved.is_empty());
        let Some(binary) = lines.value("ServiceBinary") else {
            return Err(broken(&self.file, section.number, format!("the service {name} has no ServiceBinary")));
        };
        let (path, arguments) = self.binary(binary)?;
        let flags_text = field(1);
        Ok(ServiceFacts {
            flags: if flags_text.is_empty() { 0 } else { number(&flags_text).unwrap_or(0) },
            kind: wanted("ServiceType")?,
            start: wanted("StartType")?,
            error_control: wanted("ErrorControl")?,
            group: text("LoadOrderGroup").map(|t| t.resolved),
            binary: path,
            arguments,
            display_name: text("DisplayName"),
            description: text("Description"),
            dependencies: lines.fields(self, "Dependencies"),
            start_name: text("StartName").map(|t| t.resolved),
            registry: self.reg_values(&lines.fields(self, "AddReg"), section.number, warnings)?,
            event_log: self.event_log(line, &name, warnings)?,
            line: u32::try_from(line.number).unwrap_or(u32::MAX),
            name,
        })
    }

    /// `%12%\viostor.sys`, perhaps quoted, perhaps with arguments.
    fn binary(&self, line: &Line) -> Result<(DirPath, String)> {
        let text = self.expand(&line.fields.join(","));
        let text = text.trim().trim_start_matches('"');
        let bad = || broken(&self.file, line.number, format!("ServiceBinary is no path of a directory id: {text:?}"));
        let Some(rest) = text.strip_prefix('%') else {
            let path = text.trim_matches('"').to_owned();
            return if path.is_empty() { Err(bad()) } else { Ok((DirPath { dirid: 0, path }, String::new())) };
        };
        let (dirid, path) = rest.split_once('%').ok_or_else(bad)?;
        let dirid = number(dirid).ok_or_else(bad)?;
        let path = path.trim_start_matches('\\');
        let (path, arguments) = match path.split_once('"') {
            Some((path, arguments)) => (path, arguments),
            // blanks belong to the path up to the first one behind a file's ending
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

    fn event_log(&self, line: &Line, service: &str, warnings: &mut Notes) -> Result<Option<EventLogFacts>> {
        let name = self.expand(line.field(3));
        let Some(section) = (!name.is_empty()).then(|| self.section(&name)).flatten() else {
            if !name.is_empty() {
                warnings.push(self.warning(line.number, format!("the event-log section [{name}] is missing")));
            }
            return Ok(None);
        };
        let lines = self.lines(section, warnings)?;
        let or = |index: usize, default: &str| {
            Some(self.expand(line.field(index))).filter(|t| !t.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        Ok(Some(EventLogFacts {
            log: or(4, "System"),
            source: or(5, service),
            registry: self.reg_values(&lines.fields(self, "AddReg"), section.number, warnings)?,
        }))
    }

    /// Names in the used kinds of entries that are not strings. Values with `%…%` of the environment are legal.
    pub(super) fn warn_unknown_strings(&self, warnings: &mut Notes) {
        for section in self.sections().filter(|s| !s.name.to_lowercase().starts_with("strings")) {
            for line in &section.lines {
                for text in line.key.iter().chain(&line.fields) {
                    for name in self.strings.unknown(text) {
                        warnings.push(self.warning(line.number, format!("%{name}% is not in [Strings]")));
                    }
                }
            }
        }
    }
}
