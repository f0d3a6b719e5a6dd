//! YAML documents as they were written: keys in order, with the line of each, so that messages can point at them.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A value of a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `~`, or nothing behind the colon.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// Any other scalar, as text.
    Text(String),
    /// `[…]` or lines with `-`.
    List(Vec<Value>),
    /// A mapping inside the document.
    Map(Map),
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(pub Vec<Entry>);

/// One line of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    /// Of the key, counted from 1.
    pub line: u64,
    pub value: Value,
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = Map;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping (lines of the form `key: value`)")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Map, A::Error> {
                entries(&mut access).map(Map)
            }
            // An empty document is an empty mapping.
            fn visit_unit<E>(self) -> Result<Map, E> {
                Ok(Map::default())
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

fn entries<'de, A: MapAccess<'de>>(access: &mut A) -> Result<Vec<Entry>, A::Error> {
    let mut out = Vec::new();
    while let Some((key, value)) = access.next_entry::<Spanned<String>, Value>()? {
        out.push(Entry { line: key.referenced.line(), key: key.value, value });
    }
    Ok(out)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Text(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Text(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Text(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut out = Vec::new();
                while let Some(value) = access.next_element()? {
                    out.push(value);
                }
                Ok(Value::List(out))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                entries(&mut access).map(|entries| Value::Map(Map(entries)))
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// How many single edits (insert, delete, replace, swap of neighbours) lie between two words.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == &b[j - 1] && &a[i - 1] == y {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

/// The known word that is nearest to `word`, if any is near enough to have been meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_lines() {
        let map: Map = serde_saphyr::from_str("a: 1\n\n# two\nb: [x, 'true', true]\nc:\n  d: ~\n").unwrap();
        let lines: Vec<(&str, u64)> = map.0.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(lines, [("a", 1), ("b", 4), ("c", 5)]);
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(map.0[0].value, text("1"));
        assert_eq!(map.0[1].value, Value::List(vec![text("x"), text("true"), Value::Bool(true)]));
        assert!(matches!(&map.0[2].value, Value::Map(inner) if inner.0[0].value == Value::Null));
    }

    #[test]
    fn the_nearest_word() {
        let known = ["virtio_drivers_dir", "vmdk", "output_dir"];
        assert_eq!(nearest("virtio_driver_dir", known), Some("virtio_drivers_dir"));
        assert_eq!(nearest("vdmk", known), Some("vmdk"));
        assert_eq!(nearest("something_else", known), None);
    }
}
