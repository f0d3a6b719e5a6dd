//! The pages of `winject explain`, read from the texts in `pages/`.
//!
//! A page begins with `# NAME: TITLE`; lines `## why` and `## do` begin its second and third part. In the texts of the checkers of
//! NTFS and of hives a page has no title, which is the rule of the code, and a page `# PREFIX*` has the parts that the pages of
//! the codes with this prefix leave out.

use crate::error::ErrorCode;
use crate::hive::check::{Code as HiveCode, Severity as HiveSeverity};
use crate::ntfs::check::{Code as NtfsCode, Severity as NtfsSeverity};
use crate::windows::Code as BootCode;

/// What a code belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// Errors and refusals of every command.
    Error,
    /// Findings of `check`.
    Check,
    /// Findings of `fsck`.
    Fsck,
    /// Findings of `reg check`.
    Reg,
}

impl Area {
    pub(super) const ALL: [Self; 4] = [Self::Error, Self::Check, Self::Fsck, Self::Reg];

    /// What the codes of the area are.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Error => "Errors and refusals",
            Self::Check => "Findings of winject check",
            Self::Fsck => "Findings of winject fsck",
            Self::Reg => "Findings of winject reg check",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Error => include_str!("pages/errors.txt"),
            Self::Check => include_str!("pages/check.txt"),
            Self::Fsck => include_str!("pages/fsck.txt"),
            Self::Reg => include_str!("pages/reg.txt"),
        }
    }

    /// Every code of the area.
    pub(super) fn codes(self) -> Vec<CodeFacts> {
        let named = |name| CodeFacts { name, title: None, severity: None };
        match self {
            Self::Error => ErrorCode::ALL.iter().map(|code| named(code.name())).collect(),
            Self::Check => BootCode::ALL.iter().map(|code| named(code.name())).collect(),
            Self::Fsck => NtfsCode::ALL
                .iter()
                .map(|code| CodeFacts {
                    name: code.name(),
                    title: Some(code.invariant()),
                    severity: Some(match code.severity() {
                        NtfsSeverity::Minor => "minor",
                        NtfsSeverity::Error => "error",
                    }),
                })
                .collect(),
            Self::Reg => HiveCode::ALL
                .iter()
                .map(|code| CodeFacts {
                    name: code.name(),
                    title: Some(code.rule()),
                    severity: Some(match code.severity() {
                        HiveSeverity::Warning => "warning",
                        HiveSeverity::Error => "error",
                    }),
                })
                .collect(),
        }
    }
}

/// A code, and what its own type says about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodeFacts {
    pub(super) name: &'static str,
    /// The rule that it stands for; `None` where the title is in the text.
    title: Option<&'static str>,
    severity: Option<&'static str>,
}

/// The page of a code.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Page {
    pub(super) code: &'static str,
    pub(super) area: Area,
    pub(super) title: String,
    /// How bad it is, for a rule of a checker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) severity: Option<&'static str>,
    /// What it is.
    pub(super) what: String,
    /// Why it matters.
    pub(super) why: String,
    /// What to do, with commands on indented lines.
    pub(super) remedy: String,
}

/// A section of a text: the name after `# `, the title after the colon, and the three parts.
#[derive(Debug, Clone, Copy, Default)]
struct Section<'a> {
    name: &'a str,
    title: Option<&'a str>,
    parts: [&'a str; 3],
}

/// The sections of a text, in order.
fn sections(text: &str) -> Vec<Section<'_>> {
    // A line break before each heading, so that the first one is found like the others.
    let bodies = text.split("\n# ").map(|body| body.strip_prefix("# ").unwrap_or(body));
    bodies
        .map(|body| {
            let (heading, rest) = body.split_once('\n').unwrap_or((body, ""));
            let (name, title) = heading.split_once(": ").map_or((heading, None), |(name, title)| (name, Some(title)));
            let (rest, remedy) = rest.split_once("## do\n").unwrap_or((rest, ""));
            let (what, why) = rest.split_once("## why\n").unwrap_or((rest, ""));
            Section { name: name.trim(), title, parts: [what, why, remedy].map(|part| part.trim_matches('\n')) }
        })
        .collect()
}

/// The pages of an area, in the order of its codes; a code without a text has a page without parts.
pub(super) fn pages(area: Area) -> Vec<Page> {
    let sections = sections(area.text());
    let page = |CodeFacts { name: code, title, severity }| {
        let own = sections.iter().find(|section| section.name == code).copied().unwrap_or_default();
        let prefix = |section: &&Section<'_>| section.name.strip_suffix('*').is_some_and(|name| code.starts_with(name));
        let general = sections.iter().find(prefix).copied().unwrap_or_default();
        let [what, why, remedy] = [0, 1, 2].map(|part| {
            let of = |section: &Section<'_>| section.parts.get(part).copied().unwrap_or_default().to_owned();
            Some(of(&own)).filter(|text| !text.is_empty()).unwrap_or_else(|| of(&general))
        });
        let title = title.or(own.title).unwrap_or_default().to_owned();
        Page { code, area, title, severity, what, why, remedy }
    };
    area.codes().into_iter().map(page).collect()
}

/// The pages of all areas that have this code, in any case.
pub(super) fn find(code: &str) -> Vec<Page> {
    Area::ALL.into_iter().flat_map(pages).filter(|page| page.code.eq_ignore_ascii_case(code)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_whole_page() {
        for page in Area::ALL.into_iter().flat_map(pages) {
            for part in [&page.title, &page.what, &page.why, &page.remedy] {
                assert!(!part.trim().is_empty(), "{page:?}");
            }
        }
    }

    #[test]
    fn every_text_belongs_to_a_code() {
        for area in Area::ALL {
            let codes: Vec<_> = area.codes().into_iter().map(|code| code.name).collect();
            let mut seen = BTreeSet::new();
            for section in sections(area.text()) {
                assert!(seen.insert(section.name), "{area:?}: {} twice", section.name);
                let is_used = match section.name.strip_suffix('*') {
                    Some(prefix) => codes.iter().any(|code| code.starts_with(prefix)),
                    None => codes.contains(&section.name),
                };
                assert!(is_used, "{area:?}: {}", section.name);
            }
        }
    }

    #[test]
    fn no_line_of_a_page_is_longer_than_a_terminal() {
        for area in Area::ALL {
            for line in area.text().lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }

    #[test]
    fn areas_share_a_name_only_where_they_mean_the_same() {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = Area::ALL
            .into_iter()
            .flat_map(Area::codes)
            .map(|code| code.name)
            .filter(|code| !seen.insert(code.to_ascii_lowercase()))
            .collect();
        assert_eq!(twice, ["no-windows"]);
    }
}
