//! The demo's own certificate, by which its ports speak mutual TLS.
//!
//! Asked of the vault at its internal door, with a key that never leaves this process; asked again when the
//! vault said (about two thirds of its life) or as soon as it was revoked, and shown from the next handshake
//! on. While the vault does not answer, the old one stays; before there is any, a handshake waits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sluice_client::{CertificateRequest, Client, ClientError, RoleCertificate, RoleKey, RoleKeyFault};
use sluice_http::{Clients, Start, Tls, TlsError, TrustCell};
use sluice_wire::role::Role;

/// Between two looks at time and revocations: until it has another, the edge refuses what the demo shows.
const LOOK: Duration = Duration::from_millis(25);
/// Between two certificates at least.
const SOONEST: Duration = Duration::from_secs(1);
/// First pause before asking again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause before asking again.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// No new certificate for now.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    /// The system gives no random bytes.
    #[error("the key cannot be made")]
    Key(#[from] RoleKeyFault),
    /// The vault gives none.
    #[error("the vault gives no certificate")]
    Vault(#[from] ClientError),
    /// What it gives cannot be used.
    #[error("the certificate cannot be used")]
    Tls(#[from] TlsError),
}

/// What the ports show, once there is something to show: where every hop is to be mutual TLS and a vault can be
/// asked. `None`: plain HTTP.
pub fn start(start: &Start) -> Option<Arc<Tls>> {
    let vault = start.sockets.get(&Role::Vault).filter(|_| start.config.mtls)?;
    let tls = Arc::new(Tls::new(Clients::Certified, start.trust.clone()));
    let client = Client::internal(vault.clone(), start.keys.own());
    tokio::spawn(keep(client, Arc::clone(&tls), start.trust.clone()));
    Some(tls)
}

/// Keeps the certificate good, for as long as the process lives.
async fn keep(vault: Client, tls: Arc<Tls>, trust: TrustCell) {
    let mut pause = PAUSE_MIN;
    loop {
        match renew(&vault, &tls).await {
            Ok(given) => {
                tracing::info!(
                    component = "tls",
                    serial = given.serial_number,
                    "the demo has a new certificate"
                );
                pause = PAUSE_MIN;
                // Not sooner, whatever is revoked: a loop must not wear the vault out.
                tokio::time::sleep(SOONEST.min(left(given.renew_at))).await;
                while !is_due(&given, trust.load().is_serial_revoked(&given.serial_number), Timestamp::now())
                {
                    tokio::time::sleep(LOOK.min(left(given.renew_at))).await;
                }
            }
            Err(error) => {
                tracing::warn!(
                    component = "tls",
                    error = &error as &dyn std::error::Error,
                    "the demo's certificate is not renewed"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn renew(vault: &Client, tls: &Tls) -> Result<RoleCertificate, IdentityError> {
    let key = RoleKey::generate()?;
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let request = CertificateRequest {
        csr: key.request()?,
        dns_names: vec!["localhost".to_owned()],
        ip_addresses: here.map(|address| address.to_string()).to_vec(),
    };
    let given = vault.role_certificate(&request).await?;
    // Peers know the root; what they lack is what stands between.
    let issuers = given.ca_chain.strip_suffix(&given.ca_certificate).unwrap_or(&given.ca_chain);
    tls.replace(&format!("{}{issuers}", given.certificate), key.pkcs8(), &given.ca_certificate)?;
    Ok(given)
}

fn is_due(given: &RoleCertificate, revoked: bool, now: Timestamp) -> bool {
    revoked || now >= given.renew_at
}

/// Time until then; a moment at least, so that a clock that is behind by a hair does not spin.
fn left(then: Timestamp) -> Duration {
    let left = Duration::try_from(then.duration_since(Timestamp::now())).unwrap_or_default();
    left.max(Duration::from_millis(10))
}
