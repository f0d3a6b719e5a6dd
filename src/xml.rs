//! The elements of small XML documents, with their attributes: all that winject asks of OVF descriptions and `ReAgent.xml`.

use std::collections::HashMap;

/// An element's start tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element<'t> {
    /// Its name without a namespace prefix.
    pub name: &'t str,
    tag: &'t str,
}

impl Element<'_> {
    /// Its attributes, by their names without namespace prefixes.
    #[must_use]
    pub fn attributes(&self) -> HashMap<String, String> {
        let mut found = HashMap::new();
        let mut rest = self.tag;
        while let Some((key, after)) = rest.split_once('=') {
            let after = after.trim_start();
            let Some(quote) = after.chars().next().filter(|c| matches!(c, '"' | '\'')) else { break };
            let Some((value, tail)) = after[1..].split_once(quote) else { break };
            let key = key.trim().rsplit(':').next().unwrap_or_default();
            found.insert(key.to_owned(), unescape(value));
            rest = tail;
        }
        found
    }
}

/// The start tags of a document in their order, end tags and declarations among them. Comments are left out; a tag that
/// does not end ends the document.
#[derive(Debug)]
pub struct Elements<'t> {
    rest: &'t str,
}

impl<'t> Elements<'t> {
    /// Begins at the start of a text.
    #[must_use]
    pub fn new(text: &'t str) -> Self {
        Self { rest: text }
    }
}

impl<'t> Iterator for Elements<'t> {
    type Item = Element<'t>;

    fn next(&mut self) -> Option<Element<'t>> {
        loop {
            let (_, tag) = self.rest.split_once('<')?;
            if let Some(comment) = tag.strip_prefix("!--") {
                self.rest = comment.split_once("-->").map_or("", |(_, after)| after);
                continue;
            }
            let (tag, after) = split_tag(tag)?;
            self.rest = after;
            let name = tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
            let attributes = tag.get(name.len()..).unwrap_or_default();
            return Some(Element { name: name.rsplit(':').next().unwrap_or_default(), tag: attributes });
        }
    }
}

/// The text up to the `>` that ends the tag, and what follows it; one inside quotes does not end it.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return Some((text.get(..i)?, text.get(i + 1..)?)),
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
    }
    None
}

fn unescape(value: &str) -> String {
    value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_come_with_their_attributes() {
        let text = r#"<?xml version="1.0"?><!-- <a b="c"/> --><x:a y:b="1 &amp; &gt;" c='"'/><d e=">"></d>"#;
        let found: Vec<(&str, HashMap<String, String>)> =
            Elements::new(text).map(|element| (element.name, element.attributes())).collect();
        let attributes = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let expected: Vec<(&str, HashMap<String, String>)> = vec![
            ("?xml", attributes(&[("version", "1.0")])),
            ("a", attributes(&[("b", "1 & >"), ("c", "\"")])),
            ("d", attributes(&[("e", ">")])),
            ("", attributes(&[])),
        ];
        assert_eq!(found, expected);
    }

    proptest! {
        /// Any text gives an end, and no more elements than it has opening brackets.
        #[test]
        fn every_text_comes_to_an_end(text in "[<>a=\"'!/: \u{e4}-]{0,200}") {
            let mut count = 0;
            for element in Elements::new(&text) {
                prop_assert!(element.attributes().len() <= text.len());
                count += 1;
            }
            prop_assert!(count <= text.matches('<').count());
        }
    }
}
