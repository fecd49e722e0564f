//! What callers do with tokens: mint and refresh; `revoke` ends them, `verdict` says what one is.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sluice_audit::Entry;
use sluice_identity::caller::Caller;
use sluice_identity::grants::{GRANTS_MAX, Grants, is_grant};
use sluice_wire::code::Code;

use super::mint::{Draft, TTL_MAX, Ttl, time};
use super::registry::{
    LINE_MAX, Parent, Row, index, is_caller_void, is_subject_revoked, line_prefix, void_until,
};
use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::falco;
use crate::oauth;
use crate::own::{Shown, parent_of};
use crate::path::ServiceName;
use crate::quota::Held;
use crate::request::Act;
use crate::store::{Change, Range, Table, View as _};
use crate::user::Standing;

/// LIMIT: live tokens.
const TOKENS_MAX: u64 = 1_000_000;
/// LIMIT: audiences of one token, and bytes of each.
const AUDIENCES_MAX: usize = 8;
const AUDIENCE_BYTES_MAX: usize = 128;

/// A wish for a token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MintRequest {
    /// The service; may stand in the path instead.
    pub(crate) service_name: Option<String>,
    permissions: Option<Vec<String>>,
    ttl: Option<Ttl>,
    audience: Option<Audience>,
    /// Whether it is to be good only with the certificate that is shown here.
    #[serde(default)]
    certificate_bound: bool,
}

/// For whom it is meant, one or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// The names, within their bounds.
    pub(super) fn names(&self) -> Result<Vec<String>, VaultError> {
        match self {
            Self::One(name) => audience(std::slice::from_ref(name)),
            Self::Many(names) => audience(names),
        }
    }
}

/// A new token and what it says.
#[derive(Serialize)]
pub(crate) struct MintAnswer {
    pub(crate) token: String,
    token_type: &'static str,
    service_name: String,
    issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) expires_in: i64,
    permissions: Vec<String>,
    pub(crate) jti: String,
}

/// A token to be made, decided and checked.
pub(crate) struct Plan {
    pub(crate) subject: String,
    pub(crate) service: Option<ServiceName>,
    pub(crate) grants: Grants,
    pub(crate) audience: Vec<String>,
    pub(crate) ttl: SignedDuration,
    /// The OAuth client that asks, where one does.
    pub(crate) client: Option<String>,
    /// The token it is made of, with which it ends.
    pub(crate) parent: Option<Parent>,
    /// The user whose password or session asks, where one does.
    pub(crate) user: Option<Standing>,
    /// The certificate it is to be bound to: SHA-256, base64url.
    pub(crate) bound: Option<String>,
}

impl Vault {
    /// Mints a token for a service.
    pub(crate) fn mint(
        &self,
        act: &Act,
        service: &str,
        request: &MintRequest,
    ) -> Result<MintAnswer, VaultError> {
        let entry = act.entry("token", "mint", format!("tokens/{service}"));
        let plan = self.plan_mint(act, service, request);
        self.issue_token(act, entry, plan)
    }

    /// Mints the development administrator's token; it is nobody's request.
    pub(crate) fn mint_dev_admin(
        &self,
        ttl: SignedDuration,
        now: Timestamp,
    ) -> Result<MintAnswer, VaultError> {
        let act = Act::own(now);
        let plan = Plan {
            subject: "dev-admin".to_owned(),
            service: None,
            grants: ["admin"].into_iter().collect(),
            audience: self.settings.audience.clone(),
            ttl,
            client: None,
            parent: None,
            user: None,
            bound: None,
        };
        self.issue_token(&act, act.entry("token", "mint", "tokens/dev-admin"), Ok(plan))
    }

    /// Gives the caller a new token like its own, with a new life.
    pub(crate) fn refresh(&self, act: &Act, ttl: Option<Ttl>) -> Result<MintAnswer, VaultError> {
        let entry = act.entry("token", "refresh", "tokens/refresh");
        let plan = self.plan_refresh(act, ttl);
        self.issue_token(act, entry, plan)
    }

