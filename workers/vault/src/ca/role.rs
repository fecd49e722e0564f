//! Certificates of Sluice's own roles.
//!
//! A role gets one for itself alone, over the internal door, as often as [`super::Pace`] allows. It is kept
//! like a service's: listed under the role's name, revoked by its serial. Of those in force at most
//! [`LIVE_MAX`] are kept a role: a further one revokes the oldest, which its holder has long replaced, so
//! whatever is valid is also listed. What has ended is swept like every other.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Instant;

use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use sluice_wire::certificate::{CertificateRequest, NAMES_MAX, RoleCertificate};
use sluice_wire::code::Code;
use sluice_wire::role::Role;

use super::csr::RequestedKey;
use super::leaf::{Holder, Leaf, LeafRequest, is_dns_name};
use super::ops::{Credential, keep};
use super::revoke::{announce_revoked, revoke_row};
use super::{pace, rows};
use crate::context::Vault;
use crate::error::VaultError;
use crate::request::Act;
use crate::store::{Change, Table, View as _};

/// LIMIT: certificates in force a role.
const LIVE_MAX: usize = pace::BURST as usize;
/// LIMIT: certificates a role has in the store, ended and revoked ones among them; by its pace it makes fewer
/// in the longest day.
const ROWS_MAX: usize = 20_000;

