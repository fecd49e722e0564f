//! Nothing an operator, or an attacker with a pen, writes makes the check fail other than by a report.

use std::path::Path;

use proptest::prelude::*;
use sluice_schema::{Document, Mode, check};

use crate::{Environment, check_text, service};

/// Words that a mutated file is likely to be nearly right with.
const WORDS: [&str; 24] = [
    "[edge]",
    "[[service]]",
    "[service]",
    "[[service.instance]]",
    "listen",
    "name",
    "prefix",
    "url",
    "=",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    "\n",
    ".",
    "1",
    "\"/api\"",
    "rate_limit",
    "timeouts",
    "hs256_secret",
    "\"\"\"",
    "\u{fc}",
];

proptest! {
    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        answer(&text);
    }

    #[test]
    fn arbitrary_words_are_answered(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..40)) {
        answer(&words.concat());
        answer(&words.join(" "));
    }

    #[test]
    fn a_right_file_with_bytes_changed_is_answered(
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 1..6),
    ) {
        let mut bytes = service("rate_limit = { requests = 5, hard = 9 }\nhosts = [\"a\"]").into_bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        answer(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn an_arbitrary_environment_is_answered(
        name in prop::sample::select(vec![
            "API_GATEWAY_PORT", "RECOVERY_TIMEOUT", "DATA_SERVICE_URL", "JWT_SECRET_KEY", "LOG_LEVEL",
            "SLUICE__EDGE__LISTEN", "SLUICE__EDGE__LIMITS__BODY_BYTES", "SLUICE__X", "SLUICE__",
        ]),
        text in any::<String>(),
    ) {
        let environment = Environment::from([(name.to_owned(), text)]);
        let documents = [Document::new("sluice.toml", service(""))];
        let no_files = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let result = check(&documents, &environment, Mode::default(), &no_files);
        if let Err(report) = result {
            prop_assert!(!report.to_string().is_empty());
        }
    }
}

/// Either a configuration or a report that can be shown in both forms.
fn answer(text: &str) {
    if let Err(report) = check_text(text) {
        assert!(report.errors() > 0);
        assert!(!report.to_string().is_empty());
        for finding in report.findings() {
            assert!(finding.column <= finding.end_column, "{finding:?}");
        }
    }
}

#[test]
fn deep_nesting_is_a_finding() {
    let text = format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(check_text(&text).is_err());
    let text = format!("{} = 1", vec!["a"; 10_000].join("."));
    assert!(check_text(&text).is_err());
}

#[test]
fn control_characters_in_a_value_do_not_reach_the_terminal() {
    let text = service("balance = \"\\u001b[31mred\\u0007\"");
    let report = check_text(&text).expect_err("no such word").to_string();
    assert!(!report.contains(['\u{1b}', '\u{7}']), "{report:?}");
    let report = check_text("x\u{1b}[31m = \u{7}1\n").expect_err("no TOML").to_string();
    assert!(!report.contains(['\u{1b}', '\u{7}']), "{report:?}");
}
