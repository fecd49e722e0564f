//! nginx and HAProxy as Debian ships them: one worker or thread each, bare and with equal policies.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::process::{Launch, find_in_path, version_of};
use crate::subject::{
    Running, Site, StartError, Starting, Subject, fill, free_address, path_text, wait_listening,
};

const NGINX_BARE: &str = include_str!("../peers/nginx-bare.conf");
const NGINX_POLICY: &str = include_str!("../peers/nginx-policy.conf");
const HAPROXY_BARE: &str = include_str!("../peers/haproxy-bare.conf");
const HAPROXY_POLICY: &str = include_str!("../peers/haproxy-policy.conf");
/// A port found free can be taken before the peer binds it.
const START_TRIES: usize = 3;

/// Which credential a peer verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Jwt {
    None,
    Hs256,
    Es256,
}

/// One peer with one configuration.
#[derive(Debug)]
pub(crate) struct Peer {
    name: &'static str,
    program: &'static str,
    template: &'static str,
    policies: &'static str,
    jwt: Jwt,
    request_id: bool,
}

/// Every peer of the edge scenario.
pub(crate) fn all() -> Vec<Peer> {
    let bare = "forwards only";
    vec![
        Peer {
            name: "nginx-bare",
            program: "nginx",
            template: NGINX_BARE,
            policies: bare,
            jwt: Jwt::None,
            request_id: false,
        },
        Peer {
            name: "haproxy-bare",
            program: "haproxy",
            template: HAPROXY_BARE,
            policies: bare,
            jwt: Jwt::None,
            request_id: false,
        },
        Peer {
            name: "nginx-policy",
            program: "nginx",
            template: NGINX_POLICY,
            policies: "rate limit, request id, access log (no JWT: not in the free version; no breaker)",
            jwt: Jwt::None,
            request_id: true,
        },
        Peer {
            name: "haproxy-policy-hs256",
            program: "haproxy",
            template: HAPROXY_POLICY,
            policies: "JWT HS256, scope, rate limit, request id, access log, error limit",
            jwt: Jwt::Hs256,
            request_id: true,
        },
        Peer {
            name: "haproxy-policy-es256",
            program: "haproxy",
            template: HAPROXY_POLICY,
            policies: "JWT ES256 (verified every time), scope, rate limit, request id, access log, error limit",
            jwt: Jwt::Es256,
            request_id: true,
        },
    ]
}

impl Subject for Peer {
    fn name(&self) -> &str {
        self.name
    }

    fn policies(&self) -> &str {
        self.policies
    }

    fn sets_request_id(&self) -> bool {
        self.request_id
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move {
            let missing = || StartError::Missing(format!("no `{}` in PATH", self.program));
            let program = find_in_path(self.program).ok_or_else(missing)?;
            let mut last = None;
            for _ in 0..START_TRIES {
                match self.start_once(&program, site).await {
                    Ok(running) => return Ok(running),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| anyhow::anyhow!("never started")).into())
        })
    }
}

impl Peer {
    async fn start_once(&self, program: &Path, site: &Site<'_>) -> anyhow::Result<Running> {
        let address = free_address()?;
        let config = self.write_config(site, &address.to_string())?;
        let dir = path_text(&site.dir)?;
        let (version_flag, arguments) = match self.program {
            "nginx" => ("-v", vec!["-p", dir, "-e", "error.log", "-c", path_text(&config)?]),
            _ => ("-v", vec!["-db", "-f", path_text(&config)?]),
        };
        let launch = Launch {
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            core: site.cores.map(|cores| cores.proxy),
            dir: &site.dir,
        };
        let mut child = launch.start()?;
        wait_listening(&mut child, address).await?;
        let authorization = match self.jwt {
            Jwt::None => None,
            Jwt::Hs256 => Some(format!("Bearer {}", site.tokens.hs256_token)),
            Jwt::Es256 => Some(format!("Bearer {}", site.tokens.es256_token)),
        };
        let version = version_of(program, OsStr::new(version_flag))?;
        Ok(Running { version, address, authorization, cpu_root: child.pid(), child })
    }

    fn write_config(&self, site: &Site<'_>, address: &str) -> anyhow::Result<PathBuf> {
        let public = site.dir.join("es256.pem");
        write(&public, &site.tokens.es256_public_pem)?;
        let (algorithm, key) = match self.jwt {
            Jwt::Es256 => ("ES256", path_text(&public)?),
            _ => ("HS256", site.tokens.hs256_secret.as_str()),
        };
        // nginx started by root hands its workers to `nobody`, a user that some machines lack a group for.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let values = [
            ("dir", path_text(&site.dir)?),
            ("listen", address),
            ("origin", &site.origin.to_string()),
            ("algorithm", algorithm),
            ("key", key),
            ("user", user),
        ];
        let path = site.dir.join("peer.conf");
        write(&path, &fill(self.template, &values)?)?;
        Ok(path)
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_and_names_are_unique() {
        let tokens = crate::tokens::Tokens::make().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let origin = "127.0.0.1:9".parse().unwrap();
        let site = Site { origin, body_bytes: 16, dir: dir.path().into(), cores: None, tokens: &tokens };
        let peers = all();
        for peer in &peers {
            let path = peer.write_config(&site, "127.0.0.1:7").unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains("127.0.0.1:7") && text.contains("127.0.0.1:9"), "{}", peer.name);
            assert_eq!(text.contains(&tokens.hs256_secret), peer.jwt == Jwt::Hs256, "{}", peer.name);
            assert_eq!(text.contains("es256.pem"), peer.jwt == Jwt::Es256, "{}", peer.name);
        }
        let names: std::collections::BTreeSet<_> = peers.iter().map(|peer| peer.name).collect();
        assert_eq!(names.len(), peers.len());
    }

    #[tokio::test]
    async fn peer_that_is_not_installed_is_missing_not_failed() {
        let tokens = crate::tokens::Tokens::make().unwrap();
        let site = Site {
            origin: "127.0.0.1:9".parse().unwrap(),
            body_bytes: 16,
            dir: "/".into(),
            cores: None,
            tokens: &tokens,
        };
        let peer = Peer { program: "no-such-proxy", ..all().remove(0) };
        assert!(matches!(peer.start(&site).await, Err(StartError::Missing(_))));
    }
}
