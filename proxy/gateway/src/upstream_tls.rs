//! TLS towards instances: whom the edge believes there, and what it shows of itself.
//!
//! Key material is read and checked when a generation is built, never by a request; a file that cannot be
//! used refuses the generation. What comes from the vault (`auto`) is put in when it is there and again
//! whenever it is renewed. The name that the instance's certificate must carry is the SNI, and the
//! configuration has no `https` without one: the connector would skip verification for an empty name.
//!
//! Every set of roots and certificates has a seal, a hash of its bytes, that keeps pools of connections
//! apart: a changed authority or a renewed certificate takes effect with the next connection, and what was
//! not changed by a reload keeps its connections.
//!
//! Cost: the connector builds its settings anew for each connection (it has no place to keep them, so there
//! is no resumption either); requests share few connections and keep them long.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use ring::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::{ClientConfig, RootCertStore};
use sluice_schema::{Authority, ClientCertificate, Config, KeyPairFiles, Scheme, Service};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// LIMIT: certificates of an authority's file.
const ROOTS_MAX: usize = 512;
/// LIMIT: certificates of a chain.
const CHAIN_MAX: usize = 16;

/// Key material that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamTlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file holds no certificate, or too many.
    #[error("{} holds no certificate, or more than {most}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// The most it may hold.
        most: usize,
    },
    /// A certificate cannot be used.
    #[error("a certificate of {} cannot be used", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the certificate's, or of an unknown kind.
    #[error("the key in {} does not fit its certificate", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What the vault has given the edge, in the connector's form.
pub(crate) struct OwnIdentity {
    roots: Roots,
    shown: Shown,
}

/// How one service's `https` instances are called.
pub(crate) struct UpstreamTls {
    sni: String,
    verify: bool,
    /// `None`: the vault's.
    roots: Option<Roots>,
    offer: Offer,
}

/// What is shown to instances.
enum Offer {
    Nothing,
    /// The edge's own, once there is one.
    Own,
    Files(Shown),
}

/// Whom to believe, with a seal of it.
#[derive(Clone)]
struct Roots {
    certificates: Arc<[WrappedX509]>,
    seal: u64,
}

/// A certificate with its key, and a seal of it.
#[derive(Clone)]
struct Shown {
    pair: Arc<CertKey>,
    seal: u64,
}

impl UpstreamTls {
    /// Reads what a service needs; `None` where none of its instances speaks TLS.
    pub(crate) fn load(service: &Service) -> Result<Option<Self>, UpstreamTlsError> {
        if !service.instances.iter().any(|instance| instance.url.scheme == Scheme::Https) {
            return Ok(None);
        }
        let tls = &service.tls;
        let roots = match &tls.ca {
            Authority::Auto => None,
            Authority::File(path) => Some(Roots::read(path)?),
        };
        let offer = match &tls.client_cert {
            ClientCertificate::Off => Offer::Nothing,
            ClientCertificate::Auto => Offer::Own,
            ClientCertificate::Files(files) => Offer::Files(Shown::read(files)?),
        };
        Ok(Some(Self { sni: tls.sni.clone(), verify: tls.verify, roots, offer }))
    }

    /// Whether the vault's identity changes anything here.
    pub(crate) fn follows_vault(&self) -> bool {
        self.roots.is_none() || matches!(self.offer, Offer::Own)
    }

    /// Whether instances are believed by the vault's authority.
    pub(crate) fn believes_vault(&self) -> bool {
        self.verify && self.roots.is_none()
    }

    /// Makes a peer one that is called like this; false where the authority is the vault's and not there.
    pub(crate) fn dress(&self, peer: &mut HttpPeer, own: Option<&OwnIdentity>) -> bool {
        let roots = self.roots.as_ref().or(own.map(|own| &own.roots));
        let roots = match roots {
            Some(roots) => roots,
            None if self.verify => return false,
            None => &*NOBODY,
        };
        let shown = match &self.offer {
            Offer::Nothing => None,
            Offer::Own => own.map(|own| &own.shown),
            Offer::Files(shown) => Some(shown),
        };
        peer.sni.clone_from(&self.sni);
        peer.client_cert_key = shown.map(|shown| Arc::clone(&shown.pair));
        peer.options.ca = Some(Arc::clone(&roots.certificates));
        peer.options.verify_cert = self.verify;
        peer.options.verify_hostname = self.verify;
        peer.group_key = roots.seal.rotate_left(1) ^ shown.map_or(0, |shown| shown.seal);
        true
    }
}

