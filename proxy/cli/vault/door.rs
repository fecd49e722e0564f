//! Calls of the vault's API.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use sluice_client::{Client, Reply};
use tokio::runtime::{Builder, Runtime};

use super::args::Asked;
use crate::exit::{self, Failure};
use crate::{control, role};

/// Variable with the address of the vault worker.
const ADDRESS: &str = "SECURITY_SERVICE_URL";

/// The vault that the arguments name.
pub(super) struct Door {
    client: Client,
    runtime: Runtime,
}

impl Door {
    pub(super) fn open(asked: &Asked) -> Result<Self, Failure> {
        let named = asked.url.clone().or_else(|| std::env::var(ADDRESS).ok().filter(|url| !url.is_empty()));
        let base = if let Some(url) = named {
            url
        } else {
            let listens = |config: &sluice_schema::Config| config.vault.listen;
            let known = control::address(&asked.common, asked.port_offset, role::NOTED_VAULT, listens);
            format!("http://{}", known?)
        };
        let token = control::token(asked.token.as_deref(), &asked.common.data_dir);
        let client = Client::api(&base, token).map_err(|error| Failure::new(exit::USAGE, error))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
        Ok(Self { client, runtime })
    }

    pub(super) fn seal_status(&self) -> Result<Value, Failure> {
        let status = self.get("sys/seal-status")?;
        if status["sealed"].is_boolean() {
            return Ok(status);
        }
        Err(Failure::usage("what answers at this address is no vault"))
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, &Value::Null)
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::PUT, path, body)
    }

    pub(super) fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, &Value::Null)
    }

    fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/v1/{path}");
        let call = self.client.call(method, &path, headers, body);
        json(&self.runtime.block_on(call).map_err(control::unreached)?)
    }
}

/// The JSON of an answer that went well; else the failure that it tells.
fn json(reply: &Reply) -> Result<Value, Failure> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if reply.status.is_success() {
        return Ok(body);
    }
    let words = body["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words: Vec<&str> = words.map(|word| word.trim_start_matches("1 error occurred:").trim()).collect();
    let hint = match reply.status {
        StatusCode::FORBIDDEN => "; give a root token with --token, SLUICE_TOKEN or --data-dir",
        _ => "",
    };
    let text = format!("the vault answers {}: {}{hint}", reply.status, words.join("; "));
    let code = if reply.status.is_client_error() { exit::USAGE } else { exit::RUNTIME };
    Err(Failure::new(code, anyhow::anyhow!("{text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_become_failures() {
        let reply = |status: u16, body: &str| Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
        };
        assert_eq!(json(&reply(200, r#"{"a":1}"#)).unwrap()["a"], 1);
        let refused =
            json(&reply(403, r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#)).unwrap_err();
        assert_eq!(refused.code, exit::USAGE);
        assert!(
            refused.error.to_string().contains("permission denied; give a root token"),
            "{}",
            refused.error
        );
        assert_eq!(json(&reply(503, "{}")).unwrap_err().code, exit::RUNTIME);
    }
}
