//! Whole schemas from the schemas of types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::cli::envelope::ANSWER_VERSION;

/// The generator for what we write: what is left out of JSON at times is not required.
pub(super) fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().for_serialize().into_generator()
}

/// The schema of an answer: the fields of `T`, name and version.
pub(super) fn answer<T: JsonSchema>(name: &str) -> Value {
    finish(name, generator().into_root_schema_for::<T>(), None)
}

/// The schema of lines that are of several kinds, which the field `tag` tells apart.
pub(super) fn lines<T: JsonSchema>(name: &str, tag: &str) -> Value {
    let mut schema = answer::<T>(name);
    let about = json!({ "type": "string", "description": "What the line tells." });
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(tag.to_owned(), about);
    }
    schema
}

/// The schema of an answer that is printed in parts: the fields of `T`, and a list of `Item` under the name `list`.
pub(super) fn list<T: JsonSchema, Item: JsonSchema>(name: &str, list: &str) -> Value {
    let mut generator = generator();
    let items = generator.subschema_for::<Item>();
    let items =
        schemars::json_schema!({ "type": "array", "items": items, "description": "What was found, one by one." });
    finish(name, generator.into_root_schema_for::<T>(), Some((list, items)))
}

/// The schema of a document that names its form in its own way.
pub(super) fn plain<T: JsonSchema>() -> Value {
    let mut schema = generator().into_root_schema_for::<T>().to_value();
    plain_descriptions(&mut schema);
    schema
}

fn finish(name: &str, schema: Schema, list: Option<(&str, Schema)>) -> Value {
    let mut schema = schema.to_value();
    if let Value::Object(root) = &mut schema {
        let mut added = Map::new();
        added.insert(
            "schema".to_owned(),
            json!({ "const": format!("winject/{name}"), "description": "The kind of document." }),
        );
        added.insert("version".to_owned(), json!({ "const": ANSWER_VERSION, "description": "Version of this kind." }));
        added.extend(list.map(|(list, items)| (list.to_owned(), items.to_value())));
        let names: Vec<Value> = added.keys().map(|name| Value::from(name.as_str())).collect();
        if let Value::Object(properties) = root.entry("properties").or_insert_with(|| json!({})) {
            properties.extend(added);
        }
        let required = root.entry("required").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(required) = required {
            let missing: Vec<Value> = names.into_iter().filter(|name| !required.contains(name)).collect();
            required.extend(missing);
        }
        root.insert("title".to_owned(), Value::from(format!("winject/{name}")));
    }
    plain_descriptions(&mut schema);
    schema
}

/// Turns the links of our documentation into words: ``[`Report::error`](a::b)`` is `Report::error`.
fn plain_descriptions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => *text = without_links(text),
                    other => plain_descriptions(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(plain_descriptions),
        _ => {}
    }
}

fn without_links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, behind)) = after.split_once("`]") else { break };
        out.push_str(before);
        out.push_str(&format!("`{name}`"));
        let target = behind.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(behind, |(_, behind)| behind);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_words() {
        assert_eq!(
            without_links("Always [`SCHEMA`]; see [`a`](b::c) and [d], [`e"),
            "Always `SCHEMA`; see `a` and [d], [`e"
        );
    }
}
