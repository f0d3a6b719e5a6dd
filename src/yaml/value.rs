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

impl Map {
    /// Reads a text. Keys and numbers stay as they were written: the file `0123` is not the file `123`.
    pub(super) fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str::<RawMap>(text).map(|map| map.to_map(text))
    }
}

/// A mapping as the parser gives it.
struct RawMap(Vec<(Spanned<String>, Spanned<Raw>)>);

/// A value as the parser gives it: of a number, only that it is one.
enum Raw {
    Null,
    Bool(bool),
    /// Its value in decimal digits, if the place of its text should not be known.
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(RawMap),
}

impl RawMap {
    fn to_map(&self, text: &str) -> Map {
        let entry = |(key, value): &(Spanned<String>, Spanned<Raw>)| Entry {
            key: key.value.clone(),
            line: key.referenced.line(),
            value: to_value(value, text),
        };
        Map(self.0.iter().map(entry).collect())
    }
}

fn to_value(raw: &Spanned<Raw>, text: &str) -> Value {
    match &raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(*value),
        Raw::Number(number) => {
            let span = raw.defined.span();
            let place = || {
                let start = usize::try_from(span.byte_offset()?).ok()?;
                let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
                text.get(start..end).map(str::trim).filter(|written| !written.is_empty())
            };
            Value::Text(place().unwrap_or(number).to_owned())
        }
        Raw::Text(value) => Value::Text(value.clone()),
        Raw::List(values) => Value::List(values.iter().map(|value| to_value(value, text)).collect()),
        Raw::Map(map) => Value::Map(map.to_map(text)),
    }
}

impl<'de> Deserialize<'de> for RawMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = RawMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping (lines of the form `key: value`)")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawMap, A::Error> {
                read_entries(&mut access)
            }
            // An empty document is an empty mapping.
            fn visit_unit<E>(self) -> Result<RawMap, E> {
                Ok(RawMap(Vec::new()))
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

fn read_entries<'de, A: MapAccess<'de>>(access: &mut A) -> Result<RawMap, A::Error> {
    let mut out = Vec::new();
    while let Some(entry) = access.next_entry()? {
        out.push(entry);
    }
    Ok(RawMap(out))
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Number(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Number(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Number(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut out = Vec::new();
                while let Some(value) = access.next_element()? {
                    out.push(value);
                }
                Ok(Raw::List(out))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                read_entries(&mut access).map(Raw::Map)
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
        let map = Map::parse("a: 1\n\n# two\nb: [x, 'true', true]\nc:\n  d: ~\n").unwrap();
        let lines: Vec<(&str, u64)> = map.0.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(lines, [("a", 1), ("b", 4), ("c", 5)]);
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(map.0[0].value, text("1"));
        assert_eq!(map.0[1].value, Value::List(vec![text("x"), text("true"), Value::Bool(true)]));
        assert!(matches!(&map.0[2].value, Value::Map(inner) if inner.0[0].value == Value::Null));
    }

    #[test]
    fn numbers_stay_as_they_were_written() {
        let written = ["1e23", "0x1F", "0123", "1_000", "-0", "+7", "1.50", ".5", "0o17", "18446744073709551616"];
        for number in written {
            for text in [
                format!("é: ü\na: {number}   # and more\n"),
                format!("a: [é, {number}, 1]\n"),
                format!("a: {{b: {number}}}\n"),
                format!("b: &n {number}\na: *n\n"),
            ] {
                let map = Map::parse(&text).unwrap();
                let value = map.0.into_iter().find(|entry| entry.key == "a").unwrap().value;
                let value = match value {
                    Value::List(values) => values[1].clone(),
                    Value::Map(map) => map.0[0].value.clone(),
                    value => value,
                };
                assert_eq!(value, Value::Text(number.to_owned()), "{text}");
            }
        }
    }
}
