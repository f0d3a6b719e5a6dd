//! What is wrong with a text that is not YAML, in words for those who write it.

use serde_saphyr::Error;

/// Says what is wrong, and in which column. The parser's own words are for programmers, and are not shown.
pub(super) fn describe(error: &Error) -> String {
    let error = error.without_snippet();
    let what = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => return format!("`{key}` stands here for the second time"),
        Error::DuplicateMappingKey { .. } => return "a key stands here for the second time".to_owned(),
        Error::MultipleDocuments { .. } => return "a second document begins here".to_owned(),
        Error::Unexpected { .. } | Error::SerdeInvalidType { .. } => "lines of the form `key: value` are expected",
        Error::UnknownAnchor { .. } => "an alias (`*name`) of something that is not named above it",
        Error::ExternalMessage { msg, .. } => of_scanner(msg),
        Error::InvalidScalar { .. } | Error::InvalidBinaryBase64 { .. } => "a value that is not of the type of its tag",
        _ => "it cannot be read from here on",
    };
    match error.location() {
        Some(at) => format!("{what} (column {})", at.column()),
        None => what.to_owned(),
    }
}

/// The faults of people among those that the parser's scanner finds; it tells them apart by their text only.
fn of_scanner(message: &str) -> &'static str {
    const FAULTS: &[(&str, &str)] = &[
        ("found a tab", "a tab, where YAML takes spaces only"),
        ("unclosed", "a bracket that is not closed"),
        ("escape", "an escape that YAML does not know; between single quotation marks, `\\` stands for itself"),
        ("quoted", "a value whose quotation mark is not closed"),
        ("':'", "a colon that cannot stand here: a bracket above it may not be closed"),
        ("mapping values", "a second colon: the line is indented by mistake, or its value needs quotation marks"),
        ("unexpected character", "a value that begins with a character of YAML's own: put it into quotation marks"),
        ("recursion", "too many brackets inside each other"),
    ];
    let found = FAULTS.iter().find(|(part, _)| message.contains(part));
    found.map_or("it cannot be read from here on", |(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::value::Map;

    #[test]
    fn faults_are_described_without_the_words_of_the_parser() {
        for (text, expected) in [
            ("vmdk: a\nvmdk: b\n", "`vmdk` stands here for the second time"),
            ("vmdk: a\n---\nvmdk: b\n", "a second document begins here"),
            ("- a\n", "lines of the form `key: value` are expected (column 1)"),
            ("vmdk: *x\n", "an alias (`*name`) of something"),
            ("vmdk: &x [*x]\n", "it cannot be read from here on (column 11)"),
            ("vmdk: a\n\tb: 1\n", "a tab, where YAML takes spaces only"),
            ("vmdk: {a: 1\n", "a bracket that is not closed"),
            ("vmdk: [a\nthreads: 2\n", "a bracket above it may not be closed"),
            ("vmdk: \"C:\\q\"\n", "an escape that YAML does not know"),
            ("vmdk: \"a\n", "a value whose quotation mark is not closed"),
            ("vmdk: a: b\n", "a second colon"),
            ("vmdk: @a\n", "put it into quotation marks"),
            ("threads: !!int many\n", "a value that is not of the type of its tag"),
            (&format!("vmdk: {}", "[".repeat(5000)), "too many brackets inside each other"),
            ("? [a, b]\n: c\n", "lines of the form `key: value` are expected"),
        ] {
            let said = describe(&Map::parse(text).unwrap_err());
            assert!(said.contains(expected), "{text:?}: {said}");
        }
    }
}
