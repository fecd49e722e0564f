//! The proxies that Sluice is measured beside: one worker or thread each, bare and with equal policies.
//!
//! Whoever knows one of them well should find nothing in `peers/` that slows it down: connections to the origin
//! are kept, logs are collected where the program can, what nobody asked for is off.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::fault::told;
use crate::process::Launch;
use crate::program::{Identity, Program};
use crate::subject::{
    Running, Site, StartError, Starting, Subject, fill, free_address, path_text, wait_answering,
};
use crate::tokens::Pair;
use crate::transport::Transport;

/// A port found free can be taken before the peer binds it.
const START_TRIES: usize = 3;
const BARE: &str = "forwards only";

/// Which credential a peer verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Jwt {
    None,
    Hs256,
    Es256,
}

/// A file of a configuration: its name and its template.
type Template = (&'static str, &'static str);

/// One peer with one configuration.
#[derive(Debug)]
pub(crate) struct Peer {
    name: &'static str,
    program: Program,
    /// The first is the one the program is started with.
    files: &'static [Template],
    policies: &'static str,
    jwt: Jwt,
    request_id: bool,
}

/// Every peer there is.
pub(crate) fn all() -> Vec<Peer> {
    let mut peers = bare();
    peers.extend(with_policies());
    peers
}

fn bare() -> Vec<Peer> {
    let peer = |name, program, files| Peer {
        name,
        program,
        files,
        policies: BARE,
        jwt: Jwt::None,
        request_id: false,
    };
    vec![
        peer("nginx-bare", Program::Nginx, &[("peer.conf", include_str!("../peers/nginx-bare.conf"))]),
        peer("haproxy-bare", Program::Haproxy, &[("peer.conf", include_str!("../peers/haproxy-bare.conf"))]),
        peer("envoy-bare", Program::Envoy, &[("peer.yaml", include_str!("../peers/envoy-bare.yaml"))]),
        peer(
            "traefik-bare",
            Program::Traefik,
            &[
                ("peer.yaml", include_str!("../peers/traefik-bare.yaml")),
                ("routes.yaml", include_str!("../peers/traefik-bare.routes.yaml")),
            ],
        ),
        peer("caddy-bare", Program::Caddy, &[("peer.conf", include_str!("../peers/caddy-bare.conf"))]),
    ]
}

fn with_policies() -> Vec<Peer> {
    const HAPROXY: &[Template] = &[("peer.conf", include_str!("../peers/haproxy-policy.conf"))];
    vec![
        Peer {
            name: "nginx-policy",
            program: Program::Nginx,
            files: &[("peer.conf", include_str!("../peers/nginx-policy.conf"))],
            policies: "rate limit, request id, access log (no JWT: not in the free version; no breaker)",
            jwt: Jwt::None,
            request_id: true,
        },
        Peer {
            name: "haproxy-policy-hs256",
            program: Program::Haproxy,
            files: HAPROXY,
            policies: "JWT HS256 (verified every time), scope, rate limit, request id, access log, error limit",
            jwt: Jwt::Hs256,
            request_id: true,
        },
        Peer {
            name: "haproxy-policy-es256",
            program: Program::Haproxy,
            files: HAPROXY,
            policies: "JWT ES256 (verified every time), scope, rate limit, request id, access log, error limit",
            jwt: Jwt::Es256,
            request_id: true,
        },
        Peer {
            name: "envoy-policy-es256",
            program: Program::Envoy,
            files: &[("peer.yaml", include_str!("../peers/envoy-policy.yaml"))],
            policies: "JWT ES256 (verified-token cache), scope, rate limit, request id, access log, outlier ejection",
            jwt: Jwt::Es256,
            request_id: true,
        },
        Peer {
            name: "traefik-policy",
            program: Program::Traefik,
            files: &[
                ("peer.yaml", include_str!("../peers/traefik-policy.yaml")),
                ("routes.yaml", include_str!("../peers/traefik-policy.routes.yaml")),
            ],
            policies: "rate limit, access log, circuit breaker (no JWT: not in the free version; no request id)",
            jwt: Jwt::None,
            request_id: false,
        },
        Peer {
            name: "caddy-policy",
            program: Program::Caddy,
            files: &[("peer.conf", include_str!("../peers/caddy-policy.conf"))],
            policies: "request id, access log, ejection (rate limit and JWT are plugins)",
            jwt: Jwt::None,
            request_id: true,
        },
    ]
}

impl Subject for Peer {
    fn name(&self) -> &str {
        self.name
    }

    fn program(&self) -> &str {
        self.program.name()
    }

