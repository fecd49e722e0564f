//! What is a schema here and what is not.

use serde_json::json;

use super::*;

#[test]
fn what_is_not_obeyed_is_refused_where_it_stands() {
    for (schema, pointer) in [
        (json!([]), ""),
        (json!({"type": "float"}), "/type"),
        (json!({"properties": {"a/b": {"minimum": "1"}}}), "/properties/a~1b/minimum"),
        (json!({"$ref": "https://example.com/schema"}), "/$ref"),
        (json!({"$ref": "file:///etc/passwd"}), "/$ref"),
        (json!({"$ref": "#anchor"}), "/$ref"),
        (json!({"$ref": "#/$defs/none"}), "/$ref"),
        (json!({"unevaluatedProperties": false}), "/unevaluatedProperties"),
        (json!({"$dynamicRef": "#x"}), "/$dynamicRef"),
        (json!({"items": [{}]}), "/items"),
        (json!({"pattern": "(a"}), "/pattern"),
        (json!({"pattern": "(a{1000}){1000}"}), "/pattern"),
        (json!({"pattern": "(?=x)"}), "/pattern"),
        (json!({"properties": {"a": {"$id": "x"}}}), "/properties/a/$id"),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "/$schema"),
        (json!({"allOf": []}), "/allOf"),
        (json!({"multipleOf": 0}), "/multipleOf"),
        (json!({"tpye": "object"}), "/tpye"),
        // Found when the reference is followed.
        (json!({"$ref": "#/$defs/a", "$defs": {"a": {"tpye": 1}}}), "/$defs/a/tpye"),
    ] {
        assert_eq!(Shape::of(&schema).unwrap_err().pointer, pointer, "{schema}");
    }
}

#[test]
fn size_is_bounded() {
    let many: Map<String, Value> = (0..NODES_MAX).map(|n| (n.to_string(), json!({}))).collect();
    assert!(Shape::of(&json!({ "properties": many })).is_err());
    let chain: Map<String, Value> = (0..2_000)
        .map(|n| (n.to_string(), json!({"$ref": format!("#/$defs/{}", (n + 1) % 2_000)})))
        .collect();
    let shape = Shape::of(&json!({"$ref": "#/$defs/0", "$defs": chain})).unwrap();
    assert_eq!(shape.nodes.len(), 2_001);
    let patterns: Vec<Value> = (0..=PATTERNS_MAX).map(|_| json!({"pattern": "a"})).collect();
    assert!(Shape::of(&json!({ "allOf": patterns })).is_err());
}
