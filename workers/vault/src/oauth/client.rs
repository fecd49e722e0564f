//! Clients: who may ask for tokens with a credential of its own, and how it proves itself.
//!
//! A client bears the name of a service and acts as that service. It is registered by a holder of `tokens:mint`,
//! who could mint the same tokens by hand, and never gets more scope than that one may give. A secret is made here,
//! 256 random bits, handed out once and kept as its SHA-256; a key is the client's own, public part only.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use sluice_identity::caller::{Caller, Via};
use sluice_identity::grants::{GRANTS_MAX, Grants, is_grant};
use sluice_identity::jwk::PublicKey;
use sluice_wire::code::Code;
use sluice_wire::feed::Jwk;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::outbox::security_event;
use crate::path::ServiceName;
use crate::quota::Held;
use crate::request::Act;
use crate::store::{Change, Range, SWEEP_MAX, Table, View};
use crate::token::{TTL_MAX, Ttl, end_of_client, void_subject};

/// LIMIT: clients.
const CLIENTS_MAX: usize = 10_000;
/// LIMIT: keys of a client: the present one and those it changes to.
const KEYS_MAX: usize = 4;
/// LIMIT: a client's own name, bytes.
const NAME_BYTES_MAX: usize = 128;
const CLIENT: &str = "client/";
const USED: &str = "used/";

/// How a client proves itself (RFC 7591's words).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Method {
    /// Its secret in the Authorization header.
    #[default]
    ClientSecretBasic,
    /// Its secret in the form; either place is taken of either kind.
    ClientSecretPost,
    /// A JWT signed with its key.
    PrivateKeyJwt,
    /// The certificate of its service, shown to this process.
    TlsClientAuth,
}

impl Method {
    pub(super) const ALL: [Self; 4] =
        [Self::ClientSecretBasic, Self::ClientSecretPost, Self::PrivateKeyJwt, Self::TlsClientAuth];

    pub(super) const fn has_secret(self) -> bool {
        matches!(self, Self::ClientSecretBasic | Self::ClientSecretPost)
    }
}

/// A client as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) id: String,
    name: String,
    pub(super) method: Method,
    /// SHA-256 of the secret, base64url.
    secret: Option<String>,
    keys: Vec<Jwk>,
    scope: String,
    /// Life of its tokens, seconds; none: as configured.
    pub(super) ttl_s: Option<i64>,
    /// Whether its tokens are bound to the certificate by which it proves itself.
    #[serde(default)]
    pub(super) bound: bool,
    created: Timestamp,
    by: String,
}

/// A wish for a client.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    client_id: String,
    #[serde(default)]
    client_name: String,
    #[serde(default)]
    token_endpoint_auth_method: Method,
    scope: String,
    jwks: Option<Keys>,
    token_ttl: Option<Ttl>,
    /// RFC 8705, 3.4.
    #[serde(default)]
    tls_client_certificate_bound_access_tokens: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

/// A public key. A private part is an unknown member, and so refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    kty: String,
    crv: String,
    x: String,
    y: String,
    kid: Option<String>,
    r#use: Option<String>,
    alg: Option<String>,
}

/// A client as it is shown. No Debug: it may hold a new secret.
#[derive(Serialize)]
pub(super) struct Shown {
    client_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_name: String,
    token_endpoint_auth_method: Method,
    scope: String,
    tls_client_certificate_bound_access_tokens: bool,
    client_id_issued_at: i64,
    registered_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<NewSecret>,
    /// RFC 7591: 0, it does not end.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret_expires_at: Option<u8>,
}

/// The clients.
#[derive(Serialize)]
pub(super) struct Page {
    clients: Vec<Shown>,
    count: usize,
}

impl Client {
    /// What its tokens may carry.
    pub(super) fn grants(&self) -> Grants {
        self.scope.parse().unwrap_or_default()
    }

    /// The keys it signs assertions with.
    pub(super) fn keys(&self) -> Vec<PublicKey> {
        self.keys.iter().filter_map(|jwk| PublicKey::try_from(jwk).ok()).collect()
    }

