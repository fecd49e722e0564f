//! Alerts as mail.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::client::Tls;
use lettre::{AsyncSmtpTransport, Tokio1Executor};

use super::alert::Alert;
use super::render;
use super::trust::Trust;

/// LIMIT: one command of the talk with a mail server.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Where mail with a password is handed in (RFC 6409).
const SUBMISSION_PORT: u16 = 587;

/// The mail server at an address: `smtps://` speaks TLS from the start; `smtp://` switches to it where the server
/// offers it, and always with `?tls=required` or a password; on this machine it need not.
pub(super) fn server(url: &str, trust: &Trust) -> Option<AsyncSmtpTransport<Tokio1Executor>> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let has_password = uri.authority()?.as_str().contains('@');
    let is_near = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let wanted = uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("tls=")));
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).ok()?;
    let tls = match (uri.scheme_str()?, wanted) {
        ("smtps", _) => Tls::Wrapper(trust.mail(host)?),
        (_, Some("required")) => Tls::Required(trust.mail(host)?),
        (_, None) if is_near => Tls::None,
        (_, None) if has_password => {
            if uri.port().is_none() {
                builder = builder.port(SUBMISSION_PORT);
            }
            Tls::Required(trust.mail(host)?)
        }
        _ => Tls::Opportunistic(trust.mail(host)?),
    };
    Some(builder.tls(tls).timeout(Some(COMMAND_TIMEOUT)).build())
}

/// An alert as mail. A repeat after a lost answer has the same id: mail systems show it once.
pub(super) fn message(
    from: &Mailbox,
    to: &Mailbox,
    alert: &Alert,
    left_out: u64,
) -> Result<Message, lettre::error::Error> {
    let domain = from.email.domain();
    Message::builder()
        .from(from.clone())
        .to(to.clone())
        .subject(render::headline(alert))
        .message_id(Some(format!("<{}@{domain}>", alert.event_id)))
        .header(ContentType::TEXT_PLAIN)
        .header(AutoSubmitted)
        .body(render::text(alert, left_out))
}

/// Tells other machines not to answer (RFC 3834).
#[derive(Clone, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
