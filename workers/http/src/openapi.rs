//! A worker's calls as OpenAPI 3.1, put together from a table of them and the shapes of their bodies.
//!
//! What [`loose_ends`], [`routes_in`] and [`is_kept`] find out is for tests: a document that says something else than the
//! router is worse than none.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

/// A query parameter: its name; its type, its words by `|`, or `strings` for a repeatable one; what it means.
pub type Parameter = (&'static str, &'static str, &'static str);

/// What a call takes: media types with their shapes.
#[derive(Debug)]
pub enum Body {
    /// No body.
    None,
    /// One of these, which may be left out.
    Maybe(&'static [(&'static str, &'static str)]),
    /// One of these.
    Needed(&'static [(&'static str, &'static str)]),
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Method, lower case.
    pub method: &'static str,
    /// Path with its parameters in braces.
    pub path: &'static str,
    summary: &'static str,
    /// Permission; `None` where nobody is asked who they are.
    scope: Option<&'static str>,
    query: &'static [&'static [Parameter]],
    body: Body,
    /// What a good answer means.
    answered: &'static str,
    /// Its status, media type and shape; empty where there is none.
    answer: (&'static str, &'static str, &'static str),
    /// Other media types that it may have, with their shapes.
    forms: &'static [(&'static str, &'static str)],
}

/// Who has a token, whatever it permits.
pub const ANY: &str = "";

impl Call {
    /// A call that needs a permission and answers 200 with JSON.
    pub const fn new(
        method: &'static str,
        path: &'static str,
        summary: &'static str,
        scope: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            summary,
            scope: Some(scope),
            query: &[],
            body: Body::None,
            answered: "Done.",
            answer: ("200", "application/json", ""),
            forms: &[],
        }
    }

    /// It needs no credential.
    #[must_use]
    pub const fn open(mut self) -> Self {
        self.scope = None;
        self
    }

    /// Its query parameters.
    #[must_use]
    pub const fn query(mut self, query: &'static [&'static [Parameter]]) -> Self {
        self.query = query;
        self
    }

    /// It needs a body.
    #[must_use]
    pub const fn needs(mut self, body: &'static [(&'static str, &'static str)]) -> Self {
        self.body = Body::Needed(body);
        self
    }

    /// It takes a body.
    #[must_use]
    pub const fn takes(mut self, body: &'static [(&'static str, &'static str)]) -> Self {
        self.body = Body::Maybe(body);
        self
    }

    /// What a good answer means and its shape.
    #[must_use]
    pub const fn answers(mut self, answered: &'static str, shape: &'static str) -> Self {
        self.answered = answered;
        self.answer.2 = shape;
        self
    }

    /// Status and media type of a good answer.
    #[must_use]
    pub const fn by(mut self, status: &'static str, content_type: &'static str) -> Self {
        self.answer.0 = status;
        self.answer.1 = content_type;
        self
    }

    /// Other media types of a good answer, by `Accept`, with their shapes.
    #[must_use]
    pub const fn or(mut self, forms: &'static [(&'static str, &'static str)]) -> Self {
        self.forms = forms;
        self
    }

    /// `get_events_id` of `GET /events/{id}`.
    fn id(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.fold(self.method.to_owned(), |id, word| format!("{id}_{word}"))
    }

    fn operation(&self) -> Value {
        let in_path = self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let mut parameters: Vec<Value> = in_path
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        parameters.extend(self.query.iter().copied().flatten().map(parameter));
        let mut responses = Map::new();
        let (status, content_type, answer) = self.answer;
        let mut answered = json!({ "description": self.answered });
        if !content_type.is_empty() {
            let schema = if answer.is_empty() { json!({}) } else { shape(answer) };
            answered["content"] = content(self.forms);
            answered["content"][content_type] = json!({ "schema": schema });
        }
        responses.insert(status.to_owned(), answered);
        responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
        let mut told = json!({
            "operationId": self.id(),
            "summary": self.summary,
            "tags": [self.path.split('/').nth(1).unwrap_or_default()],
            "parameters": parameters,
            "responses": responses,
        });
        match self.scope {
            None => told["security"] = json!([]),
            Some(ANY) => told["description"] = "Needs a token, whatever it permits.".into(),
            Some(scope) => told["description"] = format!("Needs `{scope}`.").into(),
        }
        if let Some(body) = body(&self.body) {
            told["requestBody"] = body;
        }
        told
    }
}

/// The document of a worker on this port: its title, what it is about, its calls and the shapes of their bodies.
/// One of the shapes is `Problem`.
pub fn document(
    title: &str,
    description: &str,
    port: u16,
    calls: &[Call],
    shapes: Map<String, Value>,
) -> Value {
    let mut paths = Map::new();
    for call in calls {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method] = call.operation();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": description,
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [
            { "url": format!("http://127.0.0.1:{port}") },
            { "url": "http://127.0.0.1:8000", "description": "the edge" },
        ],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": shapes,
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

/// A reference to a shape.
pub fn shape(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object: members by name, those with `!` at the end are needed.
pub fn object(members: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = members.iter().filter_map(|(name, _)| name.strip_suffix('!')).collect();
    let properties: Map<String, Value> =
        members.iter().map(|(name, shape)| (name.trim_end_matches('!').to_owned(), shape.clone())).collect();
    let mut object = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// A string.
pub fn text() -> Value {
    json!({ "type": "string" })
}

/// A whole number from 0 on.
pub fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// A truth.
pub fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// An object of any members.
pub fn any() -> Value {
    json!({ "type": "object" })
}

/// An array.
pub fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
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
    Some(json!({ "required": required, "content": content(all) }))
}

/// Media types with their shapes.
fn content(all: &[(&str, &str)]) -> Value {
    let each = |(kind, name): &(&str, &str)| ((*kind).to_owned(), json!({ "schema": shape(name) }));
    Value::Object(all.iter().map(each).collect())
}

/// What hangs loose in a document: references that lead nowhere, shapes that nothing refers to, an operation id that is
/// another's.
pub fn loose_ends(document: &Value) -> Vec<String> {
    let text = document.to_string();
    let (mut named, mut loose) = (BTreeSet::new(), Vec::new());
    for found in text.split("\"$ref\":\"").skip(1) {
        let place = found.split('"').next().unwrap_or_default();
        if document.pointer(place.trim_start_matches('#')).is_none() {
            loose.push(format!("{place} leads nowhere"));
        }
        named.insert(place.rsplit('/').next().unwrap_or_default());
    }
    let shapes = document["components"]["schemas"].as_object().into_iter().flatten();
    loose.extend(
        shapes.filter(|(name, _)| !named.contains(name.as_str())).map(|(name, _)| format!("{name} is idle")),
    );
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(_, calls)| calls.as_object().into_iter().flatten());
    let mut ids = BTreeSet::new();
    for (_, operation) in operations {
        let id = operation["operationId"].to_string();
        if !ids.insert(id.clone()) {
            loose.push(format!("{id} is there twice"));
        }
    }
    loose
}

/// Method and path of each route that a router's source names; `any` stands for `every`.
pub fn routes_in(source: &str, every: &[&str]) -> BTreeSet<(String, String)> {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let mut found = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let Some((path, calls)) = route[1..].split_once("\",") else { continue };
        let path = path.trim_start().trim_start_matches('"').replace("{*", "{");
        let calls = &calls[..end_of(calls)];
        let names = |method: &str| {
            calls
                .match_indices(&format!("{method}("))
                .any(|(at, _)| at == 0 || calls[..at].ends_with([' ', '.', '\n', '(']))
        };
        let named = METHODS.into_iter().filter(|method| names(method));
        let all = every.iter().copied().filter(|_| names("any"));
        found.extend(named.chain(all).map(|method| (method.to_owned(), path.clone())));
    }
    found
}

/// Where the bracket closes that was open before.
fn end_of(text: &str) -> usize {
    let mut open = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => open += 1,
            b')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return at;
        }
    }
    text.len()
}

