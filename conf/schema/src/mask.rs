//! Hides secrets in text that is about to be quoted.
//!
//! It works on the raw text, not on the parsed tree, because a line is quoted also when it cannot be
//! parsed. Bytes are replaced one for one, so columns stay.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Parts of names that smell of a secret, as patterns.
const SMELLS: &str =
    "secret|passw|token|sha256|api[_-]?key|private[_-]?key|vault[_-]key|authorization|credential|cookie";

static SECRET_NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!("(?i){SMELLS}")).expect("a constant pattern"));

/// `name =` where the name smells of a secret; quotes around the name are allowed.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = format!(r#"(?i)[\w.-]*(?:{SMELLS})[\w.-]*["']?[ \t]*="#);
    Regex::new(&pattern).expect("a constant pattern")
});

/// `://user:password@`.
static USER_INFO: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"://[^/@\s"']+@"#).expect("a constant pattern"));

/// A private key written where only its file is named; escapes may stand in place of line ends.
static PRIVATE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END|\z)").expect("a constant pattern")
});

/// What stands behind the host of an address.
static BEHIND_HOST: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"https?://[^/\s"']+/([^\s"']+)"#).expect("a constant pattern"));

/// Keys of the file whose name smells of a secret and whose value is none.
const HARMLESS: [&str; 3] = ["token_ttl", "vault.token_ttl", "plain_secrets"];

/// Numbers that are named after what they bound, in a table of their own.
const QUOTAS: [&str; 4] = ["tokens", "vault_tokens", "secrets", "secret_bytes"];

/// True where what a name holds should not be shown.
pub(crate) fn names_a_secret(name: &str) -> bool {
    SECRET_NAME.is_match(name)
}

/// `text` with every secret replaced by `*`, byte for byte.
pub(crate) fn mask(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for found in ASSIGNMENT.find_iter(text) {
        let name = found.as_str().trim_end_matches([' ', '\t', '=', '"', '\'']);
        if !HARMLESS.contains(&name) && !is_quota(text, found.start(), name) {
            hide(&mut bytes[value_after(text, found.end())]);
        }
    }
    for found in USER_INFO.find_iter(text) {
        hide(&mut bytes[found.start() + 3..found.end() - 1]);
    }
    for found in PRIVATE_KEY.find_iter(text) {
        hide(&mut bytes[found.range()]);
    }
    for part in targets(text) {
        for found in BEHIND_HOST.captures_iter(&text[part.clone()]).filter_map(|found| found.get(1)) {
            hide(&mut bytes[part.start + found.start()..part.start + found.end()]);
        }
    }
    String::from_utf8(bytes).expect("whole characters were replaced by ASCII")
}

/// Whether the name at a place is a key of `[vault.quota]`: below its header, or with the table before it.
fn is_quota(text: &str, at: usize, name: &str) -> bool {
    let (table, key) = name.rsplit_once('.').unwrap_or(("", name));
    if !QUOTAS.contains(&key) {
        return false;
    }
    let header = || text[..at].lines().rev().map(str::trim).find(|line| line.starts_with('['));
    match table {
        "vault.quota" => true,
        "quota" => header() == Some("[vault]"),
        "" => header() == Some("[vault.quota]"),
        _ => false,
    }
}

/// The lines that may belong to targets of alerts, whose addresses are secrets: from `[[notify]]` or `notify =` to
/// the next table. Lines of other keys behind a list are among them; that hides too much, never too little.
fn targets(text: &str) -> Vec<Range<usize>> {
    let (mut parts, mut at, mut inside) = (Vec::new(), 0, false);
    for line in text.split_inclusive('\n') {
        let head = line.trim_start();
        if head.starts_with('[') || !inside {
            inside = head.trim_start_matches(['[', ' ', '\t', '"', '\'']).starts_with("notify");
        }
        if inside {
            parts.push(at..at + line.len());
        }
        at += line.len();
    }
    parts
}

