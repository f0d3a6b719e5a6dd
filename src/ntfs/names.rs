//! The names that a new file gets: long and short.

use std::ops::Range;

use super::directory::entry_in;
use super::metadata::standard_information;
use super::pager::Pager;
use super::short_name_hints::ShortNameHints;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::name::{Namespace, NtfsName, ShortForms, is_short, problem_with};
use crate::ntfs::format::standard_information::attribute;
use crate::ntfs::format::units::FileId;

fn refused_name(name: &NtfsName, why: &str) -> Error {
    Error::refused(Layer::Ntfs, format!("the name cannot be used: {why}"))
        .path(name.to_string())
        .hint("choose another name")
}

/// The names under which `name` is entered into a directory; none of them may exist there.
pub(crate) fn choose_names<D: VolumeRead>(
    pager: &Pager<D>,
    hints: &mut ShortNameHints,
    parent: FileId,
    name: &NtfsName,
    with_short: bool,
) -> Result<Vec<(Namespace, NtfsName)>> {
    if let Some(problem) = problem_with(name) {
        return Err(refused_name(name, problem));
    }
    if entry_in(pager, parent, name)?.is_some() {
        return Err(refused_name(name, "it exists"));
    }
    if standard_information(pager, parent)?.attributes & attribute::REPARSE != 0 {
        // Windows goes to the directory that it points to and never sees what is in this one
        return Err(refused_name(name, "its directory is a junction or a link to another one"));
    }
    if !with_short {
        return Ok(vec![(Namespace::Posix, name.clone())]);
    }
    if is_short(name) {
        return Ok(vec![(Namespace::Win32AndDos, name.clone())]);
    }
    let forms = ShortForms::of(name);
    let known = hints.taken(parent, &forms);
    let mut taken = known;
    let mut free = None;
    for range in [ShortForms::NUMBERED, ShortForms::HASHED, ShortForms::SPREAD] {
        if free.is_some() || taken >= range.end {
            continue;
        }
        let (number, short) = first_free_form(pager, parent, &forms, &range)?;
        free = short;
        if number >= ShortForms::HASHED_CROWDED {
            taken = ShortForms::HASHED.end;
        } else if free.is_none() {
            taken = range.end;
        }
    }
    if taken != known {
        hints.set_taken(parent, &forms, taken);
    }
    Ok(match free {
        Some(short) => vec![(Namespace::Win32, name.clone()), (Namespace::Dos, short)],
        // a long name alone is legal everywhere
        None => vec![(Namespace::Posix, name.clone())],
    })
}

/// A short name of these forms that is free, and its number: the first one, if those before it are taken.
fn first_free_form<D: VolumeRead>(
    pager: &Pager<D>,
    parent: FileId,
    forms: &ShortForms,
    range: &Range<usize>,
) -> Result<(usize, Option<NtfsName>)> {
    let free = |number: usize| -> Result<Option<NtfsName>> {
        let short = forms.get(number);
        Ok(entry_in(pager, parent, &short)?.is_none().then_some(short))
    };
    if *range != ShortForms::HASHED {
        for number in range.clone() {
            if let Some(short) = free(number)? {
                return Ok((number, Some(short)));
            }
        }
        return Ok((range.start, None));
    }
    // they are given out in order: binary search
    let (mut low, mut high) = (range.start, range.end - 1);
    if let Some(short) = free(low)? {
        return Ok((low, Some(short)));
    }
    let mut last = free(high)?;
    while last.is_some() && high - low > 1 {
        let middle = low + (high - low) / 2;
        match free(middle)? {
            Some(short) => (high, last) = (middle, Some(short)),
            None => low = middle,
        }
    }
    Ok((high, last))
}