impl OwnIdentity {
    /// Takes the edge's certificate with its issuers, its key and the authority's roots; `None` where they
    /// cannot be used, which the vault does not give.
    pub(crate) fn new(
        chain: &[CertificateDer<'_>],
        key: &PrivateKeyDer<'_>,
        roots: &[CertificateDer<'_>],
    ) -> Option<Self> {
        let (roots, shown) = (Roots::new(roots)?, Shown::new(chain, key).ok()?);
        Some(Self { roots, shown })
    }
}

/// What stands in for roots where nobody is verified: the connector wants some. Its key was thrown away.
const NOBODY_PEM: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUNagkjQTwDjbZZU/UlZM75K0uNz0wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyMTEyNDQyN1oYDzIxMjYxMDI4MTI0
NDI3WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASH5lzwQ3JGsBLa2CcUHVZeqRMrJSoCdT37iXNi89uZDT0vGiQHFFcm00IxnVcu
Radwvpz3VojPm9lDKngTomy+o1MwUTAdBgNVHQ4EFgQUJH8SlHDkPI+PsvbIEWJq
VZfZpI0wHwYDVR0jBBgwFoAUJH8SlHDkPI+PsvbIEWJqVZfZpI0wDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAxm+uovQPYTwTQKmRObNdD2jt1s42
VLPsWMNmePUiRCUCIAZYhXwqSVQOPYX3Djp+WMFitpXhtuY8Z2iR3lczRvTe
-----END CERTIFICATE-----
";

static NOBODY: LazyLock<Roots> = LazyLock::new(|| {
    let certificate = CertificateDer::from_pem_slice(NOBODY_PEM).expect("it is PEM");
    Roots::new(&[certificate]).expect("a test reads it")
});

impl Roots {
    fn read(path: &Path) -> Result<Self, UpstreamTlsError> {
        let roots = read_certificates(path, ROOTS_MAX)?;
        Self::new(&roots).ok_or_else(|| UpstreamTlsError::Certificate { path: path.to_owned() })
    }

    fn new(roots: &[CertificateDer<'_>]) -> Option<Self> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone().into_owned()).ok()?;
        }
        Some(Self { seal: seal(roots), certificates: wrap(roots)?.into() })
    }
}

impl Shown {
    fn read(files: &KeyPairFiles) -> Result<Self, UpstreamTlsError> {
        let chain = read_certificates(&files.cert, CHAIN_MAX)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|source| UpstreamTlsError::Read { path: files.key.clone(), source })?;
        if wrap(&chain).is_none() {
            return Err(UpstreamTlsError::Certificate { path: files.cert.clone() });
        }
        Self::new(&chain, &key).map_err(|source| UpstreamTlsError::Key { path: files.key.clone(), source })
    }

    /// A trial of what the connector does for each connection, so that it cannot fail there.
    fn new(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> Result<Self, rustls::Error> {
        let owned = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_client_auth_cert(owned, key.clone_key())?;
        if wrap(chain).is_none() {
            return Err(rustls::Error::General("a certificate cannot be read".to_owned()));
        }
        let certificates = chain.iter().map(|certificate| certificate.to_vec()).collect();
        let pair = CertKey::new(certificates, key.secret_der().to_vec());
        Ok(Self { pair: Arc::new(pair), seal: seal(chain) })
    }
}

fn read_certificates(path: &Path, most: usize) -> Result<Vec<CertificateDer<'static>>, UpstreamTlsError> {
    let read = |source| UpstreamTlsError::Read { path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(read)?;
    let found: Vec<_> = found.take(most + 1).collect::<Result<_, _>>().map_err(read)?;
    if (1..=most).contains(&found.len()) {
        Ok(found)
    } else {
        Err(UpstreamTlsError::Count { path: path.to_owned(), most })
    }
}

/// The connector's form; `None` where one is no certificate, on which its own parser would panic.
fn wrap(certificates: &[CertificateDer<'_>]) -> Option<Vec<WrappedX509>> {
    let wrapped = |certificate: &CertificateDer<'_>| {
        X509Certificate::from_der(certificate).ok()?;
        Some(WrappedX509::new(certificate.to_vec(), parse_x509))
    };
    certificates.iter().map(wrapped).collect()
}

/// 64 bits of the hash of these certificates.
fn seal(certificates: &[CertificateDer<'_>]) -> u64 {
    let mut hash = digest::Context::new(&digest::SHA256);
    for certificate in certificates {
        hash.update(&(certificate.len() as u64).to_le_bytes());
        hash.update(certificate);
    }
    let hash = hash.finish();
    hash.as_ref().iter().take(8).fold(0, |seal, byte| seal << 8 | u64::from(*byte))
}

/// Files that a configuration's services name, to see when one is replaced.
pub(crate) fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let secure =
        |service: &&Service| service.instances.iter().any(|instance| instance.url.scheme == Scheme::Https);
    for service in config.enabled_services().filter(secure) {
        if let Authority::File(path) = &service.tls.ca {
            files.push(path.clone());
        }
        if let ClientCertificate::Files(pair) = &service.tls.client_cert {
            files.extend([pair.cert.clone(), pair.key.clone()]);
        }
    }
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use sluice_schema::Instance;

    #[test]
    fn what_stands_in_for_roots_can_be_read() {
        assert_eq!(NOBODY.certificates.len(), 1);
    }

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        /// A certificate and its key, each in a file.
        fn pair(&self, name: &str) -> KeyPairFiles {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
            KeyPairFiles {
                cert: self.write(&format!("{name}.crt"), &certificate.pem()),
                key: self.write(&format!("{name}.key"), &key.serialize_pem()),
            }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    fn service(tls: sluice_schema::UpstreamTls) -> Service {
        let mut service = Config::default().service("a", "/a");
        let url = "https://127.0.0.1:1".parse().unwrap();
        service.instances.push(Instance { url, weight: 1, zone: String::new() });
        service.tls = tls;
        service
    }

    fn tls(ca: Authority, client_cert: ClientCertificate) -> sluice_schema::UpstreamTls {
        sluice_schema::UpstreamTls { sni: "a".to_owned(), ca, client_cert, verify: true }
    }

    fn peer() -> HttpPeer {
        HttpPeer::new(("127.0.0.1", 1), true, String::new())
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let files = Files::new();
        let (good, other) = (files.pair("good"), files.pair("other"));
        let text = files.write("text", "not PEM");
        let load = |tls| UpstreamTls::load(&service(tls)).map(|_| ()).map_err(|error| error.to_string());
        let crossed = KeyPairFiles { cert: good.cert.clone(), key: other.key };
        for (tls, part) in [
            (tls(Authority::File(files.dir.path().join("none")), ClientCertificate::Off), "cannot read"),
            (tls(Authority::File(text), ClientCertificate::Off), "holds no certificate"),
            (tls(Authority::File(good.key.clone()), ClientCertificate::Off), "holds no certificate"),
            (tls(Authority::Auto, ClientCertificate::Files(crossed)), "does not fit"),
        ] {
            let fault = load(tls).unwrap_err();
            assert!(fault.contains(part), "{fault}");
        }
        assert_eq!(load(tls(Authority::File(good.cert.clone()), ClientCertificate::Files(good))), Ok(()));
    }

    #[test]
    fn pools_are_apart_by_roots_and_certificate() {
        let files = Files::new();
        let (one, two) = (files.pair("one"), files.pair("two"));
        let key_of = |ca: &KeyPairFiles, shown: Option<&KeyPairFiles>| {
            let shown = shown.map_or(ClientCertificate::Off, |pair| ClientCertificate::Files(pair.clone()));
            let tls = UpstreamTls::load(&service(tls(Authority::File(ca.cert.clone()), shown))).unwrap();
            let mut peer = peer();
            assert!(tls.unwrap().dress(&mut peer, None));
            peer.group_key
        };
        assert_eq!(key_of(&one, None), key_of(&one, None), "a reload without a change keeps connections");
        let keys =
            [key_of(&one, None), key_of(&two, None), key_of(&one, Some(&one)), key_of(&one, Some(&two))];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key));
        }
    }

    #[test]
    fn without_the_vault_nobody_is_believed_by_default() {
        let mut unverified = tls(Authority::Auto, ClientCertificate::Auto);
        let strict = UpstreamTls::load(&service(unverified.clone())).unwrap().unwrap();
        assert!(!strict.dress(&mut peer(), None));
        unverified.verify = false;
        let mut open = peer();
        assert!(UpstreamTls::load(&service(unverified)).unwrap().unwrap().dress(&mut open, None));
        assert!(!open.options.verify_cert && open.sni == "a");
        let mut plain = service(sluice_schema::UpstreamTls::default());
        plain.instances[0].url = "http://127.0.0.1:1".parse().unwrap();
        assert!(UpstreamTls::load(&plain).unwrap().is_none());
    }
}
