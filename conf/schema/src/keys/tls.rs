//! Keys of TLS: `[edge.tls]`, and `tls` of a service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use schemars::{Schema, json_schema};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::code::Code;
use crate::form::{ADDRESS, AUTHORITY, CERTIFICATE_FILE, SERVER_NAME, TLS_NAME};
use crate::kind::{Choice, Fault, Flag, Kind, List, Maybe, Parsed, did_you_mean};
use crate::model::{
    Authority, Certificate, ClientAuth, ClientCertificate, EdgeTls, KeyPairFiles, RedisTls, UpstreamTls,
};
use crate::report::quote;
use crate::table::Table;

/// LIMIT: pairs of files of one listener.
const PAIRS_MAX: usize = 256;

const CLIENT_AUTH: Choice<ClientAuth> = Choice {
    words: &[
        ("off", ClientAuth::Off),
        ("optional", ClientAuth::Optional),
        ("required", ClientAuth::Required),
    ],
    planned: &[],
};

pub(super) fn edge(t: &mut Table<'_, '_>, tls: &mut Option<EdgeTls>) {
    let host = if t.reader.mode.dev { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let fresh = || EdgeTls::at(SocketAddr::new(IpAddr::V4(host), 8443));
    t.optional("tls", "The TLS listener; without this table there is none.", tls, fresh, |t, tls| {
        t.key("listen", "Address of the TLS listener.", ADDRESS, &mut tls.listen);
        let doc = "Its certificate: auto (from the vault worker), { cert, key }, or a list of such pairs.";
        t.key("certificate", doc, CERTIFICATE, &mut tls.certificate);
        let doc = "Names and IP addresses of the automatic certificate beside those of this machine.";
        t.key("names", doc, List::of(TLS_NAME), &mut tls.names);
        let doc = "Whether clients show a certificate: off, optional or required.";
        t.key("client_auth", doc, CLIENT_AUTH, &mut tls.client_auth);
        let doc = "Who signs the certificates of clients: auto (the vault worker) or a PEM file.";
        t.key("client_ca", doc, AUTHORITY, &mut tls.client_ca);
        t.place_values("certificate");
        t.place_values("client_ca");
        if let Certificate::Files(pairs) = &mut tls.certificate {
            for pair in pairs {
                resolve_pair(t, pair);
            }
        }
        resolve_authority(t, &mut tls.client_ca);
    });
}

pub(super) fn upstream(t: &mut Table<'_, '_>, tls: &mut UpstreamTls) {
    t.table("tls", "How https instances are called.", |t| {
        let doc = "Name their certificate must carry; needed where an instance is https.";
        t.key("sni", doc, SERVER_NAME, &mut tls.sni);
        let doc = "Who signs their certificates: auto (the vault worker) or a PEM file.";
        t.key("ca", doc, AUTHORITY, &mut tls.ca);
        let doc = "What the edge shows them: auto (its own certificate), off, or { cert, key }.";
        t.key("client_cert", doc, CLIENT_CERTIFICATE, &mut tls.client_cert);
        let doc = "Whether their certificate is checked; false takes any.";
        t.key("verify", doc, Flag, &mut tls.verify);
        t.place_values("ca");
        t.place_values("client_cert");
        if let ClientCertificate::Files(pair) = &mut tls.client_cert {
            resolve_pair(t, pair);
        }
        resolve_authority(t, &mut tls.ca);
    });
}

pub(super) fn redis(t: &mut Table<'_, '_>, tls: &mut RedisTls) {
    let doc =
        "Who signs the certificates of its servers: a PEM file; without one, whom this system believes.";
    t.key("ca", doc, Maybe(CERTIFICATE_FILE), &mut tls.ca);
    let doc = "What its servers are shown when they ask for a certificate: { cert, key }.";
    t.key("client_cert", doc, Maybe(PAIR), &mut tls.client_cert);
    t.place_values("ca");
    t.place_values("client_cert");
    if let Some(file) = &mut tls.ca {
        resolve(t, file);
    }
    if let Some(pair) = &mut tls.client_cert {
        resolve_pair(t, pair);
    }
}

fn resolve_pair(t: &Table<'_, '_>, pair: &mut KeyPairFiles) {
    resolve(t, &mut pair.cert);
    resolve(t, &mut pair.key);
}

fn resolve_authority(t: &Table<'_, '_>, authority: &mut Authority) {
    if let Authority::File(path) = authority {
        resolve(t, path);
    }
}

/// A relative path counts from the folder of the main file.
fn resolve(t: &Table<'_, '_>, path: &mut PathBuf) {
    if !t.describing() {
        *path = t.reader.base().join(&*path);
    }
}

/// `auto`, one pair of files, or several.
struct CertificateKind;
const CERTIFICATE: CertificateKind = CertificateKind;

impl Kind for CertificateKind {
    type Out = Certificate;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Certificate> {
        match value.get_ref() {
            DeValue::String(word) => only_word(word, &["auto"], value).map(|_| Certificate::Auto),
            DeValue::Table(table) => Ok(Certificate::Files(vec![pair(table, value)?])),
            DeValue::Array(items) => pairs(items, value).map(Certificate::Files),
            _ => Err(vec![Fault::wrong_type("`auto`, `{ cert, key }` or a list of such pairs", value)]),
        }
    }

    fn show(&self, value: &Certificate) -> Value {
        match value {
            Certificate::Auto => json!("auto"),
            Certificate::Files(pairs) => match pairs.as_slice() {
                [pair] => show_pair(pair),
                pairs => pairs.iter().map(show_pair).collect(),
            },
        }
    }

    fn schema(&self) -> Schema {
        let pairs = json!({ "type": "array", "items": pair_schema(), "minItems": 1, "maxItems": PAIRS_MAX });
        json_schema!({ "oneOf": [{ "type": "string", "enum": ["auto"] }, pair_schema(), pairs] })
    }
}

/// One pair of files.
struct PairKind;
const PAIR: PairKind = PairKind;

impl Kind for PairKind {
    type Out = KeyPairFiles;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<KeyPairFiles> {
        match value.get_ref() {
            DeValue::Table(table) => pair(table, value),
            _ => Err(vec![Fault::wrong_type("`{ cert, key }`", value)]),
        }
    }

    fn show(&self, value: &KeyPairFiles) -> Value {
        show_pair(value)
    }

    fn schema(&self) -> Schema {
        json_schema!({ "oneOf": [pair_schema()] })
    }
}

/// `auto`, `off`, or one pair of files.
struct ClientCertificateKind;
const CLIENT_CERTIFICATE: ClientCertificateKind = ClientCertificateKind;

impl Kind for ClientCertificateKind {
    type Out = ClientCertificate;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<ClientCertificate> {
        match value.get_ref() {
            DeValue::String(word) => Ok(match only_word(word, &["auto", "off"], value)? {
                "off" => ClientCertificate::Off,
                _ => ClientCertificate::Auto,
            }),
            DeValue::Table(table) => pair(table, value).map(ClientCertificate::Files),
            _ => Err(vec![Fault::wrong_type("`auto`, `off` or `{ cert, key }`", value)]),
        }
    }

    fn show(&self, value: &ClientCertificate) -> Value {
        match value {
            ClientCertificate::Auto => json!("auto"),
            ClientCertificate::Off => json!("off"),
            ClientCertificate::Files(pair) => show_pair(pair),
        }
    }

    fn schema(&self) -> Schema {
        json_schema!({ "oneOf": [{ "type": "string", "enum": ["auto", "off"] }, pair_schema()] })
    }
}

/// The word, when it is one of these.
fn only_word<'w>(
    written: &str,
    words: &[&'w str],
    value: &Spanned<DeValue<'_>>,
) -> Result<&'w str, Vec<Fault>> {
    if let Some(word) = words.iter().find(|word| **word == written) {
        return Ok(word);
    }
    let list: Vec<_> = words.iter().map(|word| quote(word)).collect();
    // A path, or a whole key, may have been written here: the text is not repeated.
    let fault = Fault::new(Code::Word, format!("this is none of {}", list.join(", ")), value.span());
    let near = did_you_mean(written, words.iter().copied());
    Err(vec![
        fault.help(near.unwrap_or_else(|| "files are written { cert = \"…\", key = \"…\" }".to_owned())),
    ])
}

