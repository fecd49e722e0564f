//! Which requests are copied to another service, whose answers nobody waits for.
//!
//! Purpose: a new version sees real traffic before it answers any.
//!
//! Exact conditions: a request of a service with a `mirror` is copied once, when it is admitted and about to be
//! forwarded, if it is a GET without a body: a copy must change nothing, and a body would have to be read twice.
//! Upgrades are not copied. At most [`COPIES_MAX`] copies are under way in a process; what comes beyond is not made and
//! counted. A copy never has a copy. Of an answer [`ANSWER_BYTES_MAX`] bytes are read at most.

use crate::framing::BodyFraming;
use crate::method::Method;

/// LIMIT: copies under way at once.
pub const COPIES_MAX: usize = 64;
/// LIMIT: bytes read of the answer to a copy; at a longer one the connection is given up.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Whether a request is copied.
pub fn copies(method: Method, body: BodyFraming) -> bool {
    method == Method::Get && matches!(body, BodyFraming::None | BodyFraming::Length(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_nothing_is_copied() {
        for method in Method::ALL {
            assert_eq!(copies(method, BodyFraming::None), method == Method::Get, "{method}");
        }
        assert!(copies(Method::Get, BodyFraming::Length(0)));
        assert!(!copies(Method::Get, BodyFraming::Length(1)) && !copies(Method::Get, BodyFraming::Chunked));
    }
}
