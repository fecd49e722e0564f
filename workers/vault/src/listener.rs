//! What the vault's own port shows: a certificate that it issues to itself while it is open.
//!
//! Asked for anew at two thirds of its life, as soon as it is revoked, and whenever the vault has been opened
//! again, since its authority may be another then. A vault that is sealed keeps showing what it has; before
//! the first a handshake waits, so that shares are given from this machine, or by the internal door.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sluice_client::{CertificateRequest, RoleCertificate, RoleKey, RoleKeyFault};
use sluice_http::{Tls, TlsError, TrustCell};
use sluice_identity::caller::Caller;
use sluice_wire::role::Role;

use crate::barrier::Barrier;
use crate::context::Vault;
use crate::error::VaultError;
use crate::request::Act;

/// Between two looks at time, revocations and the barrier.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before the next try when there was no certificate.
const PAUSE: Duration = Duration::from_secs(5);

/// No new certificate for now.
#[derive(Debug, thiserror::Error)]
enum ListenerError {
    #[error("the key cannot be made")]
    Key(#[from] RoleKeyFault),
    #[error("the certificate cannot be issued")]
    Issue(#[from] VaultError),
    #[error("the certificate cannot be used")]
    Tls(#[from] TlsError),
    #[error("issuing it panicked")]
    Panicked,
}

/// Keeps a good certificate at the port, for as long as the process lives.
pub(crate) async fn keep(barrier: Arc<Barrier>, tls: Arc<Tls>, trust: TrustCell) {
    loop {
        let vault = barrier.opened().await;
        let ending = vault.ending();
        let renewed = renew(&vault, &tls).await;
        // Who waits for the next one holds no vault open.
        drop(vault);
        match renewed {
            Ok(given) => {
                tracing::info!(
                    component = "tls",
                    serial = given.serial_number,
                    "the port has a new certificate"
                );
                while !ending.is_cancelled() && !is_due(&given, &trust, Timestamp::now()) {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Err(error) => {
                tracing::warn!(
                    component = "tls",
                    error = &error as &dyn std::error::Error,
                    "the port's certificate is not renewed"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_due(given: &RoleCertificate, trust: &TrustCell, now: Timestamp) -> bool {
    now >= given.renew_at || trust.load().is_serial_revoked(&given.serial_number)
}

async fn renew(vault: &Arc<Vault>, tls: &Tls) -> Result<RoleCertificate, ListenerError> {
    let key = RoleKey::generate()?;
    let request = vault.settings.listener_request(key.request()?);
    let issuer = Arc::clone(vault);
    let issuing = tokio::task::spawn_blocking(move || issuer.issue_role(&itself(), Role::Vault, &request));
    let given = issuing.await.map_err(|_| ListenerError::Panicked)??;
    // Clients know the root; what they lack is what stands between.
    let issuers = given.ca_chain.strip_suffix(&given.ca_certificate).unwrap_or(&given.ca_chain);
    tls.replace(&format!("{}{issuers}", given.certificate), key.pkcs8(), &given.ca_certificate)?;
    Ok(given)
}

/// The vault, acting for itself.
fn itself() -> Act {
    Act {
        caller: Some(Caller::role(Role::Vault)),
        api_token: None,
        request_id: String::new(),
        remote: "internal".to_owned(),
        now: Timestamp::now(),
    }
}

impl crate::config::Settings {
    /// What the port's certificate is to carry.
    fn listener_request(&self, csr: String) -> CertificateRequest {
        let role = Role::Vault.as_str();
        let mut dns_names =
            vec!["localhost".to_owned(), role.to_owned(), format!("{role}.{}", self.trust_domain)];
        dns_names.extend(self.names.iter().cloned());
        dns_names.sort_unstable();
        dns_names.dedup();
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        addresses.extend(&self.addresses);
        addresses.sort_unstable();
        addresses.dedup();
        CertificateRequest {
            csr,
            dns_names,
            ip_addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }
}
