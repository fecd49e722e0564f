//! Our token at the external vault: looked at, renewed while it can be, and what is known of it told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::server::Question;
use super::{External, lock, unexpected};
use crate::error::VaultError;

/// Pause after a look that failed; doubles up to the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest and shortest pause after one that did not, seconds.
const LOOK_MAX_S: u64 = 300;
const LOOK_MIN_S: u64 = 1;

/// How we stand with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was heard yet.
    Unknown,
    /// The token is good and the engine is there.
    Good,
    /// The token is good and ends in so many seconds: it is not to be renewed, or not for long.
    Ending(u64),
    /// It is not good, or its policies do not let it look at itself.
    Refused,
    /// Nothing, or something else, is mounted where the secrets are to be.
    NoEngine,
}

/// What a look at oneself says.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Look {
    /// 0: it does not end.
    ttl: u64,
    #[serde(default)]
    creation_ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
struct Renewed {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    lease_duration: u64,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Default, Deserialize)]
struct Options {
    version: Option<String>,
}

/// Keeps the token alive, for ever.
pub(crate) async fn keep(external: Arc<External>) {
    let mut pause = RETRY_MIN;
    loop {
        let wait = if let Ok(left_s) = external.look().await {
            pause = RETRY_MIN;
            Duration::from_secs(next_look_s(left_s))
        } else {
            // What is wrong was logged where it was found.
            let now = pause;
            pause = (pause * 2).min(RETRY_MAX);
            now
        };
        tokio::time::sleep(wait).await;
    }
}

impl External {
    /// Looks at token and mount, renews where it is due; seconds that the token has left, 0: for ever.
    async fn look(&self) -> Result<u64, VaultError> {
        let look: Envelope<Look> = self.told(Method::GET, "auth/token/lookup-self", None).await?;
        let mut look = look.data;
        // Before the mount is looked at: what is wrong there must not cost the token.
        if is_due(look) {
            let body = Some(Bytes::from_static(b"{}"));
            let renewed: Renewed = self.told(Method::POST, "auth/token/renew-self", body).await?;
            look.ttl = renewed.auth.lease_duration;
        }
        let mount = format!("sys/internal/ui/mounts/{}", self.mount);
        let mount: Envelope<Mount> = self.told(Method::GET, &mount, None).await?;
        let version = mount.data.options.and_then(|options| options.version);
        if mount.data.kind != "kv" || version.as_deref() != Some("2") {
            self.stand(Standing::NoEngine);
            return Err(unexpected());
        }
        self.stand(standing(look));
        Ok(look.ttl)
    }

    async fn told<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<Bytes>,
    ) -> Result<T, VaultError> {
        let question = Question { method, target: target.to_owned(), body };
        let told = self.call_as(question).await?;
        if told.status == 403 {
            self.stand(Standing::Refused);
            return Err(unexpected());
        }
        if told.status != 200 {
            return Err(unexpected());
        }
        serde_json::from_slice(&told.body).map_err(|_| unexpected())
    }

    /// Remembers, and tells the log of a change.
    fn stand(&self, now: Standing) {
        let before = std::mem::replace(&mut *lock(&self.standing), now);
        if before == now || matches!((before, now), (Standing::Ending(_), Standing::Ending(_))) {
            return;
        }
        match now {
            Standing::Good | Standing::Unknown => {
                tracing::info!(component = "external", "the external vault keeps the secrets");
            }
            Standing::Ending(left_s) => {
                tracing::warn!(component = "external", left_s, "the token for the external vault will end");
            }
            Standing::Refused => {
                tracing::error!(component = "external", "the external vault refuses the token");
            }
            Standing::NoEngine => tracing::error!(
                component = "external",
                "no KV engine of version 2 is mounted at the external vault where secrets are to be"
            ),
        }
    }
}

/// A token is renewed when a third of its life is over.
const fn is_due(look: Look) -> bool {
    look.renewable && look.ttl > 0 && look.ttl.saturating_mul(3) < look.creation_ttl.saturating_mul(2)
}

/// What is left when everything was done that can be: with less than half its life left, it ends.
const fn standing(look: Look) -> Standing {
    if look.ttl > 0 && look.ttl.saturating_mul(2) < look.creation_ttl {
        Standing::Ending(look.ttl)
    } else {
        Standing::Good
    }
}

/// Often enough to renew in time, seldom enough not to matter.
const fn next_look_s(left_s: u64) -> u64 {
    let sixth = if left_s == 0 { LOOK_MAX_S } else { left_s / 6 };
    if sixth > LOOK_MAX_S {
        LOOK_MAX_S
    } else if sixth < LOOK_MIN_S {
        LOOK_MIN_S
    } else {
        sixth
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever its life, a token that can be renewed never comes near its end.
        #[test]
        fn a_renewable_token_is_renewed_in_time(life in 12_u64..3_000_000) {
            let (mut now, mut end) = (0, life);
            for _ in 0..200 {
                let look = Look { ttl: end - now, creation_ttl: life, renewable: true };
                prop_assert!(look.ttl * 3 >= life, "{} of {life} left", look.ttl);
                if is_due(look) {
                    end = now + life;
                }
                prop_assert_eq!(standing(Look { ttl: end - now, ..look }), Standing::Good);
                now += next_look_s(end - now);
            }
        }
    }

    #[test]
    fn a_token_that_ends_is_told_of_and_one_that_does_not_is_left_alone() {
        let look = |ttl, creation_ttl, renewable| Look { ttl, creation_ttl, renewable };
        assert!(!is_due(look(0, 0, true)) && !is_due(look(10, 100, false)) && is_due(look(60, 100, true)));
        assert_eq!(standing(look(0, 0, false)), Standing::Good);
        assert_eq!(standing(look(60, 100, false)), Standing::Good);
        assert_eq!(standing(look(40, 100, false)), Standing::Ending(40));
        // Whatever the server says.
        assert!(!is_due(look(u64::MAX, u64::MAX, true)) && is_due(look(1, u64::MAX, true)));
        assert_eq!(standing(look(1, u64::MAX, true)), Standing::Ending(1));
        assert_eq!((next_look_s(0), next_look_s(3), next_look_s(60)), (300, 1, 10));
    }
}
