//! The public side of the certificate authority.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_http::{Reject, StrictQuery};
use sluice_wire::code::Code;
use sluice_wire::feed::Jwk;
use x509_parser::pem::parse_x509_pem;

use super::public;
use crate::context::Context;

const PEM: &str = "application/x-pem-file";
const MINUTES: &str = "public, max-age=300";

/// The root, PEM.
pub(super) async fn certificate(State(context): State<Arc<Context>>) -> Result<Response, Reject> {
    Ok(public(PEM, context.vault()?.authority.load().root.pem().to_owned(), MINUTES))
}

/// Intermediates, newest first, and the root, PEM.
pub(super) async fn chain(State(context): State<Arc<Context>>) -> Result<Response, Reject> {
    Ok(public(PEM, context.vault()?.authority.load().chain_pem(), MINUTES))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CrlQuery {
    #[serde(default)]
    format: Format,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Pem,
    Der,
}

/// The revocation lists: all as PEM, or the issuing intermediate's as DER.
pub(super) async fn crl(
    State(context): State<Arc<Context>>,
    StrictQuery(query): StrictQuery<CrlQuery>,
) -> Result<Response, Reject> {
    let missing = || Reject::new(Code::Internal, "there is no revocation list");
    let lists = context.run(|vault| vault.revocation_lists(Timestamp::now())).await?;
    match query.format {
        Format::Pem => Ok(public(PEM, lists, "no-cache")),
        Format::Der => {
            let (_, first) = parse_x509_pem(lists.as_bytes()).map_err(|_| missing())?;
            Ok(public("application/pkix-crl", first.contents, "no-cache"))
        }
    }
}

/// The trust bundle of the SPIFFE trust domain.
#[derive(Serialize)]
struct Bundle {
    spiffe_sequence: u64,
    spiffe_refresh_hint: u32,
    keys: Vec<BundleKey>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BundleKey {
    Authority {
        r#use: &'static str,
        kty: &'static str,
        crv: &'static str,
        x: String,
        y: String,
        x5c: [String; 1],
    },
    Token {
        r#use: &'static str,
        kid: String,
        kty: String,
        crv: String,
        x: String,
        y: String,
    },
}

pub(super) async fn bundle(State(context): State<Arc<Context>>) -> Result<Response, Reject> {
    let vault = context.vault()?;
    let root = Arc::clone(&vault.authority.load().root);
    // An uncompressed point: one byte, then two coordinates of 32.
    let authority = BundleKey::Authority {
        r#use: "x509-svid",
        kty: "EC",
        crv: "P-256",
        x: URL_SAFE_NO_PAD.encode(&root.point[1..33]),
        y: URL_SAFE_NO_PAD.encode(&root.point[33..]),
        x5c: [STANDARD.encode(&root.der)],
    };
    let token = |jwk: Jwk| BundleKey::Token {
        r#use: "jwt-svid",
        kid: jwk.kid,
        kty: jwk.kty,
        crv: jwk.crv,
        x: jwk.x,
        y: jwk.y,
    };
    let keys = std::iter::once(authority).chain(vault.hub.jwks().into_iter().map(token)).collect();
    let bundle = Bundle { spiffe_sequence: vault.hub.seq(), spiffe_refresh_hint: 300, keys };
    let body = serde_json::to_vec(&bundle).expect("strings and numbers always serialise");
    Ok(public("application/json", body, MINUTES))
}
