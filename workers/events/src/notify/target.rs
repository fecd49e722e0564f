//! Somebody who is told: what is sent, and what the answer means.

use std::error::Error;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use sluice_schema::{Notify, NotifyKind, NotifyLevel};

use super::alert::{Alert, Level};
use super::trust::Trust;
use super::{mail, post, render};

/// LIMIT: the whole talk with a mail server.
const MAIL_DEADLINE: Duration = Duration::from_secs(30);

/// A target that is ready to be told.
pub(super) struct Target {
    pub(super) kind: NotifyKind,
    /// What it is told at least.
    pub(super) level: Level,
    trust: Trust,
    way: Way,
}

enum Way {
    Http { url: String, chat: Option<String> },
    Mail { server: Box<AsyncSmtpTransport<Tokio1Executor>>, from: Mailbox, to: Mailbox },
}

/// What became of an alert at a target.
#[derive(Debug)]
pub(super) enum Told {
    /// The target has it.
    Delivered,
    /// It may work later.
    Later {
        why: String,
        /// When the target wants to be asked again.
        after: Option<Duration>,
        /// The target may have it all the same.
        may_have: bool,
    },
    /// It will never work.
    Refused(String),
}

/// A target that cannot be told anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// The reference in its address leads nowhere.
    #[error("its address is not there")]
    Absent,
    /// Sender or receiver.
    #[error("`{0}` is not a mail address")]
    Mailbox(&'static str),
    /// The mail server.
    #[error("the address of the mail server is not one")]
    Server,
}

impl Target {
    /// A target as configured, and whom it is believed by.
    pub(super) fn new(notify: &Notify, trust: &Trust) -> Result<Self, TargetError> {
        let url = notify.url.as_ref().and_then(|url| std::str::from_utf8(url.expose()).ok());
        let url = url.ok_or(TargetError::Absent)?;
        let way = if notify.kind == NotifyKind::Smtp {
            Way::Mail {
                server: Box::new(mail::server(url, trust).ok_or(TargetError::Server)?),
                from: mailbox(notify.from.as_deref(), "from")?,
                to: mailbox(notify.to.as_deref(), "to")?,
            }
        } else {
            Way::Http { url: url.to_owned(), chat: notify.to.clone() }
        };
        let level = match notify.level {
            NotifyLevel::Info => Level::Info,
            NotifyLevel::Warning => Level::Warning,
            NotifyLevel::Critical => Level::Critical,
        };
        Ok(Self { kind: notify.kind, level, trust: trust.clone(), way })
    }

    /// Tells an alert, and how many were left out before it.
    pub(super) async fn tell(&self, alert: &Alert, left_out: u64) -> Told {
        match &self.way {
            Way::Http { url, chat } => {
                let body = body(self.kind, alert, left_out, chat.as_deref());
                let body = body.to_string().into_bytes();
                judge(post::post(self.trust.connector(), url, &alert.event_id, body).await)
            }
            Way::Mail { server, from, to } => {
                let Ok(message) = mail::message(from, to, alert, left_out) else {
                    return Told::Refused("it has no form as mail".to_owned());
                };
                let sent = tokio::time::timeout(MAIL_DEADLINE, server.send(message)).await;
                judge_mail(sent.ok().map(|sent| sent.map(drop)))
            }
        }
    }
}

fn body(kind: NotifyKind, alert: &Alert, left_out: u64, chat: Option<&str>) -> serde_json::Value {
    match kind {
        NotifyKind::Slack => render::slack(alert, left_out),
        NotifyKind::Discord => render::discord(alert, left_out),
        NotifyKind::Telegram => render::telegram(alert, left_out, chat),
        NotifyKind::Alertmanager => render::alertmanager(alert),
        NotifyKind::Webhook | NotifyKind::Smtp => render::webhook(alert, left_out),
    }
}

/// What an answer means: a refusal of the body or the credential does not become better by itself.
fn judge(answer: Result<post::Answer, post::PostError>) -> Told {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ post::PostError::Address) => return Told::Refused(error.to_string()),
        Err(error) => {
            let may_have = !matches!(error, post::PostError::Connect(_));
            return Told::Later { why: whole(&error), after: None, may_have };
        }
    };
    let why = format!("answered {}", answer.status.as_u16());
    match answer.status.as_u16() {
        200..=299 => Told::Delivered,
        408 | 425 | 429 | 500..=599 => Told::Later { why, after: answer.retry_after, may_have: false },
        _ => Told::Refused(why),
    }
}

/// The same of a mail server; none when it did not end in time.
fn judge_mail(sent: Option<Result<(), lettre::transport::smtp::Error>>) -> Told {
    match sent {
        Some(Ok(())) => Told::Delivered,
        Some(Err(error)) if error.is_permanent() => {
            let status = error.status().map(|status| status.to_string()).unwrap_or_default();
            Told::Refused(format!("the mail server refuses with {status}"))
        }
        Some(Err(error)) => {
            let may_have = !error.is_transient() && !error.is_tls();
            Told::Later { why: whole(&error), after: None, may_have }
        }
        None => {
            Told::Later { why: format!("not done within {MAIL_DEADLINE:?}"), after: None, may_have: true }
        }
    }
}

/// An error with its causes, on one line.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    super::alert::cut(&text, 300)
}

fn mailbox(text: Option<&str>, what: &'static str) -> Result<Mailbox, TargetError> {
    text.and_then(|text| text.parse().ok()).ok_or(TargetError::Mailbox(what))
}
