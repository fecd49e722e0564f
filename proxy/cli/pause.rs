//! Pauses between tries: doubling, spread out, or as long as the other side says.

use std::time::Duration;

use http::{HeaderMap, header};

const FIRST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(5);
/// LIMIT: of what the other side asks for.
const ASKED_MOST: Duration = Duration::from_secs(60);

/// The pauses of one row of failures.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    /// Something went well: the next row begins anew.
    pub(crate) fn well(&mut self) {
        self.0 = FIRST;
    }

    /// The next pause, half of it by chance, so that many do not come back at once.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(MOST);
        whole / 2 + whole.mul_f64(chance() / 2.0)
    }
}

/// What the other side asks for.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(ASKED_MOST))
}

/// From 0 to below 1.
fn chance() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut pause = Pause::new();
        for whole_ms in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            let next = pause.next();
            let whole = Duration::from_millis(whole_ms);
            assert!(next >= whole / 2 && next < whole, "{next:?} of {whole:?}");
        }
        pause.well();
        assert!(pause.next() < FIRST);
    }
}
