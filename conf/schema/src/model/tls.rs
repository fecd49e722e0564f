//! TLS on both sides of the edge: its own listener, and its connections to instances.

use std::net::SocketAddr;
use std::path::PathBuf;

/// `[edge.tls]`: the TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeTls {
    /// Address of the TLS listener.
    pub listen: SocketAddr,
    /// What it shows to clients.
    pub certificate: Certificate,
    /// DNS names and IP addresses of the automatic certificate beside those of this machine.
    pub names: Vec<String>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// Who signs the certificates of clients.
    pub client_ca: Authority,
}

/// What a TLS listener shows to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Certificate {
    /// From the vault worker, renewed by itself.
    #[default]
    Auto,
    /// From files, at least one pair; the names in the certificates say which one a client gets.
    Files(Vec<KeyPairFiles>),
}

/// A certificate chain and its private key, both PEM. Relative paths of the file count from the main file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPairFiles {
    /// File of the chain, the leaf first.
    pub cert: PathBuf,
    /// File of the private key.
    pub key: PathBuf,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    #[default]
    Off,
    /// One that is shown must be valid.
    Optional,
    /// Without a valid one there is no connection.
    Required,
}

/// Who signs the certificates of the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// The CA of the vault worker.
    #[default]
    Auto,
    /// The certificates in this PEM file.
    File(PathBuf),
}

/// `tls` of a service: how its `https` instances are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Name the instance's certificate must carry, lower case; empty where no instance is `https`.
    pub sni: String,
    /// Who signs the instances' certificates.
    pub ca: Authority,
    /// What the edge shows to the instances.
    pub client_cert: ClientCertificate,
    /// False takes any certificate.
    pub verify: bool,
}

/// The certificate the edge shows to instances that ask for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// The edge's own, from the vault worker: the default unless `ENABLE_MTLS` is false.
    #[default]
    Auto,
    /// None.
    Off,
    /// From files.
    Files(KeyPairFiles),
}

impl EdgeTls {
    /// A listener with the defaults of `[edge.tls]` at this address.
    pub fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            certificate: Certificate::default(),
            names: Vec::new(),
            client_auth: ClientAuth::default(),
            client_ca: Authority::default(),
        }
    }
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self {
            sni: String::new(),
            ca: Authority::default(),
            client_cert: ClientCertificate::default(),
            verify: true,
        }
    }
}
