//! What callers do with certificates: issue, look up.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use sluice_audit::Entry;
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::role::Role;

use super::authority::{self, Issuing};
use super::csr::RequestedKey;
use super::leaf::{Holder, Leaf, LeafRequest, is_dns_name};
use super::renew::Dated;
use super::rows;
use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::falco;
use crate::outbox::security_event;
use crate::path::ServiceName;
use crate::quota::Held;
use crate::request::Act;
use crate::store::{Change, Range, Table, View};
use crate::token::Ttl;

/// LIMIT: certificates that have not ended.
pub(super) const CREDENTIALS_MAX: u64 = 500_000;
/// LIMIT: DNS names and addresses of one certificate.
const NAMES_MAX: usize = 32;
/// LIMIT: services in one page of the list.
const PAGE_MAX: usize = 200;
/// LIMIT: certificates looked through for those that end soon.
const IN_FORCE_MAX: usize = 10_000;
/// Longest life an administrator can ask for; the issuer's own end comes first.
pub(super) const LEAF_LIFE_MAX: SignedDuration = SignedDuration::from_hours(24 * 90);

/// A wish for a certificate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssueRequest {
    /// The service; may stand in the path instead.
    pub(crate) service_name: Option<String>,
    csr: Option<String>,
    ttl: Option<Ttl>,
    #[serde(default)]
    dns_names: Vec<String>,
    #[serde(default)]
    ip_addresses: Vec<IpAddr>,
}

/// A new certificate; the private key is shown this once and kept nowhere.
#[derive(Serialize)]
pub(crate) struct IssueAnswer {
    service_name: String,
    /// The leaf and, after it, its intermediate: what a TLS server presents.
    certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<String>,
    ca_certificate: Shown,
    ca_chain: [Shown; 2],
    serial_number: String,
    spiffe_id: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

/// A CA's certificate in an answer.
struct Shown(Arc<Issuing>);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.shown().serialize(to)
    }
}

/// A certificate as it is kept and shown: never with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credential {
    #[serde(rename = "service_name")]
    pub(super) service: String,
    certificate: String,
    #[serde(rename = "serial_number")]
    pub(super) serial: String,
    pub(crate) spiffe_id: String,
    dns_names: Vec<String>,
    #[serde(rename = "issued_at")]
    pub(super) issued_at: Timestamp,
    #[serde(rename = "expires_at")]
    pub(super) not_after: Timestamp,
    /// Key id of its issuer.
    pub(super) issuer: String,
    /// SHA-256 of its public key, hex.
    pub(super) key_digest: String,
    pub(super) revoked_at: Option<Timestamp>,
    /// Who asked for it in another's place: it counts to that one's quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requested_by: Option<String>,
}

/// The newest certificates of some services, and the last of these where there are more.
struct Page {
    credentials: Vec<Credential>,
    next: Option<String>,
}

/// The same, shown.
#[derive(Debug, Serialize)]
pub(crate) struct CredentialPage {
    credentials: Vec<Dated>,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A certificate on the dashboard's list.
#[derive(Debug, Serialize)]
pub(crate) struct Watched {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) serial: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// The service a public key belongs to, as long as a certificate for it may be valid.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyOwner {
    service: String,
    pub(super) until: Timestamp,
}

impl Vault {
    /// Issues a certificate for a service.
    pub(crate) fn issue(
        &self,
        act: &Act,
        service: &str,
        request: IssueRequest,
    ) -> impl Future<Output = Result<IssueAnswer, VaultError>> + Send + use<> {
        let entry = act.entry("credential", "issue", format!("credentials/{service}"));
        self.hand_out(act, entry, service, self.plan_issue(act, service, request))
    }

