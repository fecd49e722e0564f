//! The document of this worker's calls, OpenAPI 3.1: put together from the tables beside, kept as
//! `conf/openapi/events.json`, served as `/openapi.json`. A test compares it with the router.

mod calls;
mod shapes;

use std::sync::LazyLock;

use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::context::raw_json;
use calls::{ANY, Body, CALLS, Call, Parameter};

/// `GET /openapi.json`: for everybody, as it says nothing about this worker's events.
pub(crate) async fn served() -> Response {
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| document().to_string().into_bytes());
    raw_json(TEXT.clone())
}

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for call in CALLS {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method] = operation(call);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Event streams: durable, in one order, read back by filter, replayed, streamed, handed \
                out to consumer groups. At least once: an event id is stored once within the dedup window.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "http://127.0.0.1:8011" }, { "url": "http://127.0.0.1:8000", "description": "the edge" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": shapes::all(),
            "responses": { "Problem": problem() },
        },
    })
}

fn problem() -> Value {
    json!({
        "description": "What is wrong, with a code for programs, and what became of the request.",
        "content": { "application/problem+json": { "schema": shape("Problem") } },
    })
}

fn shape(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn operation(call: &Call) -> Value {
    let in_path = call.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(call.query.iter().copied().flatten().map(parameter));
    let mut responses = Map::new();
    let (status, content_type, answer) = call.answer;
    let mut answered = json!({ "description": call.answered });
    if !content_type.is_empty() {
        let schema = if answer.is_empty() { json!({}) } else { shape(answer) };
        answered["content"] = json!({ content_type: { "schema": schema } });
    }
    responses.insert(status.to_owned(), answered);
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
    let mut told = json!({
        "operationId": operation_id(call),
        "summary": call.summary,
        "tags": [call.path.split('/').nth(1).unwrap_or_default()],
        "parameters": parameters,
        "responses": responses,
    });
    match call.scope {
        None => told["security"] = json!([]),
        Some(ANY) => told["description"] = "Needs a token, whatever it permits.".into(),
        Some(scope) => told["description"] = format!("Needs `{scope}`.").into(),
    }
    if let Some(body) = body(&call.body) {
        told["requestBody"] = body;
    }
    told
}

/// `get_events_id` of `GET /events/{id}`.
fn operation_id(call: &Call) -> String {
    let words = call.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(call.method.to_owned(), |id, word| format!("{id}_{word}"))
}

fn parameter(parameter: &Parameter) -> Value {
    let (name, kind, about) = *parameter;
    let schema = match kind {
        "strings" => json!({ "type": "array", "items": { "type": "string" } }),
        "true" => json!({ "type": "boolean" }),
        words if words.contains('|') => {
            json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() })
        }
        kind => json!({ "type": kind }),
    };
    json!({ "name": name, "in": "query", "description": about, "schema": schema })
}

fn body(body: &Body) -> Option<Value> {
    let (required, all): (bool, &[(&str, &str)]) = match body {
        Body::None => return None,
        Body::Maybe(all) => (false, all),
        Body::Needed(all) => (true, all),
    };
    let content: Map<String, Value> =
        all.iter().map(|(kind, name)| ((*kind).to_owned(), json!({ "schema": shape(name) }))).collect();
    Some(json!({ "required": required, "content": content }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Method and path of each route, as the router's source has them.
    fn routes() -> BTreeSet<(String, String)> {
        let source = include_str!("../api.rs");
        let mut found = BTreeSet::new();
        for route in source.split(".route(").skip(1) {
            let path = route.split('"').nth(1).unwrap().replace("{*", "{");
            let calls = route.split_once("\",").unwrap().1;
            for method in ["get", "post", "put", "patch", "delete"] {
                let named = |at: usize| calls[..at].ends_with([' ', '.', '\n', '(']) || at == 0;
                let call = format!("{method}(");
                if calls.match_indices(&call).any(|(at, _)| named(at)) {
                    found.insert((method.to_owned(), path.clone()));
                }
            }
        }
        found
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let routes = routes();
        assert!(routes.len() > 30, "{routes:?}");
        let described: BTreeSet<_> =
            CALLS.iter().map(|call| (call.method.to_owned(), call.path.to_owned())).collect();
        assert_eq!(described.len(), CALLS.len(), "a call is described twice");
        assert_eq!(described, routes);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_shape_is_used() {
        let document = document();
        let text = document.to_string();
        let mut named = BTreeSet::new();
        for found in text.split("\"$ref\":\"").skip(1) {
            let place = found.split('"').next().unwrap();
            assert!(document.pointer(place.trim_start_matches('#')).is_some(), "{place} leads nowhere");
            named.insert(place.rsplit('/').next().unwrap().to_owned());
        }
        let shapes = document["components"]["schemas"].as_object().unwrap().keys();
        let idle: Vec<_> = shapes.filter(|name| !named.contains(*name)).collect();
        assert!(idle.is_empty(), "nothing refers to {idle:?}");
        let ids: BTreeSet<_> = CALLS.iter().map(operation_id).collect();
        assert_eq!(ids.len(), CALLS.len());
    }

    #[test]
    fn the_file_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/openapi/events.json");
        let written = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("SLUICE_WRITE").is_some() {
            std::fs::write(path, &written).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(kept == written, "run this test with SLUICE_WRITE=1 and look at the difference");
    }
}
