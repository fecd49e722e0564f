//! The certificates of the TLS listener, by the names in them.
//!
//! A client's SNI picks the certificate with exactly that name, else the one with the wildcard for its
//! parent, else the first. Serving the first to a stranger lets the edge answer 421 instead of breaking
//! the handshake. The set is swapped whole; connections keep what they were given.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::HashMap;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sluice_schema::KeyPairFiles;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// LIMIT: certificates of a chain file.
const CHAIN_MAX: usize = 16;

/// Certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
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
    #[error("{} holds {count} certificates", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The key does not fit or is of an unknown kind.
    #[error("the key does not fit the certificate")]
    Key(#[source] rustls::Error),
    /// The certificate is not X.509, names nothing or is not valid now.
    #[error("the certificate {0}")]
    Certificate(&'static str),
    /// One of the above, of a certificate that comes from a file.
    #[error("{} is not taken", path.display())]
    File {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong with it, or with its key.
        #[source]
        source: Box<CertificateFault>,
    },
}

impl CertificateFault {
    /// The same, of the certificate in a file.
    fn of(self, path: &Path) -> Self {
        Self::File { path: path.to_owned(), source: Box::new(self) }
    }
}

/// A certificate that can be served.
#[derive(Debug)]
pub(crate) struct Served {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    /// From when on it is valid, unix seconds.
    not_before_s: i64,
    /// When it ends, unix seconds.
    not_after_s: i64,
    /// The file it was read from.
    file: Option<PathBuf>,
}

impl Served {
    /// A certificate with its chain and its key.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, CertificateFault> {
        let leaf = chain.first().ok_or(CertificateFault::Certificate("is missing"))?;
        let (names, not_before_s, not_after_s) = names(leaf)?;
        let key = any_supported_type(key).map_err(CertificateFault::Key)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(CertificateFault::Key)?;
        Ok(Self { key: Arc::new(key), names, not_before_s, not_after_s, file: None })
    }

    /// The same from files.
    pub(crate) fn from_files(files: &KeyPairFiles) -> Result<Self, CertificateFault> {
        let read = |source| CertificateFault::Read { path: files.key.clone(), source };
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(read)?;
        let served = Self::new(read_chain(&files.cert)?, &key).map_err(|fault| fault.of(&files.cert))?;
        Ok(Self { file: Some(files.cert.clone()), ..served })
    }
}

/// The certificates of a PEM file.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    let read = |source| CertificateFault::Read { path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(path).map_err(read)?;
    let chain: Vec<_> = chain.take(CHAIN_MAX + 1).collect::<Result<_, _>>().map_err(read)?;
    match chain.len() {
        1..=CHAIN_MAX => Ok(chain),
        count => Err(CertificateFault::Count { path: path.to_owned(), count }),
    }
}

/// The names a certificate is for, lower case, addresses in text, and from when until when it is valid.
fn names(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, i64, i64), CertificateFault> {
    let fault = CertificateFault::Certificate("cannot be read");
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Err(fault) };
    let Ok(alternatives) = leaf.subject_alternative_name() else { return Err(fault) };
    let listed = alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    };
    let names: Vec<String> = listed.iter().filter_map(name).collect();
    if names.is_empty() {
        return Err(CertificateFault::Certificate("names no host"));
    }
    let validity = leaf.validity();
    Ok((names, validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// A host name in the form that names are kept in: lower case, without the root's dot.
pub(super) fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// The certificates in use.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    held: ArcSwap<Held>,
}

#[derive(Debug, Default)]
struct Held {
    first: Option<Arc<CertifiedKey>>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    not_after_s: Option<i64>,
}

impl Held {
    fn new(served: &[Served]) -> Self {
        let mut held = Self {
            first: served.first().map(|served| Arc::clone(&served.key)),
            not_after_s: served.iter().map(|served| served.not_after_s).min(),
            ..Self::default()
        };
        for served in served {
            for name in &served.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut held.wildcard, parent),
                    None => (&mut held.exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_insert_with(|| Arc::clone(&served.key));
            }
        }
        held
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let parent = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(parent)
    }
}

