//! Who a client is by its certificate.
//!
//! The chain is verified by webpki against the authority; on top the certificate must be readable by the
//! strict rules of sluice-identity and not revoked. A resumed session does not come by here, and a
//! connection lives long: revocation and end are looked at with every request again.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sluice_http::TrustCell;
use sluice_identity::certificate::ClientCertificate;

use super::provider;

/// Verifies clients against one authority.
#[derive(Debug)]
pub(crate) struct Clients {
    chain: Arc<dyn ClientCertVerifier>,
    trust: Revocations,
}

struct Revocations(TrustCell);

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Revocations")
    }
}

impl Clients {
    /// Believes what these roots have signed, directly or by the chain that the client sends. `mandatory`:
    /// clients without a certificate are turned away.
    pub(crate) fn new(
        mandatory: bool,
        roots: &[CertificateDer<'static>],
        trust: TrustCell,
    ) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
        // No hints: clients have one certificate, and names of authorities are not everybody's business.
        let builder = builder.clear_root_hint_subjects();
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        let chain = builder.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { chain, trust: Revocations(trust) })
    }
}

impl ClientCertVerifier for Clients {
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
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, chain, now)?;
        let certificate = ClientCertificate::parse(leaf)
            .map_err(|_| rustls::Error::from(CertificateError::ApplicationVerificationFailure))?;
        if self.trust.0.load().is_serial_revoked(&certificate.serial) {
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
