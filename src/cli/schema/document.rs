//! The schema of the YAML document of `--config`, from its keys and the options that they stand for.

use std::any::TypeId;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command};
use serde_json::{Map, Value, json};

use crate::cli::document::key_names;

/// The commands whose options are keys of a document.
const COMMANDS: [&str; 2] = ["inject", "convert"];

/// Keys that are spelt otherwise than the option or operand that they stand for.
const OPERANDS: [(&str, &str); 3] = [("image", "image"), ("to_output", "output"), ("drivers", "drivers")];

/// The schema. Upper and lower case mean the same in a document; the schema wants the spelling of the documentation.
pub(super) fn schema(mut cli: Command) -> Value {
    cli.build();
    let options: Vec<&Arg> =
        COMMANDS.iter().filter_map(|name| cli.find_subcommand(name)).flat_map(Command::get_arguments).collect();
    let mut properties = Map::new();
    for names in key_names() {
        let option = options.iter().find(|option| stands_for(names, option));
        let schema = option.map_or_else(|| json!({}), |option| of_option(option));
        for (i, name) in names.iter().enumerate() {
            let mut schema = schema.clone();
            let about = match (option.and_then(|option| option.get_help()), names.first()) {
                (_, Some(first)) if i > 0 => format!("The same as {first}."),
                (Some(help), _) => help.to_string(),
                (None, _) => about_others(name).to_owned(),
            };
            if let Value::Object(schema) = &mut schema {
                schema.insert("description".to_owned(), about.into());
            }
            properties.insert((*name).to_owned(), schema);
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "winject --config",
        "description": "A run of winject inject or winject convert. Paths are relative to the folder of the document.",
        "type": "object",
        "properties": properties,
    })
}

/// Whether a key of these names stands for the option.
fn stands_for(names: &[&str], option: &Arg) -> bool {
    let id = option.get_id().as_str();
    let operand = OPERANDS.iter().any(|(key, operand)| names.contains(key) && id == *operand);
    names.contains(&id) && !(option.is_positional() && id == "output") || operand
}

/// What a key without an option of its own is for.
fn about_others(name: &str) -> &'static str {
    match name {
        "cmd" => "Always `local`: a disk image on this machine.",
        "windows" => "Always yes.",
        "output_dir" => "Folder of the new image, which gets the input's name there if to_output is missing.",
        "remove_vmware_tools" => "The same as remove_tools: vmware.",
        _ => "A key of other programs, without effect here.",
    }
}

/// The values that a key takes. `null` is as good as no key at all.
fn of_option(option: &Arg) -> Value {
    let flag = || json!({ "enum": [true, false, 0, 1, "yes", "no", "on", "off", "true", "false", null] });
    if matches!(option.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        return flag();
    }
    let words: Vec<Value> =
        option.get_possible_values().iter().flat_map(PossibleValue::get_name_and_aliases).map(Value::from).collect();
    let kind = option.get_value_parser().type_id();
    let is_number = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()].iter().any(|id| kind == *id);
    let is_optional = option.get_num_args().is_some_and(|range| range.min_values() == 0);
    let one = match (is_number, words.is_empty(), is_optional) {
        (true, ..) => json!({ "type": ["integer", "string", "null"], "minimum": 0 }),
        // A value that can be left out: yes or no, or the value.
        (_, _, true) => json!({ "type": ["string", "boolean", "integer", "null"] }),
        (_, true, _) => json!({ "type": ["string", "number", "boolean", "null"] }),
        (_, false, _) => {
            // YAML takes `on` and `off` for yes and no.
            let switches = words.contains(&"on".into()) || words.contains(&"off".into());
            let switches = if switches { vec![true.into(), false.into()] } else { Vec::new() };
            let values = [words, switches, vec![Value::Null]].concat();
            json!({ "enum": values })
        }
    };
    match option.get_action() {
        // Words of a list may stand in one text, with commas.
        ArgAction::Append => {
            json!({ "anyOf": [one, { "type": ["string", "null"] }, { "type": "array", "items": one }] })
        }
        _ => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_key_is_described_by_its_option() {
        let schema = schema(Cli::command());
        let properties = schema["properties"].as_object().unwrap();
        let about = |key: &str| properties[key]["description"].as_str().unwrap().to_owned();
        for key in ["vmdk", "in_place", "threads", "report", "registration", "allow_path", "to_output"] {
            assert!(!about(key).contains("without effect"), "{key}: {}", about(key));
        }
        assert_eq!(about("vcpus"), "A key of other programs, without effect here.");
        assert_eq!(about("image"), "The same as vmdk.");
        let without = properties.keys().filter(|key| about(key).contains("without effect")).count();
        assert!(without > 20 && without < 40, "{without}");
        assert_eq!(properties["registration"]["enum"], json!(["minimal", "full", null]));
        assert_eq!(properties["partition"]["type"], json!(["integer", "string", "null"]));
    }
}
