//! The vault's own port by TLS: whom clients find there, and what their certificates are good for.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sluice_schema::{FalcoAction, FalcoPriority, FalcoResponse, Seal};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{PATIENCE, Reply, Setup, Vault, exchange};

/// A client that trusts an authority and may have a certificate.
struct Client {
    connector: TlsConnector,
    name: &'static str,
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

impl Client {
    /// `issued`: an answer of `/credentials/…`.
    fn new(root: &str, issued: Option<&Value>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(chain(root).remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match issued {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let text = |name: &str| issued[name].as_str().unwrap();
                let key = PrivateKeyDer::from_pem_slice(text("private_key").as_bytes()).unwrap();
                builder.with_client_auth_cert(chain(text("certificate")), key).unwrap()
            }
        };
        Self { connector: TlsConnector::from(Arc::new(config)), name: "localhost" }
    }

    async fn connect(&self, vault: &Vault) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(vault.address).await?;
        let name = ServerName::try_from(self.name).unwrap();
        tokio::time::timeout(PATIENCE, self.connector.connect(name, stream)).await.unwrap()
    }

    async fn call(&self, vault: &Vault, method: &str, target: &str, headers: &str, body: &str) -> Reply {
        exchange(self.connect(vault).await.unwrap(), method, target, headers, body).await
    }

    /// Whether the door talks to it. In TLS 1.3 a client hears of a refused certificate when it reads.
    async fn is_let_in(&self, vault: &Vault) -> bool {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let talk = async {
            let mut stream = self.connect(vault).await?;
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.map(|_| answer)
        };
        talk.await.is_ok_and(|answer: Vec<u8>| answer.starts_with(b"HTTP/1.1 200"))
    }
}

async fn root(vault: &Vault) -> String {
    vault.call("GET", "/ca/certificate", None, "").await.text
}

