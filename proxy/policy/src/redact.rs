//! What of a request an operator may see.
//!
//! Purpose: the tap shows live traffic. It must never show a credential, whoever put it where.
//!
//! Exact rules:
//! - Header fields: every name is shown, a value only where the name is on a short list of fields that
//!   never hold a credential by their meaning, and then only where the value does not look like one.
//! - Query: names are shown; a value is `***` where its name smells of a secret or the value looks like one.
//! - Path: a segment that looks like a credential is `***`.
//! - A text looks like a credential when it is a JSON web token (three parts of base64url, the first one
//!   beginning with `ey`), or has one of the prefixes that token issuers use, and it is long enough for one.
//!
//! What wins: hiding. Limits: texts are cut at [`TEXT_BYTES_MAX`]. Cost: allocates; asked only while
//! somebody looks.

use std::borrow::Cow;

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
const SMELLS: [&str; 16] = [
    "token",
    "secret",
    "passw",
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
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            shown.push('/');
        }
        shown.push_str(if is_credential(segment) { HIDDEN } else { segment });
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

fn parameter(shown: &mut String, pair: &str) {
    let Some((name, value)) = pair.split_once('=') else {
        // A word without a value may be the secret itself.
        shown.push_str(if is_credential(pair) || pair.len() > 64 { HIDDEN } else { pair });
        return;
    };
    shown.push_str(if is_credential(name) { HIDDEN } else { name });
    shown.push('=');
    // A name that is written in triplets hides what it is called.
    let hides = is_secret_name(name) || name.contains('%') || value.split([',', ' ', '+']).any(is_credential);
    shown.push_str(if hides { HIDDEN } else { value });
}

/// Whether what a name holds is hidden.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SMELLS.iter().any(|smell| name.contains(smell))
}

/// Whether a text looks like a credential.
pub fn is_credential(text: &str) -> bool {
    let is_base64 = |part: &str| {
        part.len() >= 4
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let parts = text.split('.').count();
    let token = (3..=5).contains(&parts) && text.starts_with("ey") && text.split('.').take(2).all(is_base64);
    token || (text.len() >= 20 && PREFIXES.iter().any(|prefix| text.starts_with(prefix)))
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
