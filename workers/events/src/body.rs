//! JSON bodies of the calls that are not publishes.

use http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::json as strict;
use sluice_wire::problem::Problem;

/// Reads a body strictly. What is JSON but not of the form asked for is a bad request, by its own code.
pub(crate) fn document<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Reject> {
    let is_json = media_type(headers).is_none_or(|kind| kind == "application/json");
    if !is_json {
        return Err(Reject::new(Code::UnsupportedMediaType, "the body must be application/json"));
    }
    strict::from_slice(body).map_err(|error| {
        let code = if error.shape { Code::BadRequest } else { Code::InvalidJson };
        Problem::new(code).detail(error.to_string()).into()
    })
}

/// The media type of a body in lower case, without its parameters; `None` where none is named.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let named = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("");
    Some(named.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}
