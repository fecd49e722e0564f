//! What a vault is asked in a measurement, in both languages, and the words of a right answer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::csr::Csr;
use crate::check::ask;
use crate::load::Place;
use crate::question::Request;
use crate::voice::{Expects, NUMBER, STAMP};

/// The service that asks, the policy it has and the role of its certificates.
pub(crate) const NAME: &str = "bench";
/// A name that the role allows.
pub(super) const HOST: &str = "a.bench.example";

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    /// A secret's value; each connection reads its own.
    Read,
    /// A secret's next version; each connection writes its own.
    Write,
    /// A certificate with a new P-256 key.
    Issue,
    /// A certificate for the P-256 key of a request.
    Sign,
    /// Whether the token that is shown is good.
    Validate,
}

/// In which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Sluice's own paths, with a token of the service.
    Own,
    /// Vault's API below `/v1/`, with a token of its kind.
    V1,
}

/// A vault that runs, and what it takes to be served there.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    pub(super) dialect: Dialect,
    /// Of whoever asks in the measurement.
    pub(super) token: String,
    /// Of whoever may do everything.
    pub(crate) root: String,
    /// Its audit log.
    pub(super) audit: PathBuf,
    /// What opens it, where it opens by shares.
    pub(crate) share: Option<String>,
}

impl Op {
    /// In the words of the report.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Read => "reads a secret",
            Self::Write => "writes a secret's next version",
            Self::Issue => "has a certificate made, with its P-256 key",
            Self::Sign => "has a certificate made for the P-256 key of a request",
            Self::Validate => "asks whether its token is good",
        }
    }

    /// What stands in a right answer and in no other.
    pub(super) const fn expects(self, dialect: Dialect) -> Expects {
        Expects::Says(match (self, dialect) {
            (Self::Read, _) => "\"pad\":\"x",
            (Self::Write, Dialect::Own) => "\"status\":\"success\"",
            (Self::Write, Dialect::V1) => "\"version\":",
            (Self::Issue, _) => "PRIVATE KEY-----",
            (Self::Sign, _) => "-----BEGIN CERTIFICATE-----",
            (Self::Validate, Dialect::Own) => "\"valid\":true",
            (Self::Validate, Dialect::V1) => "\"display_name\":",
        })
    }

    /// Method, path and body; a secret is named by the [`NUMBER`] of its place.
    fn call(self, dialect: Dialect, value_bytes: usize) -> (&'static str, String, Option<Value>) {
        match (self, dialect) {
            (Self::Read, _) => ("GET", secret(dialect, NUMBER), None),
            (Self::Write, _) => {
                ("POST", secret(dialect, NUMBER), Some(json!({ "data": value(value_bytes) })))
            }
            (Self::Issue, Dialect::Own) => ("POST", format!("/credentials/{NAME}"), Some(json!({}))),
            (Self::Sign, Dialect::Own) => {
                ("POST", format!("/credentials/{NAME}"), Some(json!({ "csr": csr().pem })))
            }
            (Self::Issue, Dialect::V1) => {
                ("POST", format!("/v1/pki/issue/{NAME}"), Some(json!({ "common_name": HOST })))
            }
            (Self::Sign, Dialect::V1) => {
                let body = json!({ "common_name": HOST, "csr": csr().pem });
                ("POST", format!("/v1/pki/sign/{NAME}"), Some(body))
            }
            (Self::Validate, Dialect::Own) => ("POST", "/tokens/validate".to_owned(), Some(json!({}))),
            (Self::Validate, Dialect::V1) => ("GET", "/v1/auth/token/lookup-self".to_owned(), None),
        }
    }
}

/// The path of a secret.
pub(super) fn secret(dialect: Dialect, number: &str) -> String {
    match dialect {
        Dialect::Own => format!("/secrets/services/{NAME}/{number}"),
        Dialect::V1 => format!("/v1/secret/data/{NAME}/{number}"),
    }
}

/// A secret's value of so many bytes, another one each time it is written.
pub(super) fn value(bytes: usize) -> Value {
    let of = |pad: usize| json!({ "at": STAMP, "pad": "x".repeat(pad) });
    of(bytes.saturating_sub(of(0).to_string().len()))
}

/// Fewest bytes of a value.
pub(crate) fn value_bytes_min() -> usize {
    json!({ "at": STAMP, "pad": "x" }).to_string().len()
}

/// The request for certificates, one for the whole run: making it is not what is measured.
pub(super) fn csr() -> &'static Csr {
    static CSR: OnceLock<Csr> = OnceLock::new();
    CSR.get_or_init(|| Csr::make(HOST).expect("a machine that runs this has random numbers"))
}

impl Desk {
    /// The request of an operation, with the places that are filled as it is sent.
    pub(crate) fn request(&self, op: Op, value_bytes: usize) -> Request {
        let (method, path, body) = op.call(self.dialect, value_bytes);
        Request::with_places(self.written(&self.token, method, &path, body.as_ref()))
    }

    /// The answer to it that counts as right.
    pub(crate) fn expects(&self, op: Op) -> Expects {
        op.expects(self.dialect)
    }

    /// The bytes of a request with a credential.
    pub(crate) fn written(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
        let credential = match self.dialect {
            _ if token.is_empty() => String::new(),
            Dialect::Own => format!("Authorization: Bearer {token}\r\n"),
            Dialect::V1 => format!("X-Vault-Token: {token}\r\n"),
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let sized = if method == "GET" {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        };
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{credential}{sized}\r\n{body}", self.address).into()
    }

    /// One call outside of the measurement; status and JSON, null where there is none.
    pub(super) fn call(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        let answer = ask(&Place::plain(self.address), &self.written(token, method, path, body))
            .with_context(|| format!("{method} {path}"))?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null)))
    }

    /// The same, by whoever may do everything; an error unless the answer is 2xx.
    pub(super) fn must(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.call(&self.root, method, path, body)?;
        anyhow::ensure!((200..300).contains(&status), "{method} {path}: status {status}: {answer}");
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPS: [Op; 5] = [Op::Read, Op::Write, Op::Issue, Op::Sign, Op::Validate];

    fn desk(dialect: Dialect) -> Desk {
        let address = "127.0.0.1:9".parse().unwrap();
        let (token, root) = ("t.one".to_owned(), "t.two".to_owned());
        Desk { address, dialect, token, root, audit: PathBuf::new(), share: None }
    }

    #[test]
    fn requests_are_whole_and_say_who_asks() {
        for (dialect, credential) in [
            (Dialect::Own, "\r\nAuthorization: Bearer t.one\r\n"),
            (Dialect::V1, "\r\nX-Vault-Token: t.one\r\n"),
        ] {
            for op in OPS {
                let mut request = desk(dialect).request(op, 128);
                let text = String::from_utf8(request.next(0x2a, 7).to_vec()).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                assert!(text.contains(credential), "{text}");
                let sized = head.contains(&format!("\r\nContent-Length: {}", body.len()));
                assert_eq!(sized, !head.starts_with("GET "), "{text}");
                assert!(body.is_empty() || serde_json::from_str::<Value>(body).is_ok(), "{text}");
                assert!(!text.contains(NUMBER) && !text.contains(STAMP), "{text}");
                assert_eq!(text.contains("/0000002a"), matches!(op, Op::Read | Op::Write), "{text}");
            }
        }
    }

    #[test]
    fn values_have_their_length_and_a_pad() {
        for bytes in [value_bytes_min(), 128, 1000] {
            assert_eq!(value(bytes).to_string().len(), bytes);
            assert!(value(bytes).to_string().contains("\"pad\":\"x"));
        }
    }
}