    fn plan_mint(&self, act: &Act, service: &str, request: &MintRequest) -> Result<Plan, VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        let service = ServiceName::parse(service)?;
        let wanted = request.permissions.as_deref().map(permissions).transpose()?;
        let grants = access::mint(Some(caller), &service, wanted, &self.settings.roles)?;
        let audience = request.audience.as_ref().map(Audience::names).transpose()?;
        let plan = Plan {
            subject: service.as_str().to_owned(),
            service: Some(service),
            grants,
            audience: audience.clone().unwrap_or_else(|| self.settings.audience.clone()),
            ttl: SignedDuration::ZERO,
            client: None,
            parent: None,
            user: None,
            bound: None,
        };
        // The service for itself: what it shows is the measure.
        let shown = self.shown_by(caller)?;
        let bound = self.binding(caller, &plan.subject, &shown, request.certificate_bound)?;
        let plan = Plan { bound, ..plan };
        if caller.grants.covers("tokens:mint") {
            return Ok(Plan { ttl: self.token_life(caller, request.ttl, None)?, ..plan });
        }
        let ttl = self.token_life(caller, request.ttl, self.bound(&shown))?;
        match shown {
            Shown::Passing => Err(VaultError::Lacking("tokens:mint")),
            Shown::Token(jti, row) if row.parent.is_some() => {
                let wider = |name: &String| !row.audience.contains(name);
                if audience.as_ref().is_some_and(|names| names.iter().any(wider)) {
                    return Err(VaultError::Forbidden("the token shown is not for this audience"));
                }
                let parent = Some(parent_of(&jti, &row));
                let audience = audience.unwrap_or(row.audience);
                Ok(Plan { ttl, audience, client: row.client, parent, ..plan })
            }
            Shown::Certificate(_) | Shown::Token(..) => Ok(Plan { ttl, ..plan }),
        }
    }

    fn plan_refresh(&self, act: &Act, ttl: Option<Ttl>) -> Result<Plan, VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        let shown = self.shown_by(caller)?;
        let bound = self.bound(&shown);
        let Shown::Token(_, row) = shown else {
            return Err(VaultError::Forbidden("only the holder of a token of this vault may refresh it"));
        };
        Ok(Plan {
            subject: caller.subject.clone(),
            service: ServiceName::parse(&caller.subject).ok(),
            grants: caller.grants.clone(),
            audience: row.audience,
            ttl: self.token_life(caller, ttl, bound)?,
            client: row.client,
            // It ends with what its former was made of, not with its former: so a client can rotate.
            parent: row.parent,
            user: None,
            bound: row.bound,
        })
    }

    /// The certificate that a token made of `shown` is bound to: the one that is shown, where that is wished, and
    /// what is made of a bound token for the same service stays so.
    fn binding(
        &self,
        caller: &Caller,
        subject: &str,
        shown: &Shown,
        wished: bool,
    ) -> Result<Option<String>, VaultError> {
        let own = access::is_service(caller, subject);
        let bound = match (shown, &caller.serial) {
            (Shown::Token(_, row), _) if own => row.bound.clone(),
            (Shown::Certificate(_), Some(serial)) if wished && own => self.digest_of(serial)?,
            _ => None,
        };
        if wished && bound.is_none() {
            let detail =
                "a token is bound to the certificate that its service shows, and that was issued here";
            return Err(VaultError::invalid(Code::BadRequest, detail));
        }
        Ok(bound)
    }

    /// A life that the caller may give; `bound` is what it has itself, where that is less than is usual.
    fn token_life(
        &self,
        caller: &Caller,
        wanted: Option<Ttl>,
        bound: Option<SignedDuration>,
    ) -> Result<SignedDuration, VaultError> {
        let usual = self.settings.token_ttl.min(TTL_MAX);
        let longest = match bound {
            _ if caller.grants.is_admin() => TTL_MAX,
            Some(bound) => bound.min(usual),
            None => usual,
        };
        let ttl = wanted.map_or(usual.min(longest), |ttl| ttl.0);
        if ttl < SignedDuration::from_secs(1) || ttl > longest {
            let detail = format!("ttl is at least 1 and at most {} seconds", longest.as_secs());
            return Err(VaultError::invalid(Code::BadRequest, detail));
        }
        Ok(ttl)
    }

    pub(crate) fn issue_token(
        &self,
        act: &Act,
        entry: Entry,
        plan: Result<Plan, VaultError>,
    ) -> Result<MintAnswer, VaultError> {
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let caller = access::known(act.caller.as_ref())?.clone();
        let (caller_void_until, void_until) = {
            let view = self.store.snapshot()?;
            (void_until(&view, &caller.subject)?, void_until(&view, &plan.subject)?)
        };
        let jti = uuid::Uuid::now_v7().to_string();
        // A token made in the second in which its subject was revoked would be void: another's begins in the
        // next, but nobody lifts himself over his own revocation.
        // What is made of another token is not lifted over its subject's revocation either; a client that proved
        // itself anew is.
        let earliest_s = if plan.parent.is_some() {
            None
        } else if caller.subject == plan.subject && (plan.client.is_none() || caller.jti.is_some()) {
            caller.issued_at_s
        } else {
            void_until.map(|until| until + 1)
        };
        let issued_s = earliest_s.unwrap_or(0).max(act.now.as_second());
        let latest_s = plan.parent.as_ref().map_or(i64::MAX, |parent| parent.expires_s);
        let expires_s = (issued_s + plan.ttl.as_secs()).min(latest_s);
        if expires_s <= issued_s {
            return Err(self.refuse(entry, VaultError::Anonymous));
        }
        let draft = Draft {
            issuer: &self.settings.issuer,
            subject: &plan.subject,
            client: plan.client.as_deref().unwrap_or(&plan.subject),
            service: plan.service.as_ref().map(ServiceName::as_str),
            audience: &plan.audience,
            grants: &plan.grants,
            bound: plan.bound.as_deref(),
            jti: &jti,
            issued_s,
            expires_s,
        };
        let token = draft.sign(&self.signers.load())?;
        let row = Row {
            sub: plan.subject.clone(),
            issued_s,
            expires_s,
            scope: plan.grants.to_header(),
            audience: plan.audience,
            by: act.actor().to_owned(),
            revoked: false,
            client: plan.client,
            parent: plan.parent,
            payer: act.payer(&plan.subject),
            bound: plan.bound,
        };
        let (id, now, user) = (jti.clone(), act.now, plan.user);
        self.write(entry, move |change| {
            if change.count(Table::Token)? >= TOKENS_MAX {
                return Err(VaultError::invalid(Code::RateLimited, "too many live tokens"));
            }
            change.audit_as(format!("tokens/{}/{id}", row.sub));
            // Revoked between its verification and now: what it asked for must not outlive it.
            if is_caller_void(change, &caller, caller_void_until)? {
                return Err(VaultError::Anonymous);
            }
            if is_subject_revoked(change, &row)? {
                return Err(VaultError::invalid(
                    Code::Conflict,
                    "the service was revoked meanwhile; ask again",
                ));
            }
            falco::check(change, &row.sub, now)?;
            if let Some(client) = &row.client {
                falco::check(change, client, now)?;
                // Its tokens were ended when it was removed; none is made after that.
                if !oauth::is_client(change, client)? {
                    return Err(VaultError::Anonymous);
                }
            }
            if let Some(user) = &user {
                user.check(change)?;
            }
            if let Some(parent) = &row.parent {
                check_line(change, parent)?;
            }
            change.charge(Held::Tokens, row.payer(), 1)?;
            for key in index(&row, &id) {
                change.mark(Table::TokenIndex, &key);
            }
            change.save(Table::Token, id.as_bytes(), &row);
            Ok(())
        })?;
        self.figures.tokens.inc();
        Ok(MintAnswer {
            token,
            token_type: "Bearer",
            service_name: plan.subject,
            issued_at: time(issued_s),
            expires_at: time(expires_s),
            expires_in: expires_s - issued_s,
            permissions: plan.grants.iter().map(str::to_owned).collect(),
            jti,
        })
    }
}