    fn policies(&self) -> &str {
        self.policies
    }

    fn sets_request_id(&self) -> bool {
        self.request_id
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move {
            let (program, source) = site.programs.find(self.program).await.map_err(StartError::Missing)?;
            let identity = Identity::of(self.program, &program, source)?;
            let mut last = None;
            for _ in 0..START_TRIES {
                match self.start_once(&program, &identity, site).await {
                    Ok(running) => return Ok(running),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| anyhow::anyhow!("never started")).into())
        })
    }
}

impl Peer {
    async fn start_once(
        &self,
        program: &Path,
        identity: &Identity,
        site: &Site<'_>,
    ) -> anyhow::Result<Running> {
        let address = free_address()?;
        let config = self.write_config(site, address)?;
        let launch = Launch {
            program,
            arguments: self.arguments(path_text(&site.dir)?, path_text(&config)?),
            core: site.cores.map(|cores| cores.proxy),
            dir: &site.dir,
            environment: self.environment(&site.dir),
        };
        let mut child = launch.start()?;
        let place = site.place(address)?;
        wait_answering(&mut child, &place).await?;
        let pair = match self.jwt {
            Jwt::None => None,
            Jwt::Hs256 => Some(&site.tokens.hs256),
            Jwt::Es256 => Some(&site.tokens.es256),
        };
        let bearer = |token: fn(&Pair) -> &String| pair.map(|pair| format!("Bearer {}", token(pair)));
        let (authorization, powerless) = (bearer(|pair| &pair.able), bearer(|pair| &pair.powerless));
        let pid = child.pid();
        let reload = if self.program == Program::Nginx { told(pid) } else { None };
        let running = Running::new(identity.clone(), address, pid, child);
        let others = pair.map_or(&[][..], |pair| &pair.others).iter();
        let others = others.map(|token| format!("Bearer {token}")).collect();
        Ok(Running { authorization, others, powerless, reload, trust: site.trust(), ..running })
    }

    fn arguments(&self, dir: &str, config: &str) -> Vec<OsString> {
        let words: &[&str] = match self.program {
            Program::Nginx => &["-p", dir, "-e", "error.log", "-c", config],
            Program::Haproxy => &["-db", "-f", config],
            // Its own number for shared memory: another Envoy may run here.
            Program::Envoy => &[
                "--config-path",
                config,
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "--log-level",
                "error",
            ],
            Program::Traefik => &["--configFile", config],
            Program::Caddy => &["run", "--adapter", "caddyfile", "--config", config],
            // Stores and vaults are no proxies: [`crate::stores`] and [`crate::vault`] start them.
            Program::Redis | Program::Nats | Program::Bao => &[],
        };
        words.iter().map(OsString::from).collect()
    }

    fn environment(&self, dir: &Path) -> Vec<(OsString, OsString)> {
        match self.program {
            Program::Nginx
            | Program::Haproxy
            | Program::Envoy
            | Program::Redis
            | Program::Nats
            | Program::Bao => Vec::new(),
            // One thread runs their routines, as one thread serves in the others; files stay below `dir`.
            Program::Traefik | Program::Caddy => {
                let home = ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"].map(|name| (name.into(), dir.into()));
                home.into_iter().chain([("GOMAXPROCS".into(), "1".into())]).collect()
            }
        }
    }

    /// What names a second origin, and what makes the peer try it when the first fails a GET.
    fn spare_lines(&self, spare: std::net::SocketAddr) -> (String, String) {
        match self.program {
            // By default it tries the next server after an error, and leaves one that failed alone for ten seconds.
            Program::Nginx => (format!("server {spare};"), String::new()),
            Program::Haproxy => (
                format!("server spare {spare} check inter 500ms fall 1 rise 1"),
                "option redispatch 1\n    retries 3\n    retry-on conn-failure empty-response".into(),
            ),
            Program::Envoy => (
                format!(
                    "\n              - endpoint:\n                  address: {{ socket_address: {{ address: {}, port_value: {} }} }}",
                    spare.ip(),
                    spare.port()
                ),
                ", retry_policy: { retry_on: \"connect-failure,reset,refused-stream\", num_retries: 3 }"
                    .into(),
            ),
            _ => (String::new(), String::new()),
        }
    }

