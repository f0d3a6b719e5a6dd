//! The values of a document as they were written: keys in order, with the line of each.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value of a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `~`, or nothing after the colon.
    Null,
    /// The plain scalars `true` and `false`.
    Bool(bool),
    /// Any other scalar, as text.
    Text(String),
    /// `[…]` or lines with `-`.
    List(Vec<Value>),
    /// A mapping inside the document.
    Map(Map),
}

/// A mapping, its entries in the order of the document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(pub Vec<Entry>);

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key in the spelling of the document.
    pub key: String,
    /// Line of the key, counted from 1.
    pub line: u64,
    /// The value after the colon.
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
                read_entries(&mut access).map(Map)
            }
            // An empty document is an empty mapping.
            fn visit_unit<E>(self) -> Result<Map, E> {
                Ok(Map::default())
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

fn read_entries<'de, A: MapAccess<'de>>(access: &mut A) -> Result<Vec<Entry>, A::Error> {
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
                read_entries(&mut access).map(|entries| Value::Map(Map(entries)))
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
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
}
