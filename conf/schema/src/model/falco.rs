//! `[falco]`: alerts of Falco, and what is done about them.

use std::time::Duration;

use super::Secret;

/// `[falco]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Falco {
    /// The end of the path that Falco on this machine sends to; at least 32 bytes outside `--dev`. `None`: there is no
    /// such path, and alerts need a client certificate.
    pub secret: Option<Secret>,
    /// An alert that repeats one inside this time is counted and not told.
    pub dedup_window: Duration,
    /// New alerts a second at most, a second's worth at once.
    pub rate: u64,
    /// What is done for which alerts.
    pub responses: Vec<FalcoResponse>,
}

/// One rule of response.
#[derive(Clone, Debug, PartialEq)]
pub struct FalcoResponse {
    /// Falco's rule, or `*`.
    pub rule: String,
    /// What the alert's priority is at least.
    pub priority: FalcoPriority,
    /// What is done.
    pub action: FalcoAction,
    /// The service it is done to; a quarantine has one.
    pub identity: Option<String>,
    /// What a kill switch stops; it has one.
    pub scope: Option<KillScope>,
    /// Which service, account or symbol that is; none for everything.
    pub target: Option<String>,
    /// How long it lasts.
    pub ttl: Duration,
    /// How many hosts it takes, 1 to 16.
    pub quorum: u64,
    /// Whether it is only told of.
    pub dry_run: bool,
}

/// What is done for an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FalcoAction {
    /// It is told of.
    Notify,
    /// The service loses its tokens and certificates, and gets no new ones.
    Quarantine,
    /// Edges stop what it names, but for cancels.
    KillSwitch,
}

/// What a kill switch stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillScope {
    /// Every service.
    All,
    /// One service.
    Service,
    /// One account.
    Account,
    /// One symbol.
    Symbol,
}

impl KillScope {
    /// The words, as the edge has them.
    pub(crate) const WORDS: [(&'static str, Self); 4] = [
        ("all", Self::All),
        ("service", Self::Service),
        ("account", Self::Account),
        ("symbol", Self::Symbol),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, scope)| *scope == self).map_or("", |(word, _)| word)
    }
}

/// Falco's priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FalcoPriority {
    /// The least.
    Debug,
    /// For information.
    Informational,
    /// Worth a look.
    Notice,
    /// A warning.
    Warning,
    /// An error.
    Error,
    /// Critical.
    Critical,
    /// To be acted on at once.
    Alert,
    /// The gravest.
    Emergency,
}

impl FalcoPriority {
    /// The words, as Falco has them.
    pub(crate) const WORDS: [(&'static str, Self); 8] = [
        ("debug", Self::Debug),
        ("informational", Self::Informational),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("error", Self::Error),
        ("critical", Self::Critical),
        ("alert", Self::Alert),
        ("emergency", Self::Emergency),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, priority)| *priority == self).map_or("", |(word, _)| word)
    }
}

impl Default for Falco {
    fn default() -> Self {
        Self { secret: None, dedup_window: Duration::from_secs(60), rate: 100, responses: Vec::new() }
    }
}
