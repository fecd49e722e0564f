//! What clients do: get tokens, narrow them, ask about them, end them.

use jiff::SignedDuration;
use serde::Serialize;
use sluice_identity::claims::Claims;

use super::client::Client;
use super::error::{OauthError, Word};
use super::form::Form;
use super::judge;
use super::proof::Proof;
use crate::context::Vault;
use crate::path::ServiceName;
use crate::request::Act;
use crate::token::{Bound, MintAnswer, Parent, Plan, TTL_MAX};

pub(super) const CLIENT_CREDENTIALS: &str = "client_credentials";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// What a client needs to narrow tokens that are not its own.
const EXCHANGE_SCOPE: &str = "tokens:exchange";

/// A new token (RFC 6749, 5.1).
#[derive(Debug, Serialize)]
pub(super) struct Granted {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

/// What is known of a token (RFC 7662, 2.2). Of one that opens nothing, that alone.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Standing {
    /// It is good here and now.
    Active(Box<Known>),
    /// It is not, for whatever reason.
    Inactive {
        /// Always false.
        active: bool,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct Known {
    active: bool,
    scope: String,
    client_id: String,
    username: String,
    token_type: &'static str,
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Bound>,
}

impl Vault {
    /// RFC 6749, 4.4, and RFC 8693.
    pub(super) fn oauth_token(&self, act: &Act, proof: &Proof, form: &Form) -> Result<Granted, OauthError> {
        let client = self.authenticate(act, proof)?;
        let act = Act { caller: Some(client.caller()), ..act.clone() };
        let (op, plan, kind) = match form.need("grant_type")? {
            CLIENT_CREDENTIALS => ("grant", self.plan_grant(&client, proof, form), None),
            TOKEN_EXCHANGE => {
                ("exchange", self.plan_exchange(&client, proof, form, &act), Some(ACCESS_TOKEN))
            }
            _ => {
                let text = "only client_credentials and token-exchange are granted here";
                return Err(OauthError::new(Word::UnsupportedGrantType, text));
            }
        };
        let entry = act.entry("oauth", op, format!("tokens/{}", client.id));
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                self.note(entry, error.is_denial())?;
                return Err(error);
            }
        };
        let scope = plan.grants.to_header();
        let MintAnswer { token, expires_in, .. } = self.issue_token(&act, entry, Ok(plan))?;
        Ok(Granted { access_token: token, token_type: "Bearer", expires_in, scope, issued_token_type: kind })
    }

    /// The certificate a client proves itself by, as tokens name it.
    fn shown_certificate(&self, proof: &Proof) -> Result<Option<String>, OauthError> {
        let digest = proof.serial().map(|serial| self.digest_of(serial)).transpose()?;
        Ok(digest.flatten())
    }

    /// What the tokens of a client are bound to, where they are; never none in its place.
    fn binding_of(&self, client: &Client, proof: &Proof) -> Result<Option<String>, OauthError> {
        if !client.bound {
            return Ok(None);
        }
        self.shown_certificate(proof)?.ok_or_else(OauthError::client).map(Some)
    }

    fn plan_grant(&self, client: &Client, proof: &Proof, form: &Form) -> Result<Plan, OauthError> {
        Ok(Plan {
            bound: self.binding_of(client, proof)?,
            subject: client.id.clone(),
            service: ServiceName::parse(&client.id).ok(),
            grants: judge::of_client(&client.grants(), form.find("scope"))?,
            audience: self.settings.audience.clone(),
            ttl: self.client_life(client),
            client: Some(client.id.clone()),
            parent: None,
            user: None,
        })
    }

    fn client_life(&self, client: &Client) -> SignedDuration {
        client.ttl_s.map_or(self.settings.token_ttl, SignedDuration::from_secs).min(TTL_MAX)
    }

