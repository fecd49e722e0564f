//! `[[auth.api_key]]`: keys of external clients, of which the file holds digests alone.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use super::record::{Record, place};
use crate::code::Code;
use crate::form::{self, PERMISSION};
use crate::kind::{Fault, Kind, List, Parsed, Text, Wrong};
use crate::model::ApiKey;
use crate::report::quote;

/// LIMIT: keys in the file.
const KEYS_MAX: usize = 1024;
const NAMES: [&str; 3] = ["name", "sha256", "permissions"];

/// The name of a key.
const NAME: Text<String> = Text { what: "the name of a key", ..form::NAME };

/// What `sha256sum` says of a key.
const SHA256: Text<[u8; 32]> = Text {
    what: "a SHA-256 digest",
    code: Code::Digest,
    parse: parse_digest,
    show: |digest| digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    pattern: "^[0-9A-Fa-f]{64}$",
};

fn parse_digest(text: &str) -> Result<[u8; 32], Wrong> {
    // What stands here may be the key itself: it is not repeated.
    let wrong = || {
        Wrong::new("this is not a SHA-256 digest of 64 hexadecimal digits")
            .help("write the digest, not the key: printf %s \"$KEY\" | sha256sum")
    };
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

/// The keys: tables of `name`, `sha256` and `permissions`.
pub(super) struct ApiKeys;

impl Kind for ApiKeys {
    type Out = Vec<ApiKey>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Vec<ApiKey>> {
        let Some(items) = value.get_ref().as_array() else {
            let fault = Fault::wrong_type("a list of `{ name, sha256, permissions }`", value);
            return Err(vec![fault.help("write each as `[[auth.api_key]]`")]);
        };
        if items.len() > KEYS_MAX {
            let message = format!("the list must have 0 to {KEYS_MAX} items");
            return Err(vec![Fault::new(Code::List, message, value.span())]);
        }
        let (mut keys, mut faults) = (Vec::<ApiKey>::new(), Vec::new());
        for item in items {
            match key(item) {
                Ok(key) => {
                    faults.extend(twice(&keys, &key, item));
                    keys.push(key);
                }
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(keys) } else { Err(faults) }
    }

    fn show(&self, keys: &Vec<ApiKey>) -> Value {
        let show = |key: &ApiKey| json!({ "name": key.name, "sha256": (SHA256.show)(&key.sha256), "permissions": key.permissions });
        keys.iter().map(show).collect()
    }

    fn schema(&self) -> Schema {
        let key = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "sha256"],
            "properties": {
                "name": { "type": "string", "pattern": NAME.pattern, "description": "Subject of its requests." },
                "sha256": { "type": "string", "pattern": SHA256.pattern, "description": "SHA-256 of the key, in hexadecimal." },
                "permissions": List::of(PERMISSION).schema(),
            },
        });
        json_schema!({ "oneOf": [{ "type": "array", "items": key, "maxItems": KEYS_MAX }] })
    }
}

/// What a key has in common with an earlier one.
fn twice(keys: &[ApiKey], key: &ApiKey, item: &Spanned<DeValue<'_>>) -> Option<Fault> {
    let message = if keys.iter().any(|other| other.name == key.name) {
        format!("two keys have the name {}", quote(&key.name))
    } else {
        let other = keys.iter().find(|other| other.sha256 == key.sha256)?;
        format!("{} is the same key as {}", quote(&key.name), quote(&other.name))
    };
    Some(Fault::new(Code::List, message, place(item)))
}

/// A table with these keys and nothing else.
fn key(item: &Spanned<DeValue<'_>>) -> Parsed<ApiKey> {
    let mut record = Record::of(item, "an API key", &NAMES)?;
    let name = record.needed("name", &NAME);
    let sha256 = record.needed("sha256", &SHA256);
    let permissions = record.optional("permissions", &List::of(PERMISSION)).unwrap_or_default();
    let key = name.zip(sha256).map(|(name, sha256)| ApiKey { name, sha256, permissions });
    record.finish(key)
}
