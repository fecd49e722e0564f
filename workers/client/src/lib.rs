//! A typed client of Sluice's workers, over an internal door or an API port.
//!
//! Knows: paths and shapes of the workers' calls, bounded answers, the vault's feed. Must not
//! know: how workers do their work, policy, configuration.

mod call;
mod certificate;
mod events;
pub mod feed;
mod groups;
mod role_key;
mod sse;
mod store_key;

pub use call::{Client, ClientError, REPLY_BYTES_MAX, Reply};
pub use groups::{Lease, Leased, Progress, Settled};
pub use role_key::{RoleKey, RoleKeyFault, pem};
pub use sluice_wire::certificate::{CertificateRequest, RoleCertificate};
pub use sse::{SseEvent, SseStream};
