#!/usr/bin/env python3
"""schemacheck.py FOLDER

Validates the JSON documents FOLDER/*.json with the schemas FOLDER/schemas/NAME.json (JSON Schema 2020-12).
A document names its schema in its field "schema" (winject/NAME); one called config-*.json is checked with "config".
Objects of the schemas are closed first: a field that a schema does not describe is a fault.
Prints each fault and the names of the schemas that were used; exit 1 if there is a fault.
"""
import json
import pathlib
import sys

from jsonschema import Draft202012Validator


# Documents that name their form in their own way.
NAMES = {"winject.plan.v1": "plan"}


def close(schema, is_part=False):
    """Forbids unknown fields where a schema lists the fields of an object. The alternatives of an object are parts of it."""
    if isinstance(schema, list):
        for item in schema:
            close(item, is_part)
        return
    if not isinstance(schema, dict):
        return
    has_fields = "properties" in schema
    if has_fields and not is_part and "additionalProperties" not in schema:
        schema["unevaluatedProperties"] = False
    for key, value in schema.items():
        if key in ("properties", "$defs", "patternProperties"):
            for inner in value.values():
                close(inner)
        elif key in ("allOf", "anyOf", "oneOf"):
            close(value, is_part or has_fields)
        elif key in ("items", "additionalProperties", "prefixItems"):
            close(value)


def find_parts(schema, parts):
    """Collects the definitions that are parts of an object with fields of its own."""
    if isinstance(schema, list):
        for item in schema:
            find_parts(item, parts)
    elif isinstance(schema, dict):
        if "properties" in schema and "$ref" in schema:
            parts.add(schema["$ref"].rsplit("/", 1)[-1])
        for value in schema.values():
            find_parts(value, parts)


def main():
    folder = pathlib.Path(sys.argv[1])
    validators = {}
    for path in sorted((folder / "schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        if path.stem != "config":
            parts = set()
            find_parts(schema, parts)
            for name, part in schema.get("$defs", {}).items():
                close(part, name in parts)
            close({key: value for key, value in schema.items() if key != "$defs"})
            if "properties" in schema:
                schema["unevaluatedProperties"] = False
        validators[path.stem] = Draft202012Validator(schema)
    used, faults = set(), 0
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        name = "config" if path.name.startswith("config-") else NAMES.get(document.get("schema"), document.get("schema", "").removeprefix("winject/"))
        if name not in validators:
            print(f"{path.name}: no schema of the name {name!r}")
            faults += 1
            continue
        used.add(name)
        for error in validators[name].iter_errors(document):
            print(f"{path.name}: {error.json_path}: {error.message[:300]}")
            faults += 1
    print("used:", " ".join(sorted(used)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
