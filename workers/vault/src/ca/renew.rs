//! Renewal: the next certificate of a service, with the names of the one it has.
//!
//! What an administrator has once put into a certificate stays in the next one, whoever of those that may asks for it.
//! A revoked or ended certificate is not renewed. The former stays good until it ends, so nobody has to change in one
//! moment.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_wire::code::Code;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, parse_x509_pem};

use super::csr::RequestedKey;
use super::leaf::{Holder, LeafRequest};
use super::ops::{Credential, IssueAnswer, newest};
use super::rows;
use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::path::ServiceName;
use crate::request::Act;
use crate::store::{Table, View};
use crate::token::Ttl;

/// A wish for the next certificate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenewRequest {
    /// Which one is renewed; without it the newest.
    serial_number: Option<String>,
    csr: Option<String>,
    ttl: Option<Ttl>,
}

/// A certificate with how long it lasts and when to renew it.
#[derive(Debug, Serialize)]
pub(crate) struct Dated {
    #[serde(flatten)]
    credential: Credential,
    /// Days until it ends, to the hundredth; negative once it has.
    days_left: f64,
    /// Two thirds of its life.
    renew_at: Timestamp,
}

impl Dated {
    pub(super) fn of(credential: Credential, now: Timestamp) -> Self {
        let left_s = credential.not_after.duration_since(now).as_secs_f64();
        let life = credential.not_after.duration_since(credential.issued_at);
        Self {
            days_left: (left_s / 864.0).floor() / 100.0,
            renew_at: credential.issued_at + life / 3 * 2,
            credential,
        }
    }
}

impl Vault {
    /// Issues the next certificate of a service.
    pub(crate) fn renew_credential(
        &self,
        act: &Act,
        service: &str,
        request: &RenewRequest,
    ) -> impl Future<Output = Result<IssueAnswer, VaultError>> + Send + use<> {
        let entry = act.entry("credential", "renew", format!("credentials/{service}"));
        self.hand_out(act, entry, service, self.plan_renewal(act, service, request))
    }

    fn plan_renewal(
        &self,
        act: &Act,
        service: &str,
        request: &RenewRequest,
    ) -> Result<LeafRequest, VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        let service = ServiceName::parse(service)?;
        let bound = self.may_certify(caller, &service)?;
        let view = self.store.snapshot()?;
        let former = match &request.serial_number {
            Some(serial) => by_serial(&view, serial)?.filter(|one| one.service == service.as_str()),
            None => newest(&view, service.as_str())?,
        };
        let former = former.filter(|former| former.is_live(act.now)).ok_or_else(|| {
            VaultError::NotFound("this service has no certificate in force: issue one".into())
        })?;
        let life = former.not_after.duration_since(former.issued_at);
        let ttl = match request.ttl {
            Some(ttl) => self.leaf_life(caller, Some(ttl.0), bound)?,
            // An administrator may have given it more.
            None => self.leaf_life(caller, None, bound)?.min(life),
        };
        let key = request.csr.as_deref().map(RequestedKey::parse).transpose();
        let key = key.map_err(|error| VaultError::invalid(Code::BadRequest, error.to_string()))?;
        let (dns_names, ip_addresses) = names(former.certificate_pem())?;
        Ok(LeafRequest { holder: Holder::Service(service), dns_names, ip_addresses, ttl, key })
    }
}

fn by_serial(view: &impl View, serial: &str) -> Result<Option<Credential>, VaultError> {
    let row = rows::key_of(view, serial.as_bytes())?;
    row.map(|row| view.require(Table::Credential, &row)).transpose()
}

/// The names and addresses in a certificate.
fn names(pem: &str) -> Result<(Vec<String>, Vec<IpAddr>), VaultError> {
    let wrong = || VaultError::Crypto("a certificate that was issued here");
    let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|_| wrong())?;
    let (_, leaf) = X509Certificate::from_der(&block.contents).map_err(|_| wrong())?;
    let (mut dns, mut ip) = (Vec::new(), Vec::new());
    let told = leaf.subject_alternative_name().map_err(|_| wrong())?.ok_or_else(wrong)?;
    for name in &told.value.general_names {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                ip.push(address.map_err(|_| wrong())?);
            }
            _ => {}
        }
    }
    Ok((dns, ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn days_are_told_to_the_hundredth_and_renewal_is_due_at_two_thirds() {
        let from: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let credential: Credential = serde_json::from_value(serde_json::json!({
            "service_name": "bot", "certificate": "", "serial_number": "01", "spiffe_id": "", "dns_names": [],
            "issued_at": from, "expires_at": from + SignedDuration::from_hours(24), "issuer": "", "key_digest": "",
            "revoked_at": null,
        }))
        .unwrap();
        let at = |hours| Dated::of(credential.clone(), from + SignedDuration::from_hours(hours));
        assert_eq!(at(0).renew_at, from + SignedDuration::from_hours(16));
        assert!((at(6).days_left - 0.75).abs() < 1e-9 && (at(25).days_left + 0.05).abs() < 1e-9);
    }
}
