//! How a client proves that it is the client: exactly one of its ways, in each request anew.

use http::HeaderMap;
use sluice_identity::assertion::{self, Assertion, Expected};
use sluice_identity::caller::{Caller, Via};
use sluice_identity::jwk::PublicKey;

use super::client::{self, Client, Method, hash, used_key};
use super::error::OauthError;
use super::form::{Form, basic};
use crate::context::Vault;
use crate::error::VaultError;
use crate::quota::Held;
use crate::request::Act;
use crate::store::{Table, View as _};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What a request shows of its client. No Debug: it may be a secret.
pub(super) struct Proof {
    id: String,
    way: Way,
}

enum Way {
    Secret(String),
    Assertion(String),
    /// The name in a certificate whose key and chain were verified when the connection began, and its serial.
    Certificate(String, Option<String>),
}

impl Proof {
    /// Reads it; `caller` is whom the connection's certificate proved.
    pub(super) fn read(
        headers: &HeaderMap,
        form: &Form,
        caller: Option<&Caller>,
    ) -> Result<Self, OauthError> {
        let in_header = basic(headers)?;
        let named = form.find("client_id").map(str::to_owned);
        let (secret, assertion) = (form.find("client_secret"), form.find("client_assertion"));
        // RFC 6749, 2.3: not more than one way.
        if usize::from(in_header.is_some()) + usize::from(secret.is_some()) + usize::from(assertion.is_some())
            > 1
        {
            return Err(OauthError::request("the client proves itself in more than one way"));
        }
        let (id, way) = if let Some((id, secret)) = in_header {
            (id, Way::Secret(secret))
        } else if let Some(secret) = secret {
            (named.clone().ok_or_else(OauthError::client)?, Way::Secret(secret.to_owned()))
        } else if let Some(assertion) = assertion {
            if form.need("client_assertion_type")? != ASSERTION_TYPE {
                return Err(OauthError::request("client_assertion_type is none that is known here"));
            }
            let subject = assertion::claimed_subject(assertion).ok_or_else(OauthError::client)?;
            (subject, Way::Assertion(assertion.to_owned()))
        } else {
            let shown =
                caller.filter(|caller| caller.via == Via::Certificate).ok_or_else(OauthError::client)?;
            (
                named.clone().ok_or_else(OauthError::client)?,
                Way::Certificate(shown.account.clone(), shown.serial.clone()),
            )
        };
        match named {
            Some(named) if named != id => Err(OauthError::request("client_id names another client")),
            _ => Ok(Self { id, way }),
        }
    }
}

impl Proof {
    /// The serial of the certificate by which it proves itself.
    pub(super) fn serial(&self) -> Option<&str> {
        match &self.way {
            Way::Certificate(_, serial) => serial.as_deref(),
            Way::Secret(_) | Way::Assertion(_) => None,
        }
    }
}

impl Vault {
    /// The client of a request, when it has proved itself; every failure is recorded.
    pub(super) fn authenticate(&self, act: &Act, proof: &Proof) -> Result<Client, OauthError> {
        let found = self.proven(act, proof);
        if let Err(OauthError::Told(..)) = &found {
            let id: String = proof.id.chars().take(64).collect();
            let entry = act.entry("oauth", "authenticate", format!("oauth2/clients/{id}"));
            match self.refuse(entry.actor("unverified"), VaultError::Anonymous) {
                VaultError::Anonymous => {}
                unrecorded => return Err(unrecorded.into()),
            }
        }
        found
    }

    fn proven(&self, act: &Act, proof: &Proof) -> Result<Client, OauthError> {
        let found = client::find(&self.store.snapshot()?, &proof.id)?;
        match (&proof.way, found) {
            (Way::Secret(secret), Some(client)) if client.has_secret(secret) => Ok(client),
            (Way::Secret(secret), None) => {
                // As much work as for a client there is.
                let _never_equal = hash(secret);
                Err(OauthError::client())
            }
            (Way::Assertion(jwt), found) => {
                let known = found.filter(|client| client.method == Method::PrivateKeyJwt);
                let keys = known.as_ref().map(Client::keys).unwrap_or_default();
                // With no key at all it costs what it costs with the client's: time tells nobody who is a client.
                let told = self.told_by(act, &proof.id, &keys, jwt);
                let client = known.ok_or_else(OauthError::client)?;
                self.use_up(act, &client, &told?)?;
                Ok(client)
            }
            (Way::Certificate(name, _), Some(client))
                if client.method == Method::TlsClientAuth && *name == client.id =>
            {
                Ok(client)
            }
            _ => Err(OauthError::client()),
        }
    }

    /// What an assertion says that is signed by one of these keys.
    fn told_by(
        &self,
        act: &Act,
        client: &str,
        keys: &[PublicKey],
        jwt: &str,
    ) -> Result<Assertion, OauthError> {
        let audiences =
            [self.settings.issuer.clone(), super::api::at(&self.settings.issuer, "/oauth2/token")];
        let expected = Expected { client, audiences: &audiences, keys, leeway_s: self.settings.leeway_s };
        assertion::verify(jwt, expected, act.now.as_second()).map_err(|_| OauthError::client())
    }

    /// Uses an assertion up: of two at a time one is refused.
    fn use_up(&self, act: &Act, client: &Client, told: &Assertion) -> Result<(), OauthError> {
        let key = used_key(&client.id, &told.jti, told.exp + self.settings.leeway_s);
        let entry = act.entry("oauth", "assert", format!("oauth2/clients/{}", client.id)).actor(&client.id);
        let id = client.id.clone();
        let is_new = self.write(entry, move |change| {
            let is_new = change.raw(Table::Oauth, &key)?.is_none();
            if is_new {
                change.charge(Held::Assertions, &id, 1)?;
                change.mark(Table::Oauth, &key);
            }
            Ok(is_new)
        })?;
        if is_new { Ok(()) } else { Err(OauthError::client()) }
    }
}