/// Whether a token may have another made of it: it is still good, and its line is not too long.
fn check_line(change: &Change<'_>, parent: &Parent) -> Result<(), VaultError> {
    let gone = change.raw(Table::Revoked, format!("jti/{}", parent.jti).as_bytes())?.is_some();
    let line = Range::prefix(&line_prefix(&parent.root), LINE_MAX);
    if gone || change.keys(Table::TokenIndex, &line)?.len() >= LINE_MAX {
        let detail = "the subject token has ended, or too many tokens were made of it";
        return Err(VaultError::invalid(Code::Conflict, detail));
    }
    Ok(())
}

fn permissions(words: &[String]) -> Result<Grants, VaultError> {
    let bad = words.iter().find(|word| !is_grant(word));
    if let Some(bad) = bad {
        let shown: String = bad.chars().take(64).collect();
        return Err(VaultError::invalid(Code::BadRequest, format!("`{shown}` is no permission word")));
    }
    if words.len() > GRANTS_MAX {
        let detail = format!("a token carries at most {GRANTS_MAX} permissions");
        return Err(VaultError::invalid(Code::BadRequest, detail));
    }
    Ok(words.iter().collect())
}

fn audience(names: &[String]) -> Result<Vec<String>, VaultError> {
    let fits = |name: &String| {
        (1..=AUDIENCE_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
    };
    if names.is_empty() || names.len() > AUDIENCES_MAX || !names.iter().all(fits) {
        let detail = "audience is 1 to 8 names of at most 128 visible characters";
        return Err(VaultError::invalid(Code::BadRequest, detail));
    }
    Ok(names.to_vec())
}
