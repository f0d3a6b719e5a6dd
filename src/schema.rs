//! How types write themselves as JSON that do not derive it, with their JSON Schemas; the others derive theirs, with the feature `cli`.

/// Gives a type the schema of another type that looks the same as JSON.
macro_rules! json_schema_as {
    ($type:ty, $form:ty) => {
        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$form as schemars::JsonSchema>::schema_name()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$form as schemars::JsonSchema>::json_schema(generator)
            }
        }
    };
}

/// Has a type that has a stable `name` show and write itself by it.
macro_rules! written_by_name {
    ($type:ty) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        crate::schema::json_schema_as!($type, String);
    };
}

/// Gives a type that is written as an object of texts and numbers its schema: `field: "type" = "what it is"`.
macro_rules! json_schema_object {
    ($type:ty, $name:literal, $($field:literal: $kind:literal = $about:literal),+ $(,)?) => {
        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "object",
                    "properties": { $($field: { "type": $kind, "description": $about }),+ },
                    "required": [$($field),+],
                })
            }
        }
    };
}

pub(crate) use {json_schema_as, json_schema_object, written_by_name};