async fn issued(vault: &Vault, service: &str) -> Value {
    let reply = vault.as_admin("POST", &format!("/credentials/{service}"), "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_shows_its_names_and_takes_tokens_and_certificates() {
    let mut setup = Setup::default();
    setup.config.vault.names =
        ["vault.bank.example", "*.vault.example", "127.0.0.7"].map(str::to_owned).to_vec();
    setup.config.auth.roles.insert("bot".to_owned(), vec!["read".to_owned()]);
    let vault = setup.start();
    vault.ready().await;
    let root = root(&vault).await;
    let nobody = Client::new(&root, None);
    for name in [
        "localhost",
        "vault",
        "vault.sluice.internal",
        "vault.bank.example",
        "a.vault.example",
        "127.0.0.1",
        "127.0.0.7",
    ] {
        let client = Client { name, ..Client::new(&root, None) };
        client.connect(&vault).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let elsewhere = Client { name: "bank.example", ..Client::new(&root, None) };
    assert!(elsewhere.connect(&vault).await.is_err(), "a name it does not have");

    // Without a certificate a token says who it is, as in the clear.
    let bearer = format!("authorization: Bearer {}\r\n", vault.admin());
    assert_eq!(nobody.call(&vault, "GET", "/credentials", &bearer, "").await.status, 200);
    nobody.call(&vault, "GET", "/credentials", "", "").await.is(401, "invalid_token");

    // A certificate is its service: it mints that one's token and no other's.
    let bot_issued = issued(&vault, "bot").await;
    let bot = Client::new(&root, Some(&bot_issued));
    let minted = bot.call(&vault, "POST", "/tokens/bot", "", "").await;
    assert_eq!(minted.status, 200, "{minted:?}");
    bot.call(&vault, "POST", "/tokens/data", "", "").await.is(403, "insufficient_scope");

    // Another authority's is refused in the handshake; so is a revoked one, as soon as the port knows.
    let other = Vault::start().await;
    let foreign = issued(&other, "bot").await;
    assert!(!Client::new(&root, Some(&foreign)).is_let_in(&vault).await);
    assert!(bot.is_let_in(&vault).await);
    assert_eq!(vault.as_admin("POST", "/credentials/bot/revoke", "").await.status, 200);
    let began = Instant::now();
    while bot.is_let_in(&vault).await {
        assert!(began.elapsed() < PATIENCE, "a revoked certificate is still believed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_log_in_by_certificate() {
    let vault = Vault::start().await;
    let root = root(&vault).await;
    let bot = Client::new(&root, Some(&issued(&vault, "bot").await));
    let token = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let v1 = format!("x-vault-token: {}\r\n", token.trim());
    let enabled = vault.raw("POST", "/v1/sys/auth/cert", &v1, r#"{"type":"cert"}"#).await;
    assert_eq!(enabled.status, 204, "{enabled:?}");
    let role = json!({ "allowed_common_names": "bot", "token_policies": ["default"] }).to_string();
    let made = vault.raw("POST", "/v1/auth/cert/certs/bots", &v1, &role).await;
    assert_eq!(made.status, 204, "{made:?}");
    let login = bot.call(&vault, "POST", "/v1/auth/cert/login", "", r#"{"name":"bots"}"#).await;
    assert_eq!(login.status, 200, "{login:?}");
    assert!(login.json()["auth"]["client_token"].as_str().unwrap().starts_with("hvs."));
    let nobody = Client::new(&root, None);
    let refused = nobody.call(&vault, "POST", "/v1/auth/cert/login", "", r#"{"name":"bots"}"#).await;
    assert_eq!(refused.status, 400, "{refused:?}");

    // OAuth: the certificate is the client's secret.
    let client = json!({
        "client_id": "bot", "token_endpoint_auth_method": "tls_client_auth", "scope": "read",
    });
    vault.token("bot", &["read"]).await;
    let registered = vault.as_admin("POST", "/oauth2/clients", &client.to_string()).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let grant = "grant_type=client_credentials&client_id=bot&scope=read";
    let granted = bot.call(&vault, "POST", "/oauth2/token", form, grant).await;
    assert_eq!(granted.status, 200, "{granted:?}");
    assert_eq!(nobody.call(&vault, "POST", "/oauth2/token", form, grant).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_of_two_hosts_fill_a_quorum_of_two() {
    let mut setup = Setup::default();
    for host in ["host-a", "host-b"] {
        setup.config.auth.roles.insert(host.to_owned(), vec!["falco:write".to_owned()]);
    }
    setup.config.falco.responses = vec![FalcoResponse {
        rule: "Shell started by Sluice".into(),
        priority: FalcoPriority::Critical,
        action: FalcoAction::Quarantine,
        identity: Some("bot".into()),
        scope: None,
        target: None,
        ttl: Duration::from_mins(10),
        quorum: 2,
        dry_run: false,
    }];
    let vault = setup.start();
    vault.ready().await;
    let root = root(&vault).await;
    vault.token("bot", &["read"]).await;
    let host_a = Client::new(&root, Some(&issued(&vault, "host-a").await));
    let host_b = Client::new(&root, Some(&issued(&vault, "host-b").await));
    let stranger = Client::new(&root, Some(&issued(&vault, "stranger").await));
    let alert = json!({
        "time": "2026-11-22T11:00:00.000000001Z", "rule": "Shell started by Sluice", "priority": "Critical",
        "source": "syscall", "hostname": "host-b", "output": "it happened", "tags": ["sluice"],
        "output_fields": { "proc.name": "sh", "container.id": "c1" },
    })
    .to_string();
    let json = "content-type: application/json\r\n";
    let path = "/falco/alerts";
    stranger.call(&vault, "POST", path, json, &alert).await.is(403, "insufficient_scope");
    Client::new(&root, None).call(&vault, "POST", path, json, &alert).await.is(401, "invalid_token");
    let first = host_a.call(&vault, "POST", path, json, &alert).await;
    assert_eq!(
        (first.status, &first.json()["responses"]),
        (202, &json!([])),
        "one host, whatever name it gives"
    );
    let second = host_b.call(&vault, "POST", path, json, &alert).await;
    assert_eq!(second.json()["responses"][0]["result"], "done", "{second:?}");
    let listed = vault.as_admin("GET", "/falco/quarantine", "").await.json();
    assert_eq!(listed["quarantines"][0]["host"], "host-b", "{listed}");
}

/// Serial of the certificate that the port shows, and the connection.
async fn shown(vault: &Vault, client: &Client) -> (String, TlsStream<TcpStream>) {
    let stream = client.connect(vault).await.unwrap();
    let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    (sluice_identity::certificate::ClientCertificate::parse(&leaf).unwrap().serial, stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_has_another_certificate_when_its_own_is_revoked() {
    let vault = Vault::start().await;
    let client = Client::new(&root(&vault).await, None);
    let (first, standing) = shown(&vault, &client).await;
    let revoked = vault.as_admin("POST", "/credentials/vault/revoke", "").await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    let began = Instant::now();
    while shown(&vault, &client).await.0 == first {
        assert!(began.elapsed() < PATIENCE, "it still shows {first}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(exchange(standing, "GET", "/livez", "", "").await.status, 200, "who is in stays in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_was_sealed_again_still_says_so_by_tls() {
    let mut setup = Setup { dev: false, ..Setup::default() };
    setup.config.vault.seal = Seal::Shamir;
    let vault = setup.start();
    let init = r#"{"secret_shares":1,"secret_threshold":1}"#;
    let made = vault.raw("POST", "/v1/sys/init", "", init).await;
    assert_eq!(made.status, 200, "{made:?}");
    let (share, token) = (made.json()["keys"][0].clone(), made.json()["root_token"].clone());
    let share = json!({ "key": share }).to_string();
    assert_eq!(vault.raw("POST", "/v1/sys/unseal", "", &share).await.json()["sealed"], false);
    let client = Client::new(&root(&vault).await, None);
    let (first, _) = shown(&vault, &client).await;
    let v1 = format!("x-vault-token: {}\r\n", token.as_str().unwrap());
    assert_eq!(client.call(&vault, "POST", "/v1/sys/seal", &v1, "").await.status, 204);
    assert_eq!(client.call(&vault, "GET", "/v1/sys/seal-status", "", "").await.json()["sealed"], true);
    // Opened by TLS too, it has a new certificate of its authority.
    assert_eq!(client.call(&vault, "POST", "/v1/sys/unseal", "", &share).await.json()["sealed"], false);
    let began = Instant::now();
    while shown(&vault, &client).await.0 == first {
        assert!(began.elapsed() < PATIENCE, "it still shows {first}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