    /// Whether this is its secret. Digests are compared, in constant time.
    pub(super) fn has_secret(&self, secret: &str) -> bool {
        let (known, shown) = (self.secret.as_deref().unwrap_or_default(), hash(secret));
        self.method.has_secret() && bool::from(known.as_bytes().ct_eq(shown.as_bytes()))
    }

    /// It as a caller of the vault.
    pub(super) fn caller(&self) -> Caller {
        Caller {
            subject: self.id.clone(),
            account: self.id.clone(),
            grants: self.grants(),
            via: Via::Token,
            jti: None,
            serial: None,
            issued_at_s: None,
            expires_at_s: None,
        }
    }

    fn shown(&self, secret: Option<Zeroizing<String>>) -> Shown {
        Shown {
            client_id: self.id.clone(),
            client_name: self.name.clone(),
            token_endpoint_auth_method: self.method,
            scope: self.scope.clone(),
            tls_client_certificate_bound_access_tokens: self.bound,
            client_id_issued_at: self.created.as_second(),
            registered_by: self.by.clone(),
            client_secret_expires_at: secret.is_some().then_some(0),
            client_secret: secret.map(NewSecret),
        }
    }
}

/// A secret on its only way out.
struct NewSecret(Zeroizing<String>);

impl Serialize for NewSecret {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// The text a secret's hash is compared by.
pub(super) fn hash(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, secret.as_bytes()))
}

fn fresh_secret() -> Result<Zeroizing<String>, VaultError> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| VaultError::Crypto("client secret"))?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_ref())))
}

/// What a registration makes of a caller and a wish. Pure.
fn judge(
    caller: Option<&Caller>,
    wish: Registration,
    roles: &BTreeMap<String, Grants>,
    now: Timestamp,
) -> Result<Client, VaultError> {
    let caller = registrar(caller)?;
    let bad = |detail: &str| VaultError::invalid(Code::BadRequest, detail);
    let id = ServiceName::parse(&wish.client_id)?;
    let words: Vec<&str> = wish.scope.split(' ').filter(|word| !word.is_empty()).collect();
    if words.is_empty() || words.len() > GRANTS_MAX || !words.iter().all(|word| is_grant(word)) {
        return Err(bad("scope is 1 to 128 permission words"));
    }
    let scope = access::mint(Some(caller), &id, Some(words.into_iter().collect()), roles)?;
    if wish.client_name.len() > NAME_BYTES_MAX || wish.client_name.chars().any(char::is_control) {
        return Err(bad("client_name is at most 128 bytes without control characters"));
    }
    let ttl_s = wish.token_ttl.map(|ttl| ttl.0.as_secs());
    if ttl_s.is_some_and(|ttl_s| !(1..=TTL_MAX.as_secs()).contains(&ttl_s)) {
        return Err(bad("token_ttl is 1 second to 30 days"));
    }
    let method = wish.token_endpoint_auth_method;
    let bound = wish.tls_client_certificate_bound_access_tokens;
    if bound && method != Method::TlsClientAuth {
        return Err(bad("tokens are bound to the certificate of a client of tls_client_auth"));
    }
    let keys = wish.jwks.map(|jwks| jwks.keys).unwrap_or_default();
    if (method == Method::PrivateKeyJwt) == keys.is_empty() {
        return Err(bad("jwks is for private_key_jwt, and needed there"));
    }
    if keys.len() > KEYS_MAX {
        return Err(bad("a client has at most 4 keys"));
    }
    let keys: Vec<Jwk> = keys.into_iter().map(public_key).collect::<Result<_, _>>()?;
    if (1..keys.len()).any(|at| keys[..at].iter().any(|key| key.kid == keys[at].kid)) {
        return Err(bad("two keys have one kid"));
    }
    Ok(Client {
        id: id.as_str().to_owned(),
        name: wish.client_name,
        method,
        secret: None,
        keys,
        scope: scope.to_header(),
        ttl_s,
        bound,
        created: now,
        by: caller.subject.clone(),
    })
}