impl Vault {
    /// Issues a certificate for a role that speaks for itself.
    pub(crate) fn issue_role(
        &self,
        act: &Act,
        role: Role,
        request: &CertificateRequest,
    ) -> Result<RoleCertificate, VaultError> {
        let entry = act.entry("credential", "issue", format!("credentials/{role}"));
        let wanted = match self.plan_role(role, request) {
            Ok(wanted) => wanted,
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let mut pace = self.role_pace.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = pace.take(role, Instant::now());
        drop(pace);
        if !granted {
            // Not recorded: a loop must not fill the log either.
            return Err(VaultError::invalid(
                Code::RateLimited,
                "this role has asked for too many certificates",
            ));
        }
        let authority = self.authority.load_full();
        let issuing = authority.issuing();
        let leaf = Leaf::issue(issuing, &self.settings.trust_domain, wanted, act.now)?;
        let credential = Credential::of(role.as_str(), &leaf, act.now);
        let now = act.now;
        let superseded = self.write(entry, move |change| {
            let superseded = supersede(change, role, now)?;
            keep(change, &credential, now)?;
            Ok(superseded)
        })?;
        self.figures.certificates.inc();
        self.figures.revocations.with_label_values(&["certificate"]).inc_by(u64::from(superseded));
        Ok(RoleCertificate {
            certificate: leaf.pem,
            ca_chain: [issuing.pem(), authority.root.pem()].concat(),
            ca_certificate: authority.root.pem().to_owned(),
            serial_number: leaf.serial,
            spiffe_id: leaf.spiffe_id,
            issued_at: act.now,
            expires_at: leaf.not_after,
            renew_at: renew_at(act.now, leaf.not_after, chance()),
        })
    }

    fn plan_role(&self, role: Role, request: &CertificateRequest) -> Result<LeafRequest, VaultError> {
        let bad = |detail: String| VaultError::invalid(Code::BadRequest, detail);
        if request.dns_names.len() > NAMES_MAX || request.ip_addresses.len() > NAMES_MAX {
            return Err(bad(format!(
                "a certificate has at most {NAMES_MAX} names and {NAMES_MAX} addresses"
            )));
        }
        let shown = |text: &str| text.chars().take(64).collect::<String>();
        for name in &request.dns_names {
            // The edge's listener may stand for every host below a name.
            let configured = role == Role::Vault && self.settings.names.contains(name);
            let wide = configured || role == Role::Edge;
            let below = name.strip_prefix("*.").filter(|rest| wide && rest.contains('.'));
            if !is_dns_name(below.unwrap_or(name)) {
                return Err(bad(format!("`{}` is no plain lower-case DNS name", shown(name))));
            }
            if !configured && !may_name(role, name, &self.settings.trust_domain) {
                return Err(VaultError::Forbidden(
                    "a role may name itself and this machine; hosts only the edge",
                ));
            }
        }
        let address = |text: &String| {
            text.parse::<IpAddr>().map_err(|_| bad(format!("`{}` is no IP address", shown(text))))
        };
        let ip_addresses = request.ip_addresses.iter().map(address).collect::<Result<Vec<_>, _>>()?;
        let own = |address: &IpAddr| {
            address.is_loopback() || (role == Role::Vault && self.settings.addresses.contains(address))
        };
        if role != Role::Edge && !ip_addresses.iter().all(own) {
            return Err(VaultError::Forbidden(
                "a role may name addresses of this machine; others only the edge",
            ));
        }
        let key = RequestedKey::parse(&request.csr).map_err(|error| bad(error.to_string()))?;
        Ok(LeafRequest {
            holder: Holder::Role(role),
            dns_names: request.dns_names.clone(),
            ip_addresses,
            ttl: self.settings.leaf_ttl,
            key: Some(key),
        })
    }
}

/// The edge stands in front of hosts that an operator names; nobody else does. No role names another, nor all
/// names in the trust domain, where the others' are.
fn may_name(role: Role, name: &str, trust_domain: &str) -> bool {
    let label = name.strip_suffix(trust_domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(name);
    match label.parse::<Role>() {
        Ok(named) => named == role,
        Err(_) if label == "*" => false,
        Err(_) => role == Role::Edge || name == "localhost",
    }
}

/// Makes room for one more certificate in force: revokes the oldest when there are as many as may be. Whether
/// it did. INVARIANT: of a role's rows, oldest first, all but the last [`LIVE_MAX`] have ended or are revoked.
fn supersede(change: &mut Change<'_>, role: Role, now: Timestamp) -> Result<bool, VaultError> {
    let keys = change.keys(Table::Credential, &rows::of_service(role.as_str(), ROWS_MAX))?;
    if keys.len() == ROWS_MAX {
        return Err(VaultError::invalid(
            Code::RateLimited,
            "this role has too many certificates in the store",
        ));
    }
    let Some(key) = keys.len().checked_sub(LIVE_MAX).and_then(|oldest| keys.get(oldest)) else {
        return Ok(false);
    };
    let credential: Credential = change.require(Table::Credential, key)?;
    if !credential.is_live(now) {
        return Ok(false);
    }
    let serials = [credential.serial.clone()];
    revoke_row(change, key, credential, now);
    announce_revoked(change, role.as_str(), &serials, now)?;
    Ok(true)
}

/// Two thirds of the life, less up to a twelfth of it by chance (0 to 1).
fn renew_at(from: Timestamp, until: Timestamp, chance: f64) -> Timestamp {
    let life_s = until.duration_since(from).as_secs_f64();
    let after_us = life_s * (2.0 / 3.0 - chance / 12.0) * 1e6;
    Timestamp::from_microsecond(from.as_microsecond() + after_us.round() as i64).unwrap_or(until)
}

fn chance() -> f64 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("the kernel's random source does not fail once seeded");
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn roles_name_themselves_and_only_the_edge_names_hosts() {
        let domain = "sluice.internal";
        for own in ["demo", "demo.sluice.internal", "localhost"] {
            assert!(may_name(Role::Demo, own, domain), "{own}");
        }
        for other in ["edge", "vault.sluice.internal", "bank.example", "bot", "x.demo.sluice.internal"] {
            assert!(!may_name(Role::Demo, other, domain), "{other}");
        }
        for host in
            ["api.bank.example", "localhost", "edge", "trading.sluice.internal", "edge.sluice.internal"]
        {
            assert!(may_name(Role::Edge, host, domain), "{host}");
        }
        for role in ["vault", "vault.sluice.internal", "demo", "*.sluice.internal"] {
            assert!(!may_name(Role::Edge, role, domain), "{role}");
        }
    }

    #[test]
    fn renewal_is_due_before_two_thirds_and_after_half() {
        let from: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let until = from + SignedDuration::from_hours(24);
        assert_eq!(renew_at(from, until, 0.0), from + SignedDuration::from_hours(16));
        assert_eq!(renew_at(from, until, 1.0), from + SignedDuration::from_hours(14));
        assert!((0..100).map(|_| chance()).all(|chance| (0.0..=1.0).contains(&chance)));
    }
}
