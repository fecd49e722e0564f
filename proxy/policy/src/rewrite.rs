//! How the path of a request is written for its upstream.
//!
//! Purpose: an upstream that was made for other paths than the public ones.
//!
//! Exact conditions: what is rewritten is the path that would be forwarded, in its one form and without the prefix
//! where that is cut off; the query is not looked at. Every place the pattern matches is replaced. A result
//! without a leading slash gets one. The result is brought into the one form again
//! ([`crate::path::normalise`]), so dot segments that groups put together are resolved here or refused, and never
//! reach an upstream. Routing and authorization are over by then: they judged the path as it was asked for, and what
//! a rewrite makes of it is the operator's word, not the client's.
//!
//! Cost: patterns take time linear in the path, which `edge.limits.uri_bytes` bounds; a path that matches
//! allocates, one that does not is borrowed.

use std::borrow::Cow;

use regex::bytes::Regex;
use sluice_schema::{Piece, rewrite_pattern, rewrite_pieces};
use thiserror::Error;

use crate::path::{PathFault, normalise};

/// LIMIT: bytes of a rewritten path: groups may stand in a replacement many times.
pub const REWRITTEN_BYTES_MAX: usize = 16 << 10;

/// The rewrite of one service.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pattern: Regex,
    pieces: Vec<Piece>,
}

/// A path that cannot be forwarded as the rewrite makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It is too long.
    #[error("the rewritten path is longer than {REWRITTEN_BYTES_MAX} bytes")]
    Long,
    /// It is no path.
    #[error("the rewritten path is refused")]
    Path(#[from] PathFault),
}

impl Rewrite {
    /// The rewrite of a service; `None` where it has none. The configuration has checked that it compiles.
    pub fn new(conf: &sluice_schema::Rewrite) -> Option<Self> {
        if !conf.is_on() {
            return None;
        }
        let pattern = rewrite_pattern(&conf.pattern).ok()?;
        let pieces = rewrite_pieces(&conf.replace, &pattern).ok()?;
        Some(Self { pattern, pieces })
    }

    /// The path as the upstream gets it.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn apply<'a>(&self, path: &'a str) -> Result<Cow<'a, str>, Unfit> {
        let bytes = path.as_bytes();
        let (mut out, mut end) = (Vec::new(), 0);
        for captures in self.pattern.captures_iter(bytes) {
            let Some(whole) = captures.get(0) else { break };
            if out.is_empty() {
                out.reserve(bytes.len() + 16);
                out.push(b'/');
            }
            out.extend_from_slice(&bytes[end..whole.start()]);
            end = whole.end();
            for piece in &self.pieces {
                match piece {
                    Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                    Piece::Group(group) => {
                        out.extend_from_slice(
                            captures.get(*group).map_or(&b""[..], |found| found.as_bytes()),
                        );
                    }
                }
            }
            if out.len() > REWRITTEN_BYTES_MAX {
                return Err(Unfit::Long);
            }
        }
        if out.is_empty() {
            return Ok(Cow::Borrowed(path));
        }
        out.extend_from_slice(&bytes[end..]);
        // The slash put in front vanishes where there was one.
        let fitting = normalise(&out)?;
        if fitting.query().is_some() {
            return Err(Unfit::Path(PathFault::NotOriginForm));
        }
        if fitting.path().len() > REWRITTEN_BYTES_MAX {
            return Err(Unfit::Long);
        }
        Ok(Cow::Owned(fitting.path().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewrite(pattern: &str, replace: &str) -> Rewrite {
        Rewrite::new(&sluice_schema::Rewrite { pattern: pattern.to_owned(), replace: replace.to_owned() })
            .unwrap()
    }

    #[test]
    fn what_matches_is_replaced_and_the_rest_stays() {
        for (pattern, replace, path, result) in [
            ("^/v1/", "/v2/", "/v1/orders/7", "/v2/orders/7"),
            ("^/v1/(.*)$", "/$1/old", "/v1/a/b", "/a/b/old"),
            ("^/(?P<kind>[a-z]+)/(?P<id>[0-9]+)$", "/${id}/${kind}", "/bars/5", "/5/bars"),
            ("a", "b", "/a/a", "/b/b"),
            ("^/v1", "", "/v1", "/"),
            ("^/v1/", "", "/v1/x", "/x"),
            ("^/v1/", "/v2/", "/v3/x", "/v3/x"),
            ("^(/x)?(/y)?$", "/z$1$2", "/y", "/z/y"),
            ("/$", "/$$1", "/a/", "/a/$1"),
        ] {
            assert_eq!(rewrite(pattern, replace).apply(path).unwrap(), result, "{pattern} {replace} {path}");
        }
        let unchanged = rewrite("^/v1/", "/v2/");
        assert!(matches!(unchanged.apply("/v3"), Ok(Cow::Borrowed("/v3"))));
        assert!(Rewrite::new(&sluice_schema::Rewrite::default()).is_none());
    }

    #[test]
    fn what_comes_out_is_a_path_again() {
        assert_eq!(rewrite("^/a(.*)$", "/x/..$1").apply("/a/b").unwrap(), "/b");
        assert_eq!(rewrite("^/a(.*)$", "/..$1").apply("/a/b"), Err(Unfit::Path(PathFault::AboveRoot)));
        // Two halves of an encoded slash.
        assert_eq!(rewrite("x", "%").apply("/ax2fb"), Err(Unfit::Path(PathFault::EncodedSlash)));
        let doubled = rewrite("^(.*)$", &"$1".repeat(256));
        assert_eq!(doubled.apply(&format!("/{}", "a".repeat(200))), Err(Unfit::Long));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn results_are_fixed_points(path in "(/[a-z0-9.%]{0,6}){1,5}", replace in "[a-z/.$]{0,6}") {
            let Ok(normal) = normalise(path.as_bytes()) else { return Ok(()) };
            let conf = sluice_schema::Rewrite { pattern: "([a-c]+)/?".to_owned(), replace };
            let Some(rewrite) = Rewrite::new(&conf) else { return Ok(()) };
            if let Ok(result) = rewrite.apply(normal.path()) {
                let again = normalise(result.as_bytes()).unwrap();
                prop_assert_eq!(again.path(), &*result);
                prop_assert_eq!(again.query(), None);
            }
        }
    }
}
