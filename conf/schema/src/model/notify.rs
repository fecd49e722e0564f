//! Who is told of alerts.

use super::value::Secret;

/// LIMIT: bytes of an address.
const URL_BYTES_MAX: usize = 2_048;

/// `[[notify]]`: somebody who is told of alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Notify {
    /// What it is.
    pub kind: NotifyKind,
    /// Its address; `None` where this process is not handed the secret that a reference names.
    pub url: Option<Secret>,
    /// The reference that the address was found by, as written.
    pub reference: Option<String>,
    /// What it is told at least.
    pub level: NotifyLevel,
    /// Sender of mail.
    pub from: Option<String>,
    /// Receiver of mail, or the chat at Telegram.
    pub to: Option<String>,
}

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyKind {
    /// An incoming webhook of Slack.
    Slack,
    /// A webhook of Discord.
    Discord,
    /// `sendMessage` of a bot at Telegram.
    Telegram,
    /// A mail server.
    Smtp,
    /// `/api/v2/alerts` of an Alertmanager.
    Alertmanager,
    /// Anything that takes JSON.
    Webhook,
}

/// How urgent an alert must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotifyLevel {
    /// Good to know.
    Info,
    /// Somebody should look.
    #[default]
    Warning,
    /// Somebody must look now.
    Critical,
}

impl NotifyKind {
    /// The words of the file.
    pub(crate) const WORDS: [(&'static str, Self); 6] = [
        ("slack", Self::Slack),
        ("discord", Self::Discord),
        ("telegram", Self::Telegram),
        ("smtp", Self::Smtp),
        ("alertmanager", Self::Alertmanager),
        ("webhook", Self::Webhook),
    ];

    /// The word in file, logs and metrics.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// Why an address is none of this kind; the address is not repeated.
    pub(crate) fn refuses(self, url: &str) -> Option<&'static str> {
        let schemes: &[&str] = if self == Self::Smtp { &["smtp", "smtps"] } else { &["http", "https"] };
        let Some((scheme, rest)) = url.split_once("://") else {
            return Some("this is not an address with a scheme");
        };
        if !schemes.contains(&scheme) {
            return Some(if self == Self::Smtp {
                "the address of a mail server begins with smtp:// or smtps://"
            } else {
                "the address begins with http:// or https://"
            });
        }
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains('#')
        {
            return Some("an address has at most 2048 visible ASCII characters and no #");
        }
        host.is_empty().then_some("the address has no host")
    }
}
