//! What the subjects of a scenario are to do.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::forms::BARS_MAX;
use crate::stored::FILL_LIMIT;
use crate::vault::{Op, value_bytes_min};
use crate::voice::event_bytes_min;

const BATCH_MAX: u32 = 1000;
pub(crate) const SUBSCRIBERS_MAX: u32 = 4000;
/// LIMIT: events stored before they are counted on.
pub(crate) const STORED_MAX: u64 = 20_000_000;
const SECRETS_MAX: u32 = 1_000_000;
/// LIMIT: bytes of a secret's value.
const VALUE_BYTES_MAX: u32 = 16 * 1024;
/// With its head it must fit the socket's buffer, because it is sent in one write.
const REQUEST_BYTES_MAX: u32 = 64 * 1024;

/// What the subjects are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Work {
    /// Pass requests on to the origin.
    #[default]
    Forward,
    /// Store events, so many with each request.
    Publish { batch: u32 },
    /// Store events and show each of them to so many subscribers; latency is that of the deliveries.
    Fanout { batch: u32, subscribers: u32 },
    /// Ask a vault for one thing.
    Vault { op: Op },
    /// Revoke tokens; a trial takes until the edge refuses one.
    Revoke,
    /// Close and open a vault with so many secrets; a trial takes until it serves.
    Unseal { secrets: u32 },
    /// Compute indicators of so many bars.
    Calculate { bars: u32 },
    /// Look through so many stored events for those of one symbol; a trial takes until they are counted.
    Replay { events: u64 },
    /// Kill a store of so many events; a trial takes until it acknowledges another one.
    Restart { events: u64 },
    /// Reload an edge's configuration with one more service; a trial takes until that is routed.
    Reload,
}

impl Work {
    /// Whether it is asked of an origin through proxies.
    pub(crate) fn is_forward(self) -> bool {
        self == Self::Forward
    }

    /// Whether what takes the time is not one answer but until something has come true. It has no rate.
    pub(crate) fn is_trial(self) -> bool {
        matches!(
            self,
            Self::Revoke | Self::Unseal { .. } | Self::Replay { .. } | Self::Restart { .. } | Self::Reload
        )
    }

    /// Deliveries that one request is to cause; 1 where its answer is what is measured.
    pub(crate) fn deliveries(self) -> u64 {
        match self {
            Self::Fanout { batch, subscribers } => u64::from(batch) * u64::from(subscribers),
            _ => 1,
        }
    }

    /// LIMIT: time to make one subject ready, beyond its start.
    pub(crate) fn preparing(self) -> Duration {
        match self {
            // The slowest is asked for 250 a second.
            Self::Unseal { secrets } => Duration::from_secs(u64::from(secrets) / 250),
            Self::Replay { .. } | Self::Restart { .. } => FILL_LIMIT,
            _ => Duration::ZERO,
        }
    }

    /// Says what is wrong with it, given the bytes of an event or a secret.
    pub(crate) fn check(self, event_bytes: u32) -> Result<(), String> {
        let (batch, subscribers) = match self {
            Self::Calculate { bars } if !(100..=BARS_MAX).contains(&bars) => {
                return Err(format!("`work`: bars are 100 to {BARS_MAX}"));
            }
            Self::Forward | Self::Reload | Self::Calculate { .. } => return Ok(()),
            Self::Replay { events } | Self::Restart { events } if !(1..=STORED_MAX).contains(&events) => {
                return Err(format!("`work`: events are 1 to {STORED_MAX}"));
            }
            Self::Replay { .. } | Self::Restart { .. } => (1, 1),
            Self::Publish { batch } => (batch, 1),
            Self::Fanout { batch, subscribers } => (batch, subscribers),
            Self::Vault { .. } | Self::Revoke | Self::Unseal { .. } => return self.check_vault(event_bytes),
        };
        if !(1..=BATCH_MAX).contains(&batch) || !(1..=SUBSCRIBERS_MAX).contains(&subscribers) {
            return Err(format!("`work`: batch is 1 to {BATCH_MAX}, subscribers are 1 to {SUBSCRIBERS_MAX}"));
        }
        let least = event_bytes_min();
        if (event_bytes as usize) < least || event_bytes.saturating_mul(batch) > REQUEST_BYTES_MAX {
            return Err(format!(
                "`body_bytes` of an event is at least {least}, and a request has at most {REQUEST_BYTES_MAX}"
            ));
        }
        Ok(())
    }

    fn check_vault(self, value_bytes: u32) -> Result<(), String> {
        let secrets = if let Self::Unseal { secrets } = self { secrets } else { 1 };
        if !(1..=SECRETS_MAX).contains(&secrets) {
            return Err(format!("`work`: secrets are 1 to {SECRETS_MAX}"));
        }
        let least = value_bytes_min();
        if (value_bytes as usize) < least || value_bytes > VALUE_BYTES_MAX {
            return Err(format!("`body_bytes` of a secret is {least} to {VALUE_BYTES_MAX}"));
        }
        Ok(())
    }
}