fn pairs(items: &[Spanned<DeValue<'_>>], value: &Spanned<DeValue<'_>>) -> Parsed<Vec<KeyPairFiles>> {
    if items.is_empty() || items.len() > PAIRS_MAX {
        let message = format!("the list must have 1 to {PAIRS_MAX} items");
        return Err(vec![Fault::new(Code::List, message, value.span())]);
    }
    let (mut out, mut faults) = (Vec::new(), Vec::new());
    for item in items {
        let parsed = match item.get_ref() {
            DeValue::Table(table) => pair(table, item),
            _ => Err(vec![Fault::wrong_type("`{ cert, key }`", item)]),
        };
        match parsed {
            Ok(parsed) if out.contains(&parsed) => {
                faults.push(Fault::new(Code::List, "the list names this twice", item.span()));
            }
            Ok(parsed) => out.push(parsed),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

/// A table with `cert` and `key`, and nothing else.
fn pair(table: &DeTable<'_>, value: &Spanned<DeValue<'_>>) -> Parsed<KeyPairFiles> {
    let mut faults = Vec::new();
    for (name, _) in table.iter().filter(|(name, _)| !["cert", "key"].contains(&name.get_ref().as_ref())) {
        let fault =
            Fault::new(Code::UnknownKey, format!("unknown key {}", quote(name.get_ref())), name.span());
        faults.push(fault.help("the keys here are cert, key"));
    }
    let mut file = |name: &str| {
        let Some(written) = table.get(name) else {
            let message = format!("a pair of files needs the key {}", quote(name));
            faults.push(Fault::new(Code::MissingKey, message, value.span()));
            return None;
        };
        CERTIFICATE_FILE.parse(written).map_err(|found| faults.extend(found)).ok()
    };
    match (file("cert"), file("key")) {
        (Some(cert), Some(key)) if faults.is_empty() => Ok(KeyPairFiles { cert, key }),
        _ => Err(faults),
    }
}

fn show_pair(pair: &KeyPairFiles) -> Value {
    let text = |path: &Path| path.display().to_string();
    json!({ "cert": text(&pair.cert), "key": text(&pair.key) })
}

fn pair_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["cert", "key"],
        "properties": {
            "cert": { "type": "string", "description": "PEM file of the chain, the leaf first." },
            "key": { "type": "string", "description": "PEM file of the private key." },
        },
    })
}
