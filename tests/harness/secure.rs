//! An authority of the test, a listener's certificate and clients that believe it.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The name of the listener's certificate.
pub(crate) const NAME: &str = "localhost";

/// An authority for the listener and its clients.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test CA");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (root, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), root, pem }
    }

    fn issue(&self, names: &[&str], uri: Option<&str>) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes its own certificate.
    pub(crate) fn write_root(&self, path: &Path) {
        std::fs::write(path, &self.pem).unwrap();
    }

    /// A new certificate and key for the listener, over the old ones.
    pub(crate) fn renew(&self, folder: &Path) {
        let (certificate, key) = self.issue(&[NAME], None);
        for (name, text) in [("edge.key", key.serialize_pem()), ("edge.pem", certificate.pem())] {
            let beside = folder.join(format!("{name}.new"));
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, folder.join(name)).unwrap();
        }
    }

    /// Clients that believe it; `service` shows a certificate of that service. They offer these protocols.
    pub(crate) fn clients(&self, service: Option<&str>, protocol: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots);
        let mut config = match service {
            None => config.with_no_client_auth(),
            Some(service) => {
                let id = format!("spiffe://desk.example/service/{service}");
                let (certificate, key) = self.issue(&[service], Some(&id));
                let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
                config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }
}