impl Certificates {
    /// Serves these from now on; of two with one name the earlier. While what is served is good, one that is
    /// not valid now does not take its place.
    pub(crate) fn replace(&self, served: &[Served], now_s: i64) -> Result<(), CertificateFault> {
        let is_good = self.not_after_s().is_some_and(|end_s| end_s >= now_s);
        let is_valid = |served: &Served| (served.not_before_s..=served.not_after_s).contains(&now_s);
        if let (true, Some(bad)) = (is_good, served.iter().find(|served| !is_valid(served))) {
            let fault = CertificateFault::Certificate("has ended or is not valid yet");
            return Err(match &bad.file {
                Some(file) => fault.of(file),
                None => fault,
            });
        }
        self.held.store(Arc::new(Held::new(served)));
        Ok(())
    }

    /// When the first of them ends, unix seconds.
    pub(crate) fn not_after_s(&self) -> Option<i64> {
        self.held.load().not_after_s
    }

    /// Whether a client that connected to `sni` may ask for `host` there: one certificate is for both.
    pub(crate) fn cover_both(&self, sni: &str, host: &str) -> bool {
        let held = self.held.load();
        match (held.find(sni), held.find(host)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let held = self.held.load();
        let named = hello.server_name().and_then(|name| held.find(&plain_name(name)));
        named.or(held.first.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(name: &str, from: i32, until: i32) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        (params.self_signed(&key).unwrap(), key)
    }

    fn served(name: &str, from: i32, until: i32) -> Served {
        let (leaf, key) = made(name, from, until);
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Served::new(vec![leaf.der().clone()], &key).unwrap()
    }

    /// A fault with all that is behind it.
    fn told(fault: &CertificateFault) -> String {
        let mut text = fault.to_string();
        let mut source = std::error::Error::source(fault);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    #[test]
    fn what_is_wrong_with_a_file_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyPairFiles { cert: dir.path().join("a.pem"), key: dir.path().join("a.key") };
        let (leaf, key) = made("a.example", 2020, 2025);
        std::fs::write(&files.cert, leaf.pem()).unwrap();
        std::fs::write(&files.key, made("a.example", 2020, 2025).1.serialize_pem()).unwrap();
        let fault = told(&Served::from_files(&files).unwrap_err());
        let says = format!("{} is not taken: the key does not fit the certificate", files.cert.display());
        assert!(fault.starts_with(&says), "{fault}");
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let held = Certificates::default();
        let now_s = date_time_ymd(2030, 1, 1).unix_timestamp();
        held.replace(&[served("good.example", 2029, 2031)], now_s).unwrap();
        let fault = told(&held.replace(&[Served::from_files(&files).unwrap()], now_s).unwrap_err());
        assert_eq!(
            fault,
            format!("{} is not taken: the certificate has ended or is not valid yet", files.cert.display())
        );
        std::fs::write(&files.key, "-----BEGIN PRIVATE KEY-----").unwrap();
        let fault = told(&Served::from_files(&files).unwrap_err());
        assert!(fault.starts_with(&format!("cannot read {}: ", files.key.display())), "{fault}");
    }

    #[test]
    fn one_that_has_ended_takes_the_place_of_none_that_is_good() {
        let now_s = date_time_ymd(2030, 1, 1).unix_timestamp();
        let held = Certificates::default();
        held.replace(&[served("old.example", 2020, 2025)], now_s).unwrap();
        held.replace(&[served("good.example", 2029, 2031)], now_s).unwrap();
        for bad in [served("a.example", 2020, 2025), served("a.example", 2031, 2032)] {
            assert!(held.replace(&[served("b.example", 2029, 2031), bad], now_s).is_err());
            assert!(held.cover_both("good.example", "good.example"));
        }
        held.replace(&[served("a.example", 2020, 2025)], date_time_ymd(2032, 1, 1).unix_timestamp()).unwrap();
        assert!(held.cover_both("a.example", "a.example"), "nothing is lost where what is served has ended");
    }
}
