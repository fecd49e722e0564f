//! How subjects are spoken to: in the clear or under TLS, over HTTP/1.1 or HTTP/2; and the certificates for it, made
//! anew for each run.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::program::Program;
use crate::subject::{fill, path_text};
use crate::url::Trust;

/// Requests in flight on each connection of HTTP/2.
pub(crate) const STREAMS: u32 = 8;

/// `transport` of a scenario.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// HTTP/1.1 in the clear.
    #[default]
    Plain,
    /// HTTP/1.1 under TLS 1.3 or 1.2, whichever the subject prefers.
    Tls,
    /// The same, and each connection shows a certificate.
    Mtls,
    /// HTTP/2 under TLS.
    H2,
}

/// Files of a run's own authority, of a server and of a client.
#[derive(Debug)]
pub(crate) struct Papers {
    dir: PathBuf,
    transport: Transport,
}

impl Transport {
    /// In words, for reports.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Plain => "HTTP/1.1",
            Self::Tls => "HTTP/1.1 under TLS",
            Self::Mtls => "HTTP/1.1 under TLS with a certificate of the client",
            Self::H2 => "HTTP/2 under TLS, eight streams on each",
        }
    }

    /// Streams of a connection; none in HTTP/1.1.
    pub(crate) fn streams(self) -> Option<u32> {
        (self == Self::H2).then_some(STREAMS)
    }
}

impl Papers {
    /// Makes them below `dir`; nothing is needed in the clear.
    pub(crate) fn make(dir: &Path, transport: Transport) -> anyhow::Result<Option<Self>> {
        if transport == Transport::Plain {
            return Ok(None);
        }
        let dir = dir.join("papers");
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Names that differ: some take a certificate whose issuer has its own name for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "bench authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let papers = Self { dir, transport };
        papers.write("ca.pem", &authority.pem())?;
        for (name, subject) in [("server", "127.0.0.1"), ("client", "client")] {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![subject.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, subject);
            if name == "client" {
                // Who it is, to those who ask for more than a signature.
                params.subject_alt_names.push(SanType::URI("spiffe://bench/service/client".try_into()?));
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
            let signed = params.signed_by(&key, &authority)?;
            papers.write(&format!("{name}.pem"), &signed.pem())?;
            papers.write(&format!("{name}.key"), &key.serialize_pem())?;
            papers.write(&format!("{name}.both"), &(signed.pem() + &key.serialize_pem()))?;
        }
        Ok(Some(papers))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// What the generator trusts and shows.
    pub(crate) fn trust(&self) -> Trust {
        let file = |name: &str| self.dir.join(name);
        let own = (self.transport == Transport::Mtls).then(|| (file("client.pem"), file("client.key")));
        Trust { ca: Some(file("ca.pem")), insecure: false, own }
    }

    /// What a server's configuration says where it listens, and on lines of its own.
    pub(crate) fn lines(&self, program: Program) -> anyhow::Result<(String, String)> {
        let (listen, lines) = match (program, self.transport) {
            (Program::Nginx, Transport::H2) => (" ssl http2", NGINX),
            (Program::Nginx, _) => (" ssl", NGINX),
            (Program::Haproxy, Transport::H2) => (" ssl crt {{dir}}/server.both alpn h2,http/1.1", ""),
            (Program::Haproxy, Transport::Mtls) => {
                (" ssl crt {{dir}}/server.both alpn http/1.1 ca-file {{dir}}/ca.pem verify required", "")
            }
            (Program::Haproxy, _) => (" ssl crt {{dir}}/server.both alpn http/1.1", ""),
            (Program::Envoy, _) => ("", ENVOY),
            (Program::Traefik, _) => ("tls: {}", TRAEFIK),
            (Program::Caddy, _) => ("", CADDY),
            (Program::Redis | Program::Nats | Program::Bao, _) => ("", ""),
        };
        let (asked, nginx, caddy, envoy) = match self.transport {
            Transport::Mtls => (
                "true",
                "ssl_client_certificate {{dir}}/ca.pem; ssl_verify_client on;",
                "client_auth {\n mode require_and_verify\n trust_pool file {{dir}}/ca.pem\n}",
                ", validation_context: { trusted_ca: { filename: {{dir}}/ca.pem } }",
            ),
            _ => ("false", "", "", ""),
        };
        let alpn = if self.transport == Transport::H2 { "h2" } else { "http/1.1" };
        let own = |text: &str| fill(text, &[("dir", path_text(&self.dir)?)]);
        let (nginx, caddy, envoy) = (own(nginx)?, own(caddy)?, own(envoy)?);
        let values = [
            ("dir", path_text(&self.dir)?),
            ("asked", asked),
            ("alpn", alpn),
            ("nginx", nginx.as_str()),
            ("caddy", caddy.as_str()),
            ("envoy", envoy.as_str()),
        ];
        Ok((fill(listen, &values)?, fill(lines, &values)?))
    }

    /// `[edge.tls]` of Sluice.
    pub(crate) fn sluice(&self) -> anyhow::Result<String> {
        let asked = if self.transport == Transport::Mtls { "required" } else { "off" };
        fill(SLUICE, &[("dir", path_text(&self.dir)?), ("asked", asked)])
    }
}

const SLUICE: &str = r#"
[edge.tls]
listen = "127.0.0.1:8443"
certificate = { cert = "{{dir}}/server.pem", key = "{{dir}}/server.key" }
client_auth = "{{asked}}"
client_ca = "{{dir}}/ca.pem"
"#;
const NGINX: &str = "ssl_certificate {{dir}}/server.pem; ssl_certificate_key {{dir}}/server.key; {{nginx}}";
const CADDY: &str = "tls {{dir}}/server.pem {{dir}}/server.key {\n{{caddy}}\n}";
const TRAEFIK: &str = "tls:
  stores: { default: { defaultCertificate: { certFile: {{dir}}/server.pem, keyFile: {{dir}}/server.key } } }
";
const ENVOY: &str = r#"
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: {{asked}}
              common_tls_context: { alpn_protocols: ["{{alpn}}"], tls_certificates: [{ certificate_chain: { filename: {{dir}}/server.pem }, private_key: { filename: {{dir}}/server.key } }]{{envoy}} }"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn papers_are_made_where_they_are_needed_and_say_who_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Papers::make(dir.path(), Transport::Plain).unwrap().is_none());
        for transport in [Transport::Tls, Transport::Mtls, Transport::H2] {
            let papers = Papers::make(dir.path(), transport).unwrap().unwrap();
            papers.trust().config(transport == Transport::H2).unwrap();
            for program in [Program::Nginx, Program::Haproxy, Program::Envoy, Program::Caddy] {
                let (listen, lines) = papers.lines(program).unwrap();
                let both = listen + &lines;
                assert!(both.contains("papers/server"), "{both}");
                assert_eq!(both.contains("papers/ca.pem"), transport == Transport::Mtls, "{both}");
            }
            toml::from_str::<toml::Table>(&papers.sluice().unwrap()).unwrap();
        }
    }
}