/// Whether the file at `path` holds the document; with `SLUICE_WRITE` in the environment it is written first.
pub fn is_kept(path: &Path, document: &Value) -> io::Result<bool> {
    let text = format!("{document:#}\n");
    if std::env::var_os("SLUICE_WRITE").is_some() {
        std::fs::write(path, &text)?;
    }
    Ok(std::fs::read_to_string(path)? == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_from_the_source_of_a_router() {
        let source = r#"
            .route("/a/{*path}", any(all)).route("/b", get(|x| read(x)).post(write))
            .route(
                "/c/{id}",
                delete(remove),
            )
            map.get(x)"#;
        let routes = routes_in(source, &["get", "put"]);
        let of = |method: &str, path: &str| (method.to_owned(), path.to_owned());
        let want = [
            of("get", "/a/{path}"),
            of("put", "/a/{path}"),
            of("get", "/b"),
            of("post", "/b"),
            of("delete", "/c/{id}"),
        ];
        assert_eq!(routes, BTreeSet::from(want));
    }

    #[test]
    fn loose_ends_are_found() {
        const CALLS: &[Call] = &[
            Call::new("get", "/a", "A", ANY).answers("It.", "Missing"),
            Call::new("get", "/a-", "The same id", ANY),
        ];
        let shapes =
            [("Problem", json!({})), ("Idle", json!({}))].map(|(name, shape)| (name.to_owned(), shape));
        let document = document("t", "d", 1, CALLS, shapes.into_iter().collect());
        let loose = loose_ends(&document);
        assert_eq!(
            loose,
            ["#/components/schemas/Missing leads nowhere", "Idle is idle", "\"get_a\" is there twice"]
        );
    }
}
