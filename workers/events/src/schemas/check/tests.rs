//! What fits and what does not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn check(schema: &Value, value: &Value) -> Result<(), Violation> {
    Shape::of(schema).unwrap().check(value)
}

#[test]
fn each_keyword_is_obeyed() {
    for (schema, good, bad) in [
        (json!({"type": "string"}), json!("x"), json!(1)),
        (json!({"type": ["string", "null"]}), json!(null), json!(1)),
        (json!({"type": "integer"}), json!(1.0), json!(1.5)),
        (json!({"type": "number"}), json!(1), json!("1")),
        (json!({"enum": [1, "a", {"b": [2]}]}), json!({"b": [2.0]}), json!({"b": [3]})),
        (json!({"const": null}), json!(null), json!(false)),
        (json!({"minimum": 1}), json!(1), json!(0.99)),
        (json!({"maximum": 1}), json!(1), json!(1.01)),
        (json!({"exclusiveMinimum": 1}), json!(1.01), json!(1)),
        (json!({"exclusiveMaximum": 1}), json!(0.99), json!(1)),
        (json!({"multipleOf": 0.01}), json!(45000.07), json!(45000.075)),
        (json!({"minLength": 2}), json!("äö"), json!("ä")),
        (json!({"maxLength": 2}), json!("äö"), json!("äöü")),
        (json!({"pattern": "^[A-Z]+/[A-Z]+$"}), json!("BTC/USDT"), json!("btc")),
        (json!({"minItems": 1}), json!([1]), json!([])),
        (json!({"maxItems": 1}), json!([1]), json!([1, 2])),
        (json!({"uniqueItems": true}), json!([1, "1", [1]]), json!([1, 1.0])),
        (json!({"prefixItems": [{"type": "string"}], "items": false}), json!(["a"]), json!(["a", 1])),
        (json!({"items": {"type": "number"}}), json!([1, 2]), json!([1, "2"])),
        (json!({"contains": {"const": 1}}), json!([2, 1]), json!([2])),
        (json!({"contains": {"const": 1}, "minContains": 0, "maxContains": 1}), json!([]), json!([1, 1])),
        (json!({"minProperties": 1}), json!({"a": 1}), json!({})),
        (json!({"maxProperties": 1}), json!({"a": 1}), json!({"a": 1, "b": 2})),
        (json!({"required": ["a"]}), json!({"a": null}), json!({"b": 1})),
        (json!({"dependentRequired": {"a": ["b"]}}), json!({"b": 1}), json!({"a": 1})),
        (json!({"dependentSchemas": {"a": {"required": ["b"]}}}), json!({"c": 1}), json!({"a": 1})),
        (json!({"properties": {"a": {"type": "string"}}}), json!({"b": 1}), json!({"a": 1})),
        (json!({"patternProperties": {"^x": {"type": "number"}}}), json!({"x1": 1}), json!({"x1": "1"})),
        (json!({"properties": {"a": true}, "additionalProperties": false}), json!({"a": 1}), json!({"b": 1})),
        (json!({"propertyNames": {"maxLength": 1}}), json!({"a": 1}), json!({"ab": 1})),
        (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!(2), json!(3)),
        (json!({"anyOf": [{"const": 1}, {"const": 2}]}), json!(2), json!(3)),
        (json!({"oneOf": [{"minimum": 1}, {"minimum": 5}]}), json!(2), json!(6)),
        (json!({"not": {"type": "string"}}), json!(1), json!("x")),
        (json!({"if": {"const": 1}, "then": false, "else": true}), json!(2), json!(1)),
        (json!({"if": {"minimum": 5}, "else": {"const": 1}}), json!(1), json!(2)),
        (json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}}), json!("x"), json!(1)),
        (json!(true), json!(1), json!(null)),
    ] {
        assert_eq!(check(&schema, &good), Ok(()), "{schema} {good}");
        if schema != json!(true) {
            assert!(check(&schema, &bad).is_err(), "{schema} {bad}");
        }
    }
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let schema = json!({
        "type": "object",
        "required": ["symbol"],
        "properties": {"legs/all": {"items": {"properties": {"qty": {"exclusiveMinimum": 0}}}}},
    });
    let wrong = check(&schema, &json!({"symbol": "X", "legs/all": [{"qty": 1}, {"qty": -1}]})).unwrap_err();
    assert_eq!(wrong.pointer, "/legs~1all/1/qty");
    assert_eq!(wrong.what, "is not above 0");
    assert_eq!(check(&schema, &json!({})).unwrap_err().pointer, "/symbol");
}

#[test]
fn a_schema_may_contain_itself_but_not_for_ever() {
    let tree = json!({"properties": {"left": {"$ref": "#"}, "n": {"type": "number"}}, "required": ["n"]});
    assert_eq!(check(&tree, &json!({"n": 1, "left": {"n": 2, "left": {"n": 3}}})), Ok(()));
    assert_eq!(check(&tree, &json!({"n": 1, "left": {"left": {"n": 3}}})).unwrap_err().pointer, "/left/n");
    let itself = json!({"$ref": "#"});
    assert!(check(&itself, &json!(1)).unwrap_err().what.contains("levels"));
    // Nothing is proved by a branch that did not end.
    let denied = json!({"not": {"$ref": "#/$defs/x"}, "$defs": {"x": {"$ref": "#/$defs/x"}}});
    assert!(check(&denied, &json!(1)).is_err());
    // 2^30 looks at one value.
    let mut doubling = Map::new();
    for n in 0..30 {
        let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
        doubling.insert(n.to_string(), json!({"allOf": [next, next]}));
    }
    doubling.insert("30".to_owned(), json!(true));
    let bomb = json!({"$ref": "#/$defs/0", "$defs": doubling});
    let begun = std::time::Instant::now();
    assert!(check(&bomb, &json!(1)).unwrap_err().what.contains("steps"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-100_i64..100).prop_map(Value::from),
        (-100.0..100.0).prop_map(|float: f64| json!(float)),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// The schema that a value describes by itself: exactly this shape.
fn described(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let prefix: Vec<Value> = items.iter().map(described).collect();
            let mut schema = json!({"type": "array", "minItems": items.len(), "maxItems": items.len()});
            if !prefix.is_empty() {
                schema["prefixItems"] = json!(prefix);
            }
            schema
        }
        Value::Object(members) => {
            let of: Map<String, Value> =
                members.iter().map(|(name, member)| (name.clone(), described(member))).collect();
            let names: Vec<&String> = members.keys().collect();
            json!({"type": "object", "properties": of, "required": names, "additionalProperties": false})
        }
        leaf => json!({"const": leaf}),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A value fits the schema that describes it, and of two values one fits the other's only when they are equal.
    #[test]
    fn a_value_fits_its_own_description_alone(a in value(), b in value()) {
        let schema = described(&a);
        prop_assert_eq!(check(&schema, &a), Ok(()));
        prop_assert_eq!(check(&schema, &b).is_ok(), canonical(&a) == canonical(&b));
        let negated = json!({ "not": schema });
        prop_assert_eq!(check(&negated, &b).is_ok(), canonical(&a) != canonical(&b));
    }
}
