//! How a request comes to a second try.

use std::time::Duration;

/// When and how often a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Tries in all, the first counted, 1 to 10.
    pub attempts: u32,
    /// Retries as a share of requests, 0 to 1.
    pub budget: f64,
    /// Retries a second that the budget always allows.
    pub min_per_second: u32,
    /// What is tried again.
    pub on: Vec<RetryCause>,
    /// When a reader's silent first try gets a second one beside it.
    pub hedge: Hedge,
}

/// A failure that may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryCause {
    /// No connection.
    Connect,
    /// The connection broke before a response byte came.
    Reset,
    /// This upstream status, 500 to 599.
    Status(u16),
}

/// When a reader's silent first try gets a second one beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hedge {
    /// Never.
    #[default]
    Off,
    /// After the time within which 95 of 100 heads of the service come.
    P95,
    /// After this time, 1 ms to 1 h.
    After(Duration),
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            budget: 0.2,
            min_per_second: 3,
            on: vec![
                RetryCause::Connect,
                RetryCause::Reset,
                RetryCause::Status(502),
                RetryCause::Status(503),
                RetryCause::Status(504),
            ],
            hedge: Hedge::Off,
        }
    }
}
