//! JSON bodies of the calls that are not publishes.

use http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::json as strict;
use sluice_wire::problem::Problem;

/// Reads a body strictly: an object, for serde would take an array of a struct's members too, and `[]` as one that
/// names nothing. What is JSON but not of the form asked for is a bad request, by its own code.
pub(crate) fn document<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Reject> {
    let is_json = media_type(headers).is_none_or(|kind| kind == "application/json");
    if !is_json {
        return Err(Reject::new(Code::UnsupportedMediaType, "the body must be application/json"));
    }
    let read = strict::from_slice(body).map_err(|error| {
        let code = if error.shape { Code::BadRequest } else { Code::InvalidJson };
        Problem::new(code).detail(error.to_string()).into()
    });
    match body.trim_ascii_start().first() {
        Some(b'[') if read.is_ok() => Err(Reject::new(Code::BadRequest, "the body is not an object")),
        _ => read,
    }
}

/// The media type of a body in lower case, without its parameters; `None` where none is named.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let named = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("");
    Some(named.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Form {
        _name: Option<String>,
    }

    #[test]
    fn a_document_is_an_object() {
        let read =
            |body: &[u8]| document::<Form>(&HeaderMap::new(), body).map_err(|reject| reject.problem().code);
        assert!(read(b" {}").is_ok());
        for body in [&b"[]"[..], b" [null]", b"[\"x\"]", b"7"] {
            assert_eq!(read(body).unwrap_err(), Code::BadRequest);
        }
        assert_eq!(read(b"[").unwrap_err(), Code::InvalidJson);
    }
}
