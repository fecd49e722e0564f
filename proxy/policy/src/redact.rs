//! What of a request an operator may see.
//!
//! Purpose: the tap shows live traffic, the access log keeps it. Neither must show a credential, whoever put it
//! where.
//!
//! Exact rules:
//! - Header fields: every name is shown, a value only where the name is on a short list of fields that
//!   never hold a credential by their meaning, and then only where the value does not look like one.
//! - Query, and parameters of a path's segment behind `;`: names are shown; a value is `***` where its name
//!   smells of a secret or the value looks like one.
//! - Path: a segment that looks like a credential, or has a part between `:`, `,` or `=` that does, is `***`.
//! - A text looks like a credential when it is a JSON web token (three to five parts, the first one of base64url
//!   and beginning with `ey`), or has one of the prefixes that token issuers use, and it is long enough for one.
//!   In a target it does so too when it looks made by chance: 24 or more characters in both cases, or 32 in one,
//!   with letters and digits in one run of 20 (12 where that has both cases), and no UUID.
//! - The access log ([`path()`]) goes by the first two of these alone: what looks made by chance is more often
//!   the id of an order than a secret, and the log is where it is looked for.
//!
//! What wins: hiding. Limits: texts for the tap are cut at [`TEXT_BYTES_MAX`]. Cost: allocates; asked only while
//! somebody looks, but for [`path()`], which allocates where it hides something.

use std::borrow::Cow;

use sluice_wire::problem::without_secret;

/// What stands for a hidden text.
pub const HIDDEN: &str = "***";
/// LIMIT: bytes of one text that is shown.
pub const TEXT_BYTES_MAX: usize = 512;

/// Header fields whose values are shown.
const SHOWN: [&str; 25] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "grpc-status",
    "host",
    "range",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "te",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "x-request-id",
];

/// Parts of names whose values are hidden.
const SMELLS: [&str; 18] = [
    "token",
    "secret",
    "pass",
    "access",
    "bearer",
    "pwd",
    "key",
    "auth",
    "cred",
    "cookie",
    "session",
    "sig",
    "jwt",
    "code",
    "assertion",
    "otp",
    "pin",
    "nonce",
];

/// Anything shorter is no credential.
const CREDENTIAL_BYTES_MIN: usize = 20;

/// What issuers begin their tokens with.
const PREFIXES: [&str; 9] = ["hvs.", "hvb.", "s.", "ghp_", "github_pat_", "xoxb-", "sk-", "sk_live_", "AKIA"];

/// The value of a header field as it may be shown; `None` hides it. `name` is lower case.
pub fn field<'a>(name: &str, value: &'a str) -> Option<Cow<'a, str>> {
    let shown = SHOWN.contains(&name) && !value.split([' ', ',', ';', '=', '"']).any(is_credential);
    shown.then(|| cut(value))
}

/// A path and its query as they may be shown.
pub fn target(path: &str, query: Option<&str>) -> String {
    let mut shown = String::with_capacity(path.len().min(TEXT_BYTES_MAX) + 16);
    let path = without_secret(path);
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            shown.push('/');
        }
        shown.push_str(&shown_segment(segment));
    }
    if let Some(query) = query {
        shown.push('?');
        for (at, pair) in query.split('&').enumerate() {
            if at > 0 {
                shown.push('&');
            }
            parameter(&mut shown, pair);
        }
    }
    match cut(&shown) {
        Cow::Borrowed(_) => shown,
        Cow::Owned(shorter) => shorter,
    }
}

/// A path as the access log may keep it.
pub fn path(path: &str) -> Cow<'_, str> {
    if let hidden @ Cow::Owned(_) = without_secret(path) {
        return hidden;
    }
    let hides = |segment: &str| parts(segment).any(is_credential);
    if path.len() < CREDENTIAL_BYTES_MIN || !path.split('/').any(hides) {
        return Cow::Borrowed(path);
    }
    let shown: Vec<&str> =
        path.split('/').map(|segment| if hides(segment) { HIDDEN } else { segment }).collect();
    Cow::Owned(shown.join("/"))
}

fn shown_segment(segment: &str) -> Cow<'_, str> {
    let mut parameters = segment.split(';');
    let name = parameters.next().unwrap_or_default();
    let name = if is_secret(name) { HIDDEN } else { name };
    if !segment.contains(';') {
        return Cow::Borrowed(name);
    }
    let mut shown = name.to_owned();
    for pair in parameters {
        shown.push(';');
        parameter(&mut shown, pair);
    }
    Cow::Owned(shown)
}

fn parameter(shown: &mut String, pair: &str) {
    let Some((name, value)) = pair.split_once('=') else {
        // A word without a value may be the secret itself.
        shown.push_str(if is_secret(pair) || pair.len() > 64 { HIDDEN } else { pair });
        return;
    };
    shown.push_str(if is_secret(name) { HIDDEN } else { name });
    shown.push('=');
    // A name that is written in triplets hides what it is called.
    let hides = is_secret_name(name) || name.contains('%') || is_secret(value);
    shown.push_str(if hides { HIDDEN } else { value });
}

/// Whether what a name holds is hidden.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SMELLS.iter().any(|smell| name.contains(smell))
}

/// Whether a text of a target, or a part of it, looks like a credential or as if it were made by chance.
fn is_secret(text: &str) -> bool {
    parts(text).any(|part| is_credential(part) || is_by_chance(part))
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split([':', ',', ';', '=', ' ', '+'])
}