    /// Makes a certificate that was decided on, keeps it and shows it; records a refusal.
    pub(super) fn hand_out(
        &self,
        act: &Act,
        entry: Entry,
        service: &str,
        planned: Result<LeafRequest, VaultError>,
    ) -> impl Future<Output = Result<IssueAnswer, VaultError>> + Send + use<> {
        let authority = self.authority.load_full();
        let made = match planned {
            Ok(wanted) => Leaf::issue(authority.issuing(), &self.settings.trust_domain, wanted, act.now),
            Err(error) => Err(self.refuse(entry.clone(), error)),
        };
        let (now, service, payer) = (act.now, service.to_owned(), act.payer(service));
        let made = made.and_then(|leaf| {
            let mut credential = Credential::of(&service, &leaf, now);
            credential.requested_by = payer;
            let work = self.looked_at_again(act, move |change| {
                falco::check(change, &credential.service, now)?;
                keep(change, &credential, now)
            })?;
            Ok((leaf, self.change(entry, work)))
        });
        let certificates = self.figures.certificates.clone();
        async move {
            let (leaf, kept) = made?;
            kept.done().await?;
            certificates.inc();
            let (issuing, root) = (authority.issuing(), &authority.root);
            Ok(IssueAnswer {
                service_name: service,
                certificate: leaf.pem + issuing.pem(),
                private_key: leaf.private_key.map(|key| key.as_str().to_owned()),
                ca_certificate: Shown(Arc::clone(root)),
                ca_chain: [Shown(Arc::clone(issuing)), Shown(Arc::clone(root))],
                serial_number: leaf.serial,
                spiffe_id: leaf.spiffe_id,
                issued_at: now,
                expires_at: leaf.not_after,
            })
        }
    }