    /// Writes every file; the path of the first.
    fn write_config(&self, site: &Site<'_>, address: std::net::SocketAddr) -> anyhow::Result<PathBuf> {
        let public = site.dir.join("es256.pem");
        write(&public, &site.tokens.es256_public_pem)?;
        write(&site.dir.join("jwks.json"), &site.tokens.es256_jwks)?;
        let (algorithm, key) = match self.jwt {
            Jwt::Es256 => ("ES256", path_text(&public)?),
            _ => ("HS256", site.tokens.hs256_secret.as_str()),
        };
        // nginx started by root hands its workers to `nobody`, a user that some machines lack a group for.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let (tls_listen, tls) = match site.papers {
            Some(papers) => papers.lines(self.program)?,
            None => (String::new(), String::new()),
        };
        let streams = site.transport == Transport::H2;
        let (spare, retries) = site.spare.map_or_else(Default::default, |spare| self.spare_lines(spare));
        let tls_router = if tls_listen.is_empty() { String::new() } else { format!(", {tls_listen}") };
        let values = [
            ("spare", spare.as_str()),
            ("retries", retries.as_str()),
            ("tls_listen", tls_listen.as_str()),
            ("tls_router", tls_router.as_str()),
            ("tls", tls.as_str()),
            ("scheme", if site.papers.is_some() { "https" } else { "http" }),
            ("protocols", if streams { "h1 h2" } else { "h1" }),
            ("codec", if streams { "AUTO" } else { "HTTP1" }),
            ("dir", path_text(&site.dir)?),
            ("listen", &address.to_string()),
            ("ip", &address.ip().to_string()),
            ("port", &address.port().to_string()),
            ("origin", &site.origin.to_string()),
            ("origin_ip", &site.origin.ip().to_string()),
            ("origin_port", &site.origin.port().to_string()),
            ("algorithm", algorithm),
            ("key", key),
            ("user", user),
        ];
        for (name, template) in self.files {
            write(&site.dir.join(name), &fill(template, &values)?)?;
        }
        let (first, _) = self.files.first().context("a peer without a configuration")?;
        Ok(site.dir.join(first))
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Programs;

    fn with_site<T>(dir: &Path, then: impl FnOnce(&Site<'_>) -> T) -> T {
        let tokens = crate::tokens::Tokens::make(0).unwrap();
        let origin = "127.0.0.1:65009".parse().unwrap();
        let programs = Programs::new(&dir.join("cache"), false).unwrap();
        then(&Site {
            origin,
            spare: None,
            body_bytes: 16,
            dir: dir.into(),
            cores: None,
            tokens: &tokens,
            programs: &programs,
            transport: Transport::Plain,
            papers: None,
        })
    }

    #[test]
    fn every_template_is_filled_and_names_are_unique() {
        let peers = all();
        for peer in &peers {
            let dir = tempfile::tempdir().unwrap();
            with_site(dir.path(), |site| {
                let main = peer.write_config(site, "127.0.0.1:65007".parse().unwrap()).unwrap();
                assert!(main.is_file());
                let read = |(name, _): &Template| std::fs::read_to_string(dir.path().join(name)).unwrap();
                let text: String = peer.files.iter().map(read).collect();
                assert!(text.contains("65007") && text.contains("65009"), "{}", peer.name);
                let keyed =
                    [&site.tokens.hs256_secret[..], "es256.pem", "jwks.json"].map(|key| text.contains(key));
                let expected = match (peer.jwt, peer.program) {
                    (Jwt::None, _) => [false; 3],
                    (Jwt::Hs256, _) => [true, false, false],
                    (Jwt::Es256, Program::Envoy) => [false, false, true],
                    (Jwt::Es256, _) => [false, true, false],
                };
                assert_eq!(keyed, expected, "{}", peer.name);
            });
        }
        let names: std::collections::BTreeSet<_> = peers.iter().map(|peer| peer.name).collect();
        assert_eq!(names.len(), peers.len());
    }

    #[tokio::test]
    async fn peer_that_cannot_be_had_is_missing_not_failed() {
        // PATH cannot be emptied here, so a peer is taken that this machine does not have.
        let absent = |peer: &Peer| crate::program::find_in_path(peer.program.name()).is_none();
        let Some(peer) = all().into_iter().find(absent) else { return };
        let tokens = crate::tokens::Tokens::make(0).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let programs = Programs::new(dir.path(), false).unwrap();
        let origin = "127.0.0.1:9".parse().unwrap();
        let dir = dir.path().into();
        let (transport, papers) = (Transport::Plain, None);
        let (tokens, programs, spare) = (&tokens, &programs, None);
        let site =
            Site { origin, spare, body_bytes: 16, dir, cores: None, tokens, programs, transport, papers };
        let Err(StartError::Missing(words)) = peer.start(&site).await else { panic!("not missing") };
        assert!(words.contains(peer.program.name()), "{words}");
    }
}
