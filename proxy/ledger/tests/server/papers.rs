//! Certificates for a Redis that is spoken to over TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// A folder with a CA, and what it signed: `ca.pem`, `server.pem` for 127.0.0.1, `client.pem`, and their keys.
pub struct Papers {
    dir: tempfile::TempDir,
}

impl Papers {
    pub fn new() -> Self {
        Self::naming(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }

    /// The certificate of the server carries this name alone.
    pub fn naming(name: SanType) -> Self {
        let papers = Self { dir: tempfile::tempdir().unwrap() };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(papers.path("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let authority = Issuer::new(params, key);
        for (role, name) in [("server", Some(name)), ("client", None)] {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, role);
            params.subject_alt_names.extend(name);
            let key = KeyPair::generate().unwrap();
            let signed = params.signed_by(&key, &authority).unwrap();
            std::fs::write(papers.path(&format!("{role}.pem")), signed.pem()).unwrap();
            std::fs::write(papers.path(&format!("{role}.key")), key.serialize_pem()).unwrap();
        }
        papers
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The keys of `[redis]` beside its address.
    pub fn keys(&self) -> String {
        let text = |name: &str| self.path(name).display().to_string();
        let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(text);
        format!("ca = {ca:?}\nclient_cert = {{ cert = {cert:?}, key = {key:?} }}\n")
    }
}