/// Whether a text looks like a credential.
pub fn is_credential(text: &str) -> bool {
    if text.len() < CREDENTIAL_BYTES_MIN {
        return false;
    }
    let is_base64 = |part: &str| {
        part.len() >= 10
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let token = text.starts_with("ey")
        && (3..=5).contains(&text.split('.').count())
        && text.split('.').next().is_some_and(is_base64);
    token || PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// Whether a text looks as if it were made by chance: an opaque token, or an id that might be one.
fn is_by_chance(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if text.len() < 24 || !plain || is_uuid(text) {
        return false;
    }
    let both_cases = |run: &str| {
        run.bytes().any(|byte| byte.is_ascii_lowercase()) && run.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let mixes = |run: &str| {
        let least = if both_cases(run) { 12 } else { 20 };
        run.len() >= least
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    (both_cases(text) || text.len() >= 32) && text.split(['-', '_']).any(mixes)
}

fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= TEXT_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";

    #[test]
    fn credentials_are_hidden_wherever_they_stand() {
        for name in ["authorization", "cookie", "set-cookie", "x-api-key", "x-vault-token", "x-anything"] {
            assert_eq!(field(name, "Bearer x"), None, "{name}");
        }
        assert_eq!(field("user-agent", "curl/8").as_deref(), Some("curl/8"));
        assert_eq!(field("user-agent", &format!("curl {JWT}")), None);
        assert_eq!(field("accept", &format!("text/plain;token={JWT}")), None);
        assert_eq!(target(&format!("/tokens/{JWT}/x"), None), "/tokens/***/x");
        assert_eq!(
            target("/a", Some(&format!("symbol=BTC&access_token=x&q={JWT}&{JWT}&k=hvs.{}", "a".repeat(20)))),
            "/a?symbol=BTC&access_token=***&q=***&***&k=***"
        );
        assert_eq!(target("/a", Some("acc%65ss_tok%65n=hidden")), "/a?acc%65ss_tok%65n=***");
        assert_eq!(target("/v1.2.3/eye.d.o", Some("limit=5")), "/v1.2.3/eye.d.o?limit=5");
        let encrypted = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aXY.Y2lwaGVy.dGFn";
        assert_eq!(target(&format!("/a/{encrypted}"), None), "/a/***", "without a second part");
        assert_eq!(target("/a/x;jsessionid=CANARY;v=1", None), "/a/x;jsessionid=***;v=1");
        assert_eq!(target("/a", Some("bearer=CANARY&access=CANARY")), "/a?bearer=***&access=***");
    }

    #[test]
    fn what_looks_made_by_chance_is_hidden_from_viewers_alone() {
        let hexadecimal = "756bd58ad9ecabbda51c3257ff77ca4150ffeb94dfe52bc3c86d5ce2c12cce6f";
        for opaque in [
            hexadecimal,
            "bot123456789:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc",
            "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
            "AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc",
            "XXqXXXX1XXXXXXaXXXXXXXXX",
        ] {
            assert_eq!(target(&format!("/hooks/{opaque}/x"), None), "/hooks/***/x", "{opaque}");
            assert_eq!(target("/a", Some(&format!("x={opaque}"))), "/a?x=***", "{opaque}");
            assert_eq!(path(&format!("/hooks/{opaque}/x")), format!("/hooks/{opaque}/x"));
        }
        for plain in [
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "BINANCE:BTCUSDT-PERP-2026-12-25-CALL",
            "mean-reversion-strategy-of-2026-second-half",
            "12345678901234567890123456789012",
        ] {
            assert_eq!(target(&format!("/orders/{plain}"), None), format!("/orders/{plain}"));
        }
    }

    #[test]
    fn the_access_log_keeps_no_token() {
        assert_eq!(path(&format!("/tokens/{JWT}/x")), "/tokens/***/x");
        assert_eq!(path(&format!("/a;t={JWT}/hvs.{}", "a".repeat(20))), "/***/***");
        assert!(matches!(path("/api/data/market/BTC/USDT/1m/candles"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_secret_path_of_falco_is_hidden_from_everybody() {
        for secret in ["short", "a-path-that-nobody-guesses-0123456789", "a/b"] {
            let asked = format!("/falco/alerts/{secret}");
            assert_eq!(path(&asked), "/falco/alerts/***");
            assert_eq!(target(&asked, None), "/falco/alerts/***");
        }
        for open in ["/falco/alerts", "/falco/alerts/", "/falco/quarantine/x", "/x/falco/alerts/y"] {
            assert_eq!((path(open).as_ref(), target(open, None).as_str()), (open, open));
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let shown = target(&format!("/{}", "x".repeat(9000)), None);
        assert!(shown.len() < TEXT_BYTES_MAX + 8 && shown.ends_with('…'));
        assert!(field("user-agent", &"é".repeat(900)).unwrap().len() < TEXT_BYTES_MAX + 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_value_of_a_secret_name_survives(
            before in "[a-z]{0,8}", smell in 0_usize..SMELLS.len(), after in "[a-z_-]{0,8}", other in "[a-z0-9=&]{0,30}",
        ) {
            let name = format!("{before}{}{after}", SMELLS[smell]);
            let query = format!("{other}&{}=CANARY", name.to_ascii_uppercase());
            prop_assert!(!target("/x", Some(&query)).contains("CANARY"));
            prop_assert!(field(&name, "CANARY").is_none());
        }
    }
}
