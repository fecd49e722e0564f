//! Targets over real sockets: TLS, and what the answers of mail servers mean.

use std::sync::Arc;
use std::time::Duration;

use rcgen::CertifiedKey;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::json;
use sluice_schema::{Notify, NotifyKind, NotifyLevel, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::alert::Alert;
use super::alert::tests::of;
use super::target::{Target, TargetError, Told};
use super::trust::Trust;

#[path = "../../tests/api/mail.rs"]
mod server;

use server::{Secure, serve};

/// An authority of one certificate, and who shows it.
fn tls() -> (CertificateDer<'static>, TlsAcceptor) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
    (cert.der().clone(), TlsAcceptor::from(Arc::new(config)))
}

fn alert() -> Alert {
    let alert =
        of("circuit_breaker_state", &json!({"service": "orders", "state": "open", "reason": "größer"}));
    alert.unwrap()
}

fn target(kind: NotifyKind, url: String, trust: &Trust) -> Target {
    let is_mail = kind == NotifyKind::Smtp;
    let address = |name: &str| is_mail.then(|| format!("{name}@example.com"));
    let (from, to) = (address("sluice"), address("desk"));
    let level = NotifyLevel::Warning;
    Target::new(&Notify { kind, url: Some(Secret::new(url)), reference: None, level, from, to }, trust)
        .unwrap()
}

async fn told(target: &Target) -> Told {
    tokio::time::timeout(Duration::from_secs(20), target.tell(&alert(), 0)).await.unwrap()
}

#[tokio::test]
async fn mail_goes_over_tls_by_starttls_or_from_the_start() {
    let (root, acceptor) = tls();
    let trust = Trust::of(vec![root]);
    for (scheme, query, at_once) in [("smtp", "?tls=required", false), ("smtps", "", true)] {
        let secure = Secure { acceptor: Some(acceptor.clone()), at_once };
        let (address, mut mails) = serve(secure, &[]).await;
        let target = target(NotifyKind::Smtp, format!("{scheme}://{address}{query}"), &trust);
        let told = told(&target).await;
        assert!(matches!(told, Told::Delivered), "{scheme}: {told:?}");
        let mail = mails.recv().await.unwrap();
        assert!(mail.secure, "{scheme}");
        assert!(
            mail.text.contains("Subject: [CRITICAL] Circuit breaker of orders is open\r\n"),
            "{}",
            mail.text
        );
        let id = format!("Message-ID: <{}@example.com>\r\n", alert().event_id);
        assert!(
            mail.text.contains(&id) && mail.text.contains("Auto-Submitted: auto-generated"),
            "{}",
            mail.text
        );
    }
}

#[tokio::test]
async fn mail_is_not_given_to_a_server_that_nobody_vouches_for() {
    let (_, acceptor) = tls();
    let (other, _) = tls();
    let trust = Trust::of(vec![other]);
    let secure = Secure { acceptor: Some(acceptor), at_once: false };
    let (address, mut mails) = serve(secure, &[]).await;
    let untrusted = told(&target(NotifyKind::Smtp, format!("smtp://{address}?tls=required"), &trust)).await;
    assert!(matches!(untrusted, Told::Later { .. }), "{untrusted:?}");
    let (plain, mut others) = serve(Secure::default(), &[]).await;
    let bare = told(&target(NotifyKind::Smtp, format!("smtp://{plain}?tls=required"), &trust)).await;
    assert!(!matches!(bare, Told::Delivered), "{bare:?}");
    assert!(mails.try_recv().is_err() && others.try_recv().is_err());
}

#[tokio::test]
async fn a_mail_server_refuses_for_now_or_for_good() {
    let trust = Trust::of(Vec::new());
    let (address, mut mails) = serve(Secure::default(), &["451 later", "550 nobody"]).await;
    let target = target(NotifyKind::Smtp, format!("smtp://{address}"), &trust);
    let later = told(&target).await;
    assert!(matches!(later, Told::Later { may_have: false, .. }), "{later:?}");
    let refused = told(&target).await;
    assert!(matches!(&refused, Told::Refused(why) if why.contains("550")), "{refused:?}");
    assert!(matches!(told(&target).await, Told::Delivered));
    assert!(!mails.recv().await.unwrap().secure);
}

#[tokio::test]
async fn webhooks_are_reached_over_tls() {
    let (root, acceptor) = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4_096];
            let read = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            return String::from_utf8_lossy(&head[..read]).into_owned();
        }
    });
    let untrusted = told(&target(NotifyKind::Webhook, url.clone(), &Trust::of(vec![tls().0]))).await;
    assert!(matches!(untrusted, Told::Later { may_have: false, .. }), "{untrusted:?}");
    let trusted = told(&target(NotifyKind::Webhook, url, &Trust::of(vec![root]))).await;
    assert!(matches!(trusted, Told::Delivered), "{trusted:?}");
    assert!(served.await.unwrap().starts_with("POST /hook HTTP/1.1\r\n"));
}

#[test]
fn targets_that_cannot_be_told_anything_say_why() {
    let trust = Trust::of(Vec::new());
    let of = |url: Option<&str>, to: &str| {
        let url = url.map(|url| Secret::new(url.to_owned()));
        let (kind, level, to) = (NotifyKind::Smtp, NotifyLevel::Info, Some(to.to_owned()));
        let from = Some("a@example.com".to_owned());
        Target::new(&Notify { kind, url, reference: None, level, from, to }, &trust).err()
    };
    assert!(matches!(of(None, "b@example.com"), Some(TargetError::Absent)));
    assert!(matches!(of(Some("smtp://mail"), "b"), Some(TargetError::Mailbox("to"))));
    assert!(matches!(of(Some("smtp://mail?tls=never"), "b@example.com"), Some(TargetError::Server)));
    assert!(of(Some("smtp://u:p@mail.example.com"), "b@example.com").is_none());
}