    /// A token about the same subject that carries less and ends no later. It ends with the one it is made of.
    /// One that is bound to a certificate is exchanged by whoever shows that one, for one that is bound to it.
    fn plan_exchange(
        &self,
        client: &Client,
        proof: &Proof,
        form: &Form,
        act: &Act,
    ) -> Result<Plan, OauthError> {
        let access_token = |name| matches!(form.find(name), None | Some(ACCESS_TOKEN | JWT));
        form.need("subject_token_type")?;
        if !access_token("subject_token_type") || !access_token("requested_token_type") {
            return Err(OauthError::request("only access tokens are exchanged, for access tokens"));
        }
        if form.find("actor_token").is_some() {
            return Err(OauthError::request("actor tokens are not taken"));
        }
        if form.find("resource").is_some() {
            return Err(OauthError::new(Word::InvalidTarget, "tokens are not limited to resources here"));
        }
        let bad = || OauthError::new(Word::InvalidGrant, "the subject token is not good");
        let claims = self.trust.verify(form.need("subject_token")?).map_err(|_| bad())?;
        let bound = match Bound::of(&claims).map(Bound::into_text) {
            None => self.binding_of(client, proof)?,
            bound if bound == self.shown_certificate(proof)? => bound,
            Some(_) => return Err(bad()),
        };
        let known = claims.jti.as_deref().filter(|_| !claims.legacy).map(|jti| self.find_token(jti));
        let row = known.transpose()?.flatten().ok_or_else(bad)?;
        if claims.sub != client.id && !client.grants().covers(EXCHANGE_SCOPE) {
            let text = "a client exchanges its own tokens; others need tokens:exchange";
            return Err(OauthError::new(Word::UnauthorizedClient, text));
        }
        let audience = match form.find("audience") {
            None => row.audience.clone(),
            Some(name) if row.audience.iter().any(|own| own == name) => vec![name.to_owned()],
            Some(_) => {
                let text = "the subject token is not for this audience";
                return Err(OauthError::new(Word::InvalidTarget, text));
            }
        };
        let left = SignedDuration::from_secs(claims.exp - act.now.as_second());
        if left < SignedDuration::from_secs(1) {
            return Err(bad());
        }
        let jti = claims.jti.clone().unwrap_or_default();
        Ok(Plan {
            bound,
            service: ServiceName::parse(&claims.sub).ok(),
            grants: judge::narrowed(&claims.grants, form.find("scope"))?,
            subject: claims.sub,
            audience,
            ttl: self.client_life(client).min(left),
            client: Some(client.id.clone()),
            parent: Some(Parent { root: row.root().unwrap_or(&jti).to_owned(), jti, expires_s: claims.exp }),
            user: None,
        })
    }

    /// RFC 7662. Whoever is a client may ask about any token it holds.
    pub(super) fn oauth_introspect(
        &self,
        act: &Act,
        proof: &Proof,
        form: &Form,
    ) -> Result<Standing, OauthError> {
        self.authenticate(act, proof)?;
        let inactive = Standing::Inactive { active: false };
        let Ok(claims) = self.trust.verify(form.need("token")?) else { return Ok(inactive) };
        let cnf = Bound::of(&claims);
        let Claims { jti: Some(jti), sub, iat, exp, grants, legacy: false, .. } = claims else {
            return Ok(inactive);
        };
        let Some(row) = self.find_token(&jti)? else { return Ok(inactive) };
        let iat = iat.unwrap_or(row.issued_s);
        Ok(Standing::Active(Box::new(Known {
            active: true,
            scope: grants.to_header(),
            client_id: row.client.unwrap_or_else(|| sub.clone()),
            username: sub.clone(),
            token_type: "Bearer",
            iss: self.settings.issuer.clone(),
            sub,
            aud: row.audience,
            exp,
            iat,
            nbf: iat,
            jti,
            cnf,
        })))
    }

    /// RFC 7009. What opens nothing is ended already; what was issued to another client stays.
    pub(super) fn oauth_revoke(&self, act: &Act, proof: &Proof, form: &Form) -> Result<(), OauthError> {
        let client = self.authenticate(act, proof)?;
        let act = Act { caller: Some(client.caller()), ..act.clone() };
        let Ok(Claims { jti: Some(jti), sub, .. }) = self.trust.verify_issued(form.need("token")?) else {
            return Ok(());
        };
        let Some(row) = self.find_token(&jti)? else { return Ok(()) };
        let entry = act.entry("oauth", "revoke", format!("tokens/{sub}/{jti}"));
        if row.client.as_deref().unwrap_or(&sub) != client.id {
            self.note(entry, true)?;
            return Err(OauthError::new(Word::InvalidGrant, "the token was issued to another client"));
        }
        self.revoke_token(&act, entry, jti)?;
        Ok(())
    }
}
