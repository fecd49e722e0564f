//! The Redis that several edges and event workers share.

use std::path::PathBuf;
use std::{fmt, io};

use super::tls::KeyPairFiles;

/// Address of a Redis, which may hold a password: neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    tls: RedisTls,
}

/// What counts where the address of a Redis is `rediss`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Who signs the certificates of its servers; `None`: whom this system believes.
    pub ca: Option<PathBuf>,
    /// What its servers are shown when they ask for a certificate.
    pub client_cert: Option<KeyPairFiles>,
}

/// The files of a [`RedisTls`], PEM.
#[derive(Default)]
pub struct RedisPem {
    /// Who signs the certificates of the servers.
    pub ca: Option<Vec<u8>>,
    /// Chain and private key of what they are shown.
    pub client_cert: Option<(Vec<u8>, Vec<u8>)>,
}

impl RedisUrl {
    /// The whole address, for the one place that connects.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// One server, not a cluster or what sentinels name: what edges share over it needs one.
    pub fn is_single(&self) -> bool {
        self.text.split_once("://").is_none_or(|(scheme, _)| !scheme.contains('+'))
    }

    /// Whether it is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.text.starts_with("rediss")
    }

    /// How, where it is.
    pub const fn tls(&self) -> &RedisTls {
        &self.tls
    }

    pub(crate) fn new(text: String) -> Self {
        Self { text, tls: RedisTls::default() }
    }

    /// The same address with these files; they count where it is `rediss` alone.
    pub(crate) fn with(&self, tls: &RedisTls) -> Self {
        let tls = if self.is_secure() { tls.clone() } else { RedisTls::default() };
        Self { text: self.text.clone(), tls }
    }
}

impl RedisTls {
    /// Reads the files. Who connects does so each time: what was put in their place since counts.
    ///
    /// # Errors
    /// The first file that cannot be read, by its path.
    pub fn read(&self) -> io::Result<RedisPem> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        let pair = |pair: &KeyPairFiles| Ok::<_, io::Error>((read(&pair.cert)?, read(&pair.key)?));
        Ok(RedisPem {
            ca: self.ca.as_ref().map(read).transpose()?,
            client_cert: self.client_cert.as_ref().map(pair).transpose()?,
        })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text.split_once("://"), self.text.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => write!(f, "{scheme}://***@{place}"),
            _ => f.write_str(&self.text),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}
