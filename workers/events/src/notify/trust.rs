//! Whom targets are believed by: the certificate authorities of this machine.

use std::sync::Arc;

use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// What TLS to the world outside needs.
#[derive(Clone)]
pub(super) struct Trust {
    roots: Arc<Vec<CertificateDer<'static>>>,
    connector: TlsConnector,
}

impl Trust {
    /// The authorities that the machine trusts. Reads files.
    pub(super) fn of_machine() -> Self {
        let trust = Self::of(rustls_native_certs::load_native_certs().certs);
        if trust.roots.is_empty() {
            tracing::warn!(
                component = "notify",
                "this machine trusts no certificate authority: targets are reached without TLS only"
            );
        }
        trust
    }

    /// These authorities alone.
    pub(super) fn of(roots: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        // A machine with an odd certificate among its roots trusts the others.
        let roots: Vec<_> = roots.into_iter().filter(|root| store.add(root.clone()).is_ok()).collect();
        let config = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
        Self { roots: Arc::new(roots), connector: TlsConnector::from(Arc::new(config)) }
    }

    /// For connections of one's own.
    pub(super) fn connector(&self) -> &TlsConnector {
        &self.connector
    }

    /// For a mail server of this name.
    pub(super) fn mail(&self, host: &str) -> Option<TlsParameters> {
        let mut builder = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
        for root in self.roots.iter() {
            builder = builder.add_root_certificate(Certificate::from_der(root.to_vec()).ok()?);
        }
        builder.build_rustls().ok()
    }
}