    fn plan_issue(&self, act: &Act, service: &str, request: IssueRequest) -> Result<LeafRequest, VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        let service = ServiceName::parse(service)?;
        let bound = self.may_certify(caller, &service)?;
        let admin = caller.grants.is_admin();
        let ttl = self.leaf_life(caller, request.ttl.map(|ttl| ttl.0), bound)?;
        let bad = |detail: String| Err(VaultError::invalid(Code::BadRequest, detail));
        if request.dns_names.len() + request.ip_addresses.len() > NAMES_MAX {
            return bad(format!("a certificate has at most {NAMES_MAX} names and addresses"));
        }
        if let Some(name) = request.dns_names.iter().find(|name| !is_dns_name(name)) {
            let shown: String = name.chars().take(64).collect();
            return bad(format!("`{shown}` is no plain lower-case DNS name"));
        }
        let own = format!(".{service}.{}", self.settings.trust_domain);
        let is_own = |name: &String| {
            name == "localhost" || name == service.as_str() || *name == own[1..] || name.ends_with(&own)
        };
        let foreign =
            !request.dns_names.iter().all(is_own) || !request.ip_addresses.iter().all(IpAddr::is_loopback);
        if foreign && !admin {
            return Err(VaultError::Forbidden(
                "only an administrator may name hosts that are not the service's own or this machine",
            ));
        }
        let key = request.csr.as_deref().map(RequestedKey::parse).transpose();
        let key = key.map_err(|error| VaultError::invalid(Code::BadRequest, error.to_string()))?;
        let (dns_names, ip_addresses) = (request.dns_names, request.ip_addresses);
        Ok(LeafRequest { holder: Holder::Service(service), dns_names, ip_addresses, ttl, key })
    }

    /// A life that the caller may give, or the usual one; `bound` is what it has itself, where that is less.
    pub(super) fn leaf_life(
        &self,
        caller: &Caller,
        wanted: Option<SignedDuration>,
        bound: Option<SignedDuration>,
    ) -> Result<SignedDuration, VaultError> {
        let usual = self.settings.leaf_ttl;
        let longest = match bound {
            _ if caller.grants.is_admin() => LEAF_LIFE_MAX,
            Some(bound) => bound.min(usual),
            None => usual,
        };
        let ttl = wanted.unwrap_or(usual.min(longest));
        if ttl < SignedDuration::from_secs(1) || ttl > longest {
            let detail = format!("ttl is at least 1 and at most {} seconds", longest.as_secs());
            return Err(VaultError::invalid(Code::BadRequest, detail));
        }
        Ok(ttl)
    }

    /// A service's newest certificate.
    pub(crate) fn credential(&self, act: &Act, service: &str) -> Result<Dated, VaultError> {
        let entry = act.entry("credential", "read", format!("credentials/{service}"));
        if let Err(error) = may_see(act, service) {
            return Err(self.refuse(entry, error));
        }
        self.read(entry, || {
            let view = self.store.snapshot()?;
            let found = newest(&view, service)?;
            let found =
                found.ok_or_else(|| VaultError::NotFound("this service has no certificate".into()))?;
            Ok(Dated::of(found, act.now))
        })
    }

    /// The newest certificate of every service the caller may see.
    pub(crate) fn list_credentials(
        &self,
        act: &Act,
        after: Option<&str>,
        limit: usize,
    ) -> Result<CredentialPage, VaultError> {
        let entry = act.entry("credential", "list", "credentials");
        let caller = match access::known(act.caller.as_ref()) {
            Ok(caller) => caller,
            Err(error) => return Err(self.refuse(entry, error)),
        };
        self.read(entry, || {
            let view = self.store.snapshot()?;
            if caller.grants.covers("credentials:issue") {
                return Ok(page(&view, after, limit.clamp(1, PAGE_MAX))?.dated(act.now));
            }
            let credentials: Vec<_> =
                newest(&view, access::service(caller).unwrap_or_default())?.into_iter().collect();
            Ok(Page { credentials, next: None }.dated(act.now))
        })
    }

    /// Every certificate whose end somebody should know of: root, intermediates, the newest of each service.
    pub(crate) fn watched(&self) -> Result<Vec<Watched>, VaultError> {
        let authority = self.authority.load_full();
        let mut watched = vec![Watched::ca("root", &authority.root)];
        let intermediates = authority.intermediates.iter().rev();
        watched.extend(intermediates.map(|issuing| Watched::ca("intermediate", issuing)));
        watched.extend(leaves(page(&self.store.snapshot()?, None, PAGE_MAX)?));
        watched.sort_by_key(|one| one.not_after);
        Ok(watched)
    }

    /// Every certificate that something relies on: root, the intermediate that signs, the newest of each service.
    pub(super) fn in_force(&self) -> Result<Vec<Watched>, VaultError> {
        let authority = self.authority.load_full();
        let signing = Watched::ca("intermediate", authority.issuing());
        let mut found = vec![Watched::ca("root", &authority.root), signing];
        let view = self.store.snapshot()?;
        let mut after: Option<String> = None;
        while found.len() < IN_FORCE_MAX {
            let page = page(&view, after.as_deref(), PAGE_MAX)?;
            after.clone_from(&page.next);
            found.extend(leaves(page));
            if after.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

impl Page {
    fn dated(self, now: Timestamp) -> CredentialPage {
        let credentials: Vec<_> = self.credentials.into_iter().map(|one| Dated::of(one, now)).collect();
        CredentialPage { count: credentials.len(), credentials, next: self.next }
    }
}

impl Watched {
    fn ca(kind: &'static str, issuing: &Issuing) -> Self {
        Self {
            name: format!("ca {kind}"),
            kind,
            serial: issuing.serial.clone(),
            not_before: issuing.not_before,
            not_after: issuing.not_after,
        }
    }
}

/// The certificates of a page that are not revoked.
fn leaves(page: Page) -> impl Iterator<Item = Watched> {
    page.credentials.into_iter().filter(|one| one.revoked_at.is_none()).map(|one| Watched {
        name: one.service,
        kind: "leaf",
        serial: one.serial,
        not_before: one.issued_at,
        not_after: one.not_after,
    })
}

/// Whether the caller may see the certificates of this service or role; the name is checked before.
pub(super) fn may_see(act: &Act, name: &str) -> Result<(), VaultError> {
    access::known(act.caller.as_ref())?;
    if name.parse::<Role>().is_ok() {
        return access::role_credential(act.caller.as_ref(), "credentials:issue");
    }
    ServiceName::parse(name)?;
    access::credential(act.caller.as_ref(), name)
}

impl Credential {
    pub(super) fn of(holder: &str, leaf: &Leaf, now: Timestamp) -> Self {
        Self {
            service: holder.to_owned(),
            certificate: leaf.pem.clone(),
            serial: leaf.serial.clone(),
            spiffe_id: leaf.spiffe_id.clone(),
            dns_names: leaf.dns_names.clone(),
            issued_at: now,
            not_after: leaf.not_after,
            issuer: leaf.issuer.clone(),
            key_digest: authority::hex(&leaf.key_digest),
            revoked_at: None,
            requested_by: None,
        }
    }

    /// Whose quota it counts to; a role's to nobody's.
    pub(super) fn payer(&self) -> Option<&str> {
        let named = self.requested_by.as_deref().unwrap_or(&self.service);
        self.service.parse::<Role>().is_err().then_some(named)
    }

    /// The certificate, PEM.
    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Whether it is in force.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.not_after > now
    }
}

pub(super) fn keep(
    change: &mut Change<'_>,
    credential: &Credential,
    now: Timestamp,
) -> Result<(), VaultError> {
    // Roles have a bound of their own: theirs are had also when others took all there is.
    if let Some(payer) = credential.payer() {
        if change.count(Table::Credential)? >= CREDENTIALS_MAX {
            return Err(VaultError::invalid(Code::RateLimited, "too many certificates in force"));
        }
        change.charge(Held::Certificates, payer, 1)?;
    }
    let key = credential.key_digest.as_bytes();
    let owner: Option<KeyOwner> = change.load(Table::LeafKey, key)?;
    if owner.as_ref().is_some_and(|owner| owner.service != credential.service) {
        return Err(VaultError::invalid(
            Code::Conflict,
            "the key of this request belongs to another service or role",
        ));
    }
    let until = owner.map_or(credential.not_after, |owner| owner.until.max(credential.not_after));
    change.save(Table::LeafKey, key, &KeyOwner { service: credential.service.clone(), until });
    let row = rows::credential_key(credential);
    change.audit_as(format!("credentials/{}/{}", credential.service, credential.serial));
    change.put(Table::Serial, credential.serial.as_bytes(), &row);
    change.mark(Table::CredentialExpiry, &rows::expiry_key(credential));
    change.save(Table::Credential, &row, credential);
    change.emit(&security_event(
        "credential_issued",
        now,
        &[("service", &credential.service), ("serial_number", &credential.serial)],
    ))
}

pub(super) fn newest(view: &impl View, service: &str) -> Result<Option<Credential>, VaultError> {
    match view.last_key(Table::Credential, &rows::of_service(service, 1))? {
        Some(key) => view.require(Table::Credential, &key).map(Some),
        None => Ok(None),
    }
}

/// Walks from service to service, whatever number of certificates each has.
fn page(view: &impl View, after: Option<&str>, limit: usize) -> Result<Page, VaultError> {
    let mut credentials = Vec::new();
    let mut from = after.map_or_else(Vec::new, |after| [after.as_bytes(), &[1]].concat());
    let mut next = None;
    loop {
        let range = Range { from, to: Vec::new(), limit: 1 };
        let Some(key) = view.keys(Table::Credential, &range)?.pop() else { break };
        let service = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let service = String::from_utf8_lossy(service).into_owned();
        if credentials.len() == limit {
            next = credentials.last().map(|last: &Credential| last.service.clone());
            break;
        }
        credentials.extend(newest(view, &service)?);
        from = [service.as_bytes(), &[1]].concat();
    }
    Ok(Page { credentials, next })
}
