//! Spans as an `ExportTraceServiceRequest` in JSON: ids in hexadecimal, 64-bit numbers as texts, enumerations
//! as numbers (OTLP 1, "JSON Protobuf Encoding").

use serde_json::{Value, json};

use crate::spans::{Attribute, Kind, Span};

/// Status code of a span that failed.
const STATUS_ERROR: u8 = 2;

/// The body of one call.
pub(super) fn request(spans: &[Span]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        attribute("service.name", &Attribute::Text("sluice-edge".to_owned())),
        attribute("service.version", &Attribute::Text(version.to_owned())),
        attribute("process.pid", &Attribute::Number(i64::from(std::process::id()))),
    ];
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": { "name": "sluice", "version": version }, "spans": spans }],
        }],
    })
    .to_string()
    .into_bytes()
}

fn span(span: &Span) -> Value {
    let (from, to) = span.from_to_ns;
    let mut value = json!({
        "traceId": span.trace_id,
        "spanId": span.own_id,
        "name": span.name,
        "kind": match span.kind { Kind::Server => 2, Kind::Client => 3 },
        "startTimeUnixNano": from.to_string(),
        "endTimeUnixNano": to.max(from).to_string(),
        "attributes": span.attributes.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
        "status": if span.failed { json!({ "code": STATUS_ERROR }) } else { json!({}) },
        "flags": 1,
    });
    if let Some(parent) = &span.parent_id {
        value["parentSpanId"] = parent.as_str().into();
    }
    if let Some(state) = &span.state {
        value["traceState"] = state.as_str().into();
    }
    value
}

fn attribute(name: &str, value: &Attribute) -> Value {
    let value = match value {
        Attribute::Text(text) => json!({ "stringValue": text }),
        Attribute::Number(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": name, "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_the_specification_says() {
        let span = Span {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            own_id: "00f067aa0ba902b7".into(),
            parent_id: Some("00f067aa0ba902b8".into()),
            state: Some("a=1".into()),
            kind: Kind::Client,
            name: "GET".into(),
            from_to_ns: (1_700_000_000_000_000_001, 1_700_000_000_000_000_000),
            attributes: vec![("http.response.status_code", Attribute::Number(503))],
            failed: true,
        };
        let body: Value = serde_json::from_slice(&request(&[span])).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0],
            json!({"key": "service.name", "value": {"stringValue": "sluice-edge"}})
        );
        assert_eq!(
            resource["scopeSpans"][0]["spans"],
            json!([{
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                "spanId": "00f067aa0ba902b7",
                "parentSpanId": "00f067aa0ba902b8",
                "traceState": "a=1",
                "name": "GET",
                "kind": 3,
                "startTimeUnixNano": "1700000000000000001",
                "endTimeUnixNano": "1700000000000000001",
                "attributes": [{"key": "http.response.status_code", "value": {"intValue": "503"}}],
                "status": {"code": 2},
                "flags": 1,
            }])
        );
    }
}
