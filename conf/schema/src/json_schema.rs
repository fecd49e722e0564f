//! The JSON Schema of the file, for editors: made from the same walk that reads it.

use std::collections::BTreeMap;

use schemars::Schema;
use serde_json::{Map, Value, json};

use crate::keys;
use crate::planned::without_indexes;
use crate::reader::Description;
use crate::show::{Setting, describe_schemas};

/// The JSON Schema (draft 2020-12) of `sluice.toml`.
pub fn json_schema() -> Value {
    let description = describe_schemas(&keys::specimen());
    let mut root = Node::default();
    for setting in &description.settings {
        root.insert(&setting.path, setting);
    }
    let mut schema = root.object("", &description);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Sluice configuration"));
    Value::Object(schema)
}

/// A table, with what lies below it by name (`service[0]` for tables that repeat).
#[derive(Default)]
struct Node<'a> {
    keys: BTreeMap<String, Vec<&'a Setting>>,
    tables: BTreeMap<String, Node<'a>>,
}

impl<'a> Node<'a> {
    fn insert(&mut self, path: &str, setting: &'a Setting) {
        match path.split_once('.') {
            Some((table, rest)) => self.tables.entry(table.to_owned()).or_default().insert(rest, setting),
            None => self.keys.entry(path.to_owned()).or_default().push(setting),
        }
    }

    fn object(&self, path: &str, description: &Description) -> Map<String, Value> {
        let mut properties = Map::new();
        for (name, settings) in &self.keys {
            for setting in settings {
                properties.insert(name.clone(), key(setting));
            }
        }
        for (name, table) in &self.tables {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let mut schema = table.object(&path, description);
            if let Some(doc) = description.tables.get(&path) {
                schema.insert("description".to_owned(), json!(doc));
            }
            let mut schema = Value::Object(schema);
            if name.ends_with(']') {
                schema = json!({ "type": "array", "items": schema });
            }
            let name = without_indexes(name);
            let either = properties.remove(&name).map(|short| json!({ "anyOf": [short, schema.clone()] }));
            properties.insert(name, either.unwrap_or(schema));
        }
        let required: Vec<_> = properties
            .keys()
            .filter(|name| description.required.contains(&format!("{path}.{name}")))
            .cloned()
            .collect();
        let mut object = Map::new();
        object.insert("type".to_owned(), json!("object"));
        object.insert("additionalProperties".to_owned(), json!(false));
        if !required.is_empty() {
            object.insert("required".to_owned(), json!(required));
        }
        object.insert("properties".to_owned(), Value::Object(properties));
        object
    }
}

fn key(setting: &Setting) -> Value {
    let mut schema: Schema = setting.schema.clone().unwrap_or_default();
    schema.insert("description".to_owned(), json!(setting.doc));
    // Names and addresses have no default; the specimen's are made up.
    if setting.shown && !setting.value.is_null() && !is_specimen(&setting.value) {
        schema.insert("default".to_owned(), setting.value.clone());
    }
    schema.to_value()
}

fn is_specimen(value: &Value) -> bool {
    value == "" || value == "http://127.0.0.1:1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_closed_and_every_key_is_described() {
        fn walk(schema: &Value, path: &str) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                assert_eq!(schema["additionalProperties"], json!(false), "{path}");
                for (name, property) in properties {
                    walk(property, &format!("{path}.{name}"));
                }
            } else if let Some(forms) = schema.get("anyOf").and_then(Value::as_array) {
                for form in forms {
                    walk(form, path);
                }
            } else if schema["items"].get("properties").is_some() {
                walk(&schema["items"], path);
            } else {
                assert!(schema["description"].is_string(), "{path} has no description");
                let forms = schema["oneOf"].as_array().is_some_and(|forms| !forms.is_empty());
                assert!(schema["type"].is_string() || forms, "{path} has no type");
            }
        }
        let schema = json_schema();
        walk(&schema, "");
        assert_eq!(schema["properties"]["edge"]["properties"]["listen"]["default"], json!("0.0.0.0:8000"));
        assert_eq!(schema["properties"]["service"]["items"]["required"], json!(["name", "prefix"]));
        assert!(schema["properties"]["service"]["items"]["properties"]["rate_limit"]["anyOf"].is_array());
    }
}