/// Line ends stay, so that what follows keeps its line.
fn hide(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b'*');
}

/// The secret part of the value that starts at `from`: inside its quotes, else to the end of the line.
/// A reference (`env:`, `file:`) is no secret.
fn value_after(text: &str, from: usize) -> Range<usize> {
    let rest = &text[from..];
    let start = from + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
    let value = &text[start..];
    for quote in ["\"\"\"", "'''"] {
        if let Some(body) = value.strip_prefix(quote) {
            let end = body.find(quote).unwrap_or(body.len());
            return start + 3..start + 3 + end;
        }
    }
    let line = value.find('\n').unwrap_or(value.len());
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return start..start + line;
    };
    let body = &value[1..line.max(1)];
    if body.starts_with("env:") || body.starts_with("file:") {
        return start..start;
    }
    start + 1..start + 1 + closing_quote(body, quote)
}

/// Where the string ends; the whole line when it does not.
fn closing_quote(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote == '"' {
            escaped = true;
        } else if c == quote {
            return at;
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn values_of_secret_keys_are_hidden() {
        let cases = [
            (r#"hs256_secret = "abc""#, r#"hs256_secret = "***""#),
            (r#"hs256_secret = "a\"bc" # x"#, r#"hs256_secret = "*****" # x"#),
            (
                r#"x = { Authorization = "Bearer z", b = "c" }"#,
                r#"x = { Authorization = "********", b = "c" }"#,
            ),
            (r#"set = { "x-api-key" = 'k' }"#, r#"set = { "x-api-key" = '*' }"#),
            ("password = unquoted\nnext = 1", "password = ********\nnext = 1"),
            ("jwt_secret_key = \"\"\"\nline\n\"\"\"", "jwt_secret_key = \"\"\"\n****\n\"\"\""),
            (
                r#"key = "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----""#,
                r#"key = "****************************************** PRIVATE KEY-----""#,
            ),
            ("[vault.quota]\n[x]\ntokens = 17", "[vault.quota]\n[x]\ntokens = **"),
            ("[vault.quota]\ntoken = 17", "[vault.quota]\ntoken = **"),
            ("quota.tokens = 17", "quota.tokens = **"),
            (r#"secret = "never closed"#, r#"secret = "************"#),
            (r#"url = "http://me:pw@host""#, r#"url = "http://*****@host""#),
            (
                "[[notify]]\nurl = \"https://hooks.example/T0/B1\"\n[x]\nurl = \"http://a/b\"",
                "[[notify]]\nurl = \"https://hooks.example/*****\"\n[x]\nurl = \"http://a/b\"",
            ),
            (
                r#"notify = [{ kind = "slak", url = "https://hooks.example/T0" }]"#,
                r#"notify = [{ kind = "slak", url = "https://hooks.example/**" }]"#,
            ),
        ];
        for (text, want) in cases {
            assert_eq!(mask(text), want);
        }
    }

    #[test]
    fn references_and_harmless_keys_stay() {
        for text in [
            r#"hs256_secret = "env:NAME""#,
            r#"hs256_secret = "file:/run/key""#,
            r#"token_ttl = "1h""#,
            "[vault.quota]\n# how many\ntokens = 0\nvault_tokens = 1\nsecrets = 2\nsecret_bytes = \"a lot\"",
            "vault.quota.tokens = -1",
            "[vault]\nquota.secret_bytes = 7",
            r#"listen = "127.0.0.1:1""#,
        ] {
            assert_eq!(mask(text), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn length_and_lines_never_change(text in "(?s).{0,80}(secret = \"{0,3}|://a@|-----BEGIN PRIVATE KEY-----)?.{0,40}") {
            let masked = mask(&text);
            proptest::prop_assert_eq!(masked.len(), text.len());
            let ends = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
            proptest::prop_assert_eq!(ends(&masked), ends(&text));
        }
    }
}
