//! Alerts of Falco: taken from its `http_output`, told on, and answered where the configuration says so.
//!
//! The life of an alert: `api` finds out where it comes from (a certificate, or this machine and a secret path, never
//! the alert's own text), `alert` parses it within bounds, `watch` decides purely whether it is new, too much, and
//! whether a response is due, `ops` does it: one commit with events and audit record, metrics, `quarantine`, `kill` switch.

mod alert;
mod api;
mod kill;
mod ops;
mod quarantine;
mod rules;
mod watch;

pub(crate) use api::routes;
pub(crate) use quarantine::{ShutOut, check, has_ended, lift_ended};
pub(crate) use rules::Rules;
pub(crate) use watch::{Action, Response, Stop, Watch};
