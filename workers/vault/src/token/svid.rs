//! JWT-SVIDs: a service's name in the trust domain, told to somebody who has the trust bundle (SPIFFE JWT-SVID 1.0).
//!
//! They are no access tokens: no `iss`, no scope, another `typ`, a subject that is a SPIFFE id. They are not kept and
//! cannot be taken back, so they are short, and who may have one is who may have the service's certificate.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sluice_wire::code::Code;

use super::mint::{Header, Ttl, compact, time};
use super::ops::Audience;
use super::registry::{is_caller_void, void_until};
use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::falco;
use crate::path::ServiceName;
use crate::request::Act;

/// Life where none is asked for.
const LIFE: SignedDuration = SignedDuration::from_mins(5);
/// LIMIT: the longest life: nobody can take one back.
const LIFE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A wish for a JWT-SVID.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SvidRequest {
    audience: Audience,
    ttl: Option<Ttl>,
}

/// A new JWT-SVID and what it says; `svid` and `spiffe_id` as the Workload API names them.
#[derive(Serialize)]
pub(crate) struct SvidAnswer {
    service_name: String,
    spiffe_id: String,
    svid: String,
    audience: Vec<String>,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a [String],
    exp: i64,
    iat: i64,
}

impl Vault {
    /// Gives a service its name, signed for an audience.
    pub(crate) fn jwt_svid(
        &self,
        act: &Act,
        service: &str,
        request: &SvidRequest,
    ) -> impl Future<Output = Result<SvidAnswer, VaultError>> + Send + use<> {
        let entry = act.entry("credential", "jwt_svid", format!("credentials/{service}"));
        let recorded = match self.make_svid(act, service, request) {
            Ok(made) => Ok(self.recorded(entry, Ok(made))),
            Err(error) => Err(self.refuse(entry, error)),
        };
        async move { recorded?.done().await }
    }

    fn make_svid(&self, act: &Act, service: &str, request: &SvidRequest) -> Result<SvidAnswer, VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        let before = void_until(&self.store.snapshot()?, &caller.subject)?;
        let service = ServiceName::parse(service)?;
        let longest = self.may_certify(caller, &service)?.map_or(LIFE_MAX, |bound| bound.min(LIFE_MAX));
        let audience = request.audience.names()?;
        let life = request.ttl.map_or(LIFE.min(longest), |ttl| ttl.0);
        if life < SignedDuration::from_secs(1) || life > longest {
            let detail = format!("ttl is at least 1 and at most {} seconds", longest.as_secs());
            return Err(VaultError::invalid(Code::BadRequest, detail));
        }
        // Nothing is kept, so there is no commit to look in: what was committed before this view counts.
        let view = self.store.snapshot()?;
        if is_caller_void(&view, caller, before)? {
            return Err(VaultError::Anonymous);
        }
        falco::check(&view, service.as_str(), act.now)?;
        let spiffe_id = format!("spiffe://{}/service/{service}", self.settings.trust_domain);
        let issued_s = act.now.as_second();
        let expires_s = issued_s + life.as_secs();
        let signers = self.signers.load();
        let header = Header { alg: "ES256", typ: "JWT", kid: signers.kid() };
        let claims = Claims { sub: &spiffe_id, aud: &audience, exp: expires_s, iat: issued_s };
        let svid = compact(&header, &claims, &signers)?;
        Ok(SvidAnswer {
            service_name: service.as_str().to_owned(),
            spiffe_id,
            svid,
            audience,
            issued_at: time(issued_s),
            expires_at: time(expires_s),
        })
    }
}