fn public_key(key: Key) -> Result<Jwk, VaultError> {
    let thumbprint = || digest_of(&key);
    let jwk = Jwk {
        kid: key.kid.clone().unwrap_or_else(thumbprint),
        kty: key.kty,
        crv: key.crv,
        x: key.x,
        y: key.y,
        usage: key.r#use.unwrap_or_else(|| "sig".into()),
        alg: key.alg.unwrap_or_else(|| "ES256".into()),
    };
    let checked = PublicKey::try_from(&jwk);
    checked.map(|_| jwk).map_err(|error| VaultError::invalid(Code::BadRequest, error.to_string()))
}

/// RFC 7638.
fn digest_of(key: &Key) -> String {
    hash(&format!(r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#, key.crv, key.kty, key.x, key.y))
}

/// Whoever may register clients; a role, a legacy token and a service speaking for itself may not.
fn registrar(caller: Option<&Caller>) -> Result<&Caller, VaultError> {
    let caller = access::known(caller)?;
    let refused = caller.via == Via::LegacyToken || !caller.grants.covers("tokens:mint");
    if refused { Err(VaultError::Lacking("tokens:mint")) } else { Ok(caller) }
}

fn key_of(id: &str) -> Vec<u8> {
    [CLIENT.as_bytes(), id.as_bytes()].concat()
}

/// A client by its id.
pub(super) fn find(view: &impl View, id: &str) -> Result<Option<Client>, VaultError> {
    if ServiceName::parse(id).is_err() {
        return Ok(None);
    }
    view.load(Table::Oauth, &key_of(id))
}

/// Whether there is a client of this name.
pub(crate) fn is_client(view: &impl View, id: &str) -> Result<bool, VaultError> {
    Ok(find(view, id)?.is_some())
}

/// Under what an assertion's use is remembered until it has ended: its end first, so that a sweep is a range.
pub(super) fn used_key(client: &str, jti: &str, until_s: i64) -> Vec<u8> {
    let id = digest::digest(&digest::SHA256, format!("{client}\0{jti}").as_bytes());
    let end = u64::try_from(until_s).unwrap_or(0).to_be_bytes();
    [USED.as_bytes(), &end, id.as_ref(), client.as_bytes()].concat()
}

fn ended(now: Timestamp, limit: usize) -> Range {
    let to = [USED.as_bytes(), &u64::try_from(now.as_second()).unwrap_or(0).to_be_bytes()].concat();
    Range { from: USED.as_bytes().to_vec(), to, limit }
}

/// Whether [`forget_used`] has so many assertions to forget.
pub(crate) fn have_ended(view: &impl View, now: Timestamp, least: usize) -> Result<bool, VaultError> {
    Ok(view.keys(Table::Oauth, &ended(now, least))?.len() >= least)
}

/// Forgets assertions that have ended; how many.
pub(crate) fn forget_used(change: &mut Change<'_>, now: Timestamp) -> Result<usize, VaultError> {
    let ended = change.keys(Table::Oauth, &ended(now, SWEEP_MAX))?;
    for key in &ended {
        let client = key.get(USED.len() + 8 + digest::SHA256_OUTPUT_LEN..).unwrap_or_default();
        change.give_back(Held::Assertions, &String::from_utf8_lossy(client), 1)?;
        change.remove(Table::Oauth, key);
    }
    Ok(ended.len())
}

impl Vault {
    /// Registers a client; its secret, where it has one, is in the answer and nowhere else.
    pub(super) fn register_client(&self, act: &Act, wish: Registration) -> Result<Shown, VaultError> {
        let id: String = wish.client_id.chars().take(64).collect();
        let entry = act.entry("oauth", "register", format!("oauth2/clients/{id}"));
        let mut client = match judge(act.caller.as_ref(), wish, &self.settings.roles, act.now) {
            Ok(client) => client,
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let secret = if client.method.has_secret() { Some(fresh_secret()?) } else { None };
        client.secret = secret.as_deref().map(|secret| hash(secret));
        let shown = client.shown(secret);
        let now = act.now;
        self.write_as(act, entry, move |change| {
            let key = key_of(&client.id);
            if change.raw(Table::Oauth, &key)?.is_some() {
                return Err(VaultError::invalid(Code::Conflict, "there is a client of this name"));
            }
            let all = Range::prefix(CLIENT.as_bytes(), CLIENTS_MAX);
            if change.keys(Table::Oauth, &all)?.len() >= CLIENTS_MAX {
                return Err(VaultError::invalid(Code::RateLimited, "too many clients"));
            }
            change.emit(&security_event("oauth_client_registered", now, &[("client", &client.id)]))?;
            change.save(Table::Oauth, &key, &client);
            Ok(())
        })?;
        Ok(shown)
    }

    /// Gives a client another secret; the old one ends at once.
    pub(super) fn renew_client_secret(&self, act: &Act, id: &str) -> Result<Shown, VaultError> {
        let entry = act.entry("oauth", "renew_secret", format!("oauth2/clients/{id}"));
        let caller = match registrar(act.caller.as_ref()) {
            Ok(caller) => caller.clone(),
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let (id, secret) = (id.to_owned(), fresh_secret()?);
        let roles = self.settings.roles.clone();
        self.write_as(act, entry, move |change| {
            let mut client = find(change, &id)?.ok_or_else(none)?;
            if !client.method.has_secret() {
                return Err(VaultError::invalid(Code::BadRequest, "this client has no secret"));
            }
            // A new secret opens what the client may do: only who could give as much may make one.
            access::mint(Some(&caller), &ServiceName::parse(&id)?, Some(client.grants()), &roles)?;
            client.secret = Some(hash(&secret));
            change.save(Table::Oauth, &key_of(&id), &client);
            Ok(client.shown(Some(secret)))
        })
    }

    /// Removes a client and ends the tokens that were issued to it; an administrator ends all of its service.
    pub(super) fn remove_client(&self, act: &Act, id: &str) -> Result<(), VaultError> {
        let entry = act.entry("oauth", "remove", format!("oauth2/clients/{id}"));
        let caller = match registrar(act.caller.as_ref()) {
            Ok(caller) => caller.clone(),
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let (id, now, leeway_s) = (id.to_owned(), act.now, self.settings.leeway_s);
        let roles = self.settings.roles.clone();
        self.write_as(act, entry, move |change| {
            let client = find(change, &id)?.ok_or_else(none)?;
            // Who could not give as much takes nothing away.
            access::mint(Some(&caller), &ServiceName::parse(&id)?, Some(client.grants()), &roles)?;
            change.remove(Table::Oauth, &key_of(&id));
            change.emit(&security_event("oauth_client_removed", now, &[("client", &id)]))?;
            if caller.grants.is_admin() {
                return void_subject(change, &id, now, leeway_s);
            }
            end_of_client(change, &id, now, leeway_s)
        })
    }

    /// One client, or all of them.
    pub(super) fn list_clients(&self, act: &Act, id: Option<&str>) -> Result<Page, VaultError> {
        let entry = act.entry("oauth", "list", format!("oauth2/clients/{}", id.unwrap_or_default()));
        if let Err(error) = registrar(act.caller.as_ref()) {
            return Err(self.refuse(entry, error));
        }
        self.read(entry, || {
            let view = self.store.snapshot()?;
            let clients: Vec<Client> = if let Some(id) = id {
                vec![find(&view, id)?.ok_or_else(none)?]
            } else {
                let keys = view.keys(Table::Oauth, &Range::prefix(CLIENT.as_bytes(), CLIENTS_MAX))?;
                keys.iter().map(|key| view.require(Table::Oauth, key)).collect::<Result<_, _>>()?
            };
            let clients: Vec<Shown> = clients.iter().map(|client| client.shown(None)).collect();
            Ok(Page { count: clients.len(), clients })
        })
    }
}

fn none() -> VaultError {
    VaultError::NotFound("there is no such client".into())
}
