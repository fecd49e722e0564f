//! Which client certificates are believed.
//!
//! webpki verifies the chain against the roots; on top the leaf must read by the strict rules of
//! `sluice-identity` and must not be revoked.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sluice_identity::certificate::ClientCertificate;

use crate::trust::TrustCell;

/// Verifies clients: believes what some roots have signed, directly or by the chain that the client sends,
/// and what the vault has not taken back. A resumed session does not come by here and a connection lives
/// long: whoever serves requests looks at revocation and end again with each.
pub struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust: TrustCell,
}

impl ClientVerifier {
    /// With `mandatory`, clients without a certificate are turned away. An error says which root cannot be
    /// used, or that there is none.
    pub fn new(
        provider: Arc<CryptoProvider>,
        mandatory: bool,
        roots: &[CertificateDer<'static>],
        trust: TrustCell,
    ) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
        // No hints: clients have one certificate, and names of authorities are not everybody's business.
        let builder = builder.clear_root_hint_subjects();
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        let chain = builder.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { chain, trust })
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        let read = ClientCertificate::parse(leaf).map_err(|error| {
            tracing::debug!(component = "tls", reason = error.reason(), "a client certificate is refused");
            CertificateError::ApplicationVerificationFailure
        })?;
        if self.trust.load().is_certificate_revoked(&read) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
