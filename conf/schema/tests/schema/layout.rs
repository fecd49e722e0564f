//! The layout of a file: canonical, complete, and the same when laid out again.

use std::fs;

use expect_test::expect;
use proptest::prelude::*;
use sluice_schema::{Document, fmt};

use crate::conf;

fn laid_out(text: &str) -> String {
    fmt(&Document::new("sluice.toml", text)).unwrap_or_else(|report| panic!("{text}\n{report}"))
}

fn meaning(text: &str) -> String {
    // By its text, because a number that is none equals nothing.
    format!("{:?}", toml::from_str::<toml::Table>(text).unwrap_or_else(|error| panic!("{text}\n{error}")))
}

#[test]
fn spacing_becomes_one_and_everything_else_stays() {
    let text = "\n\n#   about the edge\n  [ edge ]   # the gate\n\n   listen='127.0.0.1:1'# here\n\n\n\n\tthreads   =  2\n\
        trusted_proxies=[ \"10.0.0.1\",'10.0.0.2' , ]\n[edge . limits]\nbody_bytes = \"1MiB\"\n#the rest\n\n# a service\n\
        [[ service ]]\r\n\"name\"   = \"data\"\r\ntimeouts={connect=\"1s\",total = \"2s\" }\n\
        methods = [ # why\n  \"GET\" # reads\n , \"POST\",# writes\n\n\n # more\n\n ]\nhosts = [\n]\n\
        retry . attempts = 1\nhealth = {\n path = \"/h\", # here\n   }\nx = [ [1,2], [\n3 ] ]\nm = \"\"\"\n  kept \n\"\"\"  \n# end   ";
    expect![[r#"
        #   about the edge
        [edge]  # the gate
        listen = '127.0.0.1:1'  # here

        threads = 2
        trusted_proxies = ["10.0.0.1", '10.0.0.2']

        [edge.limits]
        body_bytes = "1MiB"
        #the rest

        # a service
        [[service]]
        "name" = "data"
        timeouts = { connect = "1s", total = "2s" }
        methods = [
            # why
            "GET",  # reads
            "POST",  # writes

            # more
        ]
        hosts = []
        retry.attempts = 1
        health = {
            path = "/h",  # here
        }
        x = [[1, 2], [
            3,
        ]]
        m = """
          kept 
        """
        # end
    "#]]
    .assert_eq(&laid_out(text));
}

#[test]
fn nothing_stays_nothing_and_what_is_no_toml_is_refused_with_its_place() {
    for text in ["", "\n", " \n\t\n"] {
        assert_eq!(laid_out(text), "");
    }
    let report = fmt(&Document::new("a.toml", "ok = 1\nsecret = hunter2\n")).expect_err("no TOML");
    let finding = &report.findings()[0];
    assert_eq!((finding.code, finding.line), ("E0003", Some(2)));
    assert!(!report.to_string().contains("hunter2"), "{report}");
}

#[test]
fn every_file_of_the_repository_keeps_its_meaning() {
    let mut files = vec![conf().join("sluice.toml")];
    for folder in ["services.d", "examples", "bad"] {
        let entries = fs::read_dir(conf().join(folder)).expect("the folder");
        files.extend(entries.map(|entry| entry.expect("a readable entry").path()));
    }
    let mut count = 0;
    for path in files.iter().filter(|path| path.extension().is_some_and(|word| word == "toml")) {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let Ok(once) = fmt(&Document::new(path, &text)) else { continue };
        assert_eq!(meaning(&once), meaning(&text), "{}", path.display());
        assert_eq!(laid_out(&once), once, "{}", path.display());
        count += 1;
        if !path.starts_with(conf().join("bad")) {
            assert_eq!(once, text, "{} is not in its canonical layout", path.display());
        }
    }
    assert!(count > 40, "{count}");
}

/// White space between two words of one line.
fn gap() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", " ", "   ", "\t"])
}

/// Where a line may end.
fn end() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["\n", "\r\n", " # c\n", "#\n", "\n\n\n", "\n  # own\n", "\n\n# own  \n\n"])
        .prop_map(str::to_owned)
}

/// Where a line may end, and mostly does not.
fn between() -> impl Strategy<Value = String> {
    prop_oneof![4 => gap().prop_map(str::to_owned), 1 => end()]
}

fn scalar() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "1",
        "1.5e3",
        "true",
        "\"a # b\"",
        "'[x'",
        "\"\"\"\n a = 1\n # no\n\"\"\"",
        "'''x\r\n\ty'''",
        "nan",
        "1979-05-27 07:32:00",
        "\"\"",
    ])
    .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        let items = prop::collection::vec((between(), inner, between()), 0..4);
        (items, between(), any::<bool>(), any::<bool>()).prop_map(|(items, tail, table, comma)| {
            let named = items.iter().enumerate().map(|(at, (before, item, after))| {
                if table { format!("{before}k{at}={item}{after}") } else { format!("{before}{item}{after}") }
            });
            let mut text = named.collect::<Vec<_>>().join(",");
            if comma && !items.is_empty() {
                text.push(',');
            }
            if table { format!("{{{text}{tail}}}") } else { format!("[{text}{tail}]") }
        })
    })
}

fn document() -> impl Strategy<Value = String> {
    let pair = (gap(), gap(), value(), end());
    let table = (prop::collection::vec(pair, 0..4), gap(), end(), any::<bool>(), any::<bool>());
    prop::collection::vec(table, 0..4).prop_map(|tables| {
        let mut text = String::new();
        for (at, (pairs, space, end, list, nested)) in tables.into_iter().enumerate() {
            let name = if nested { format!("t{at}{space}.{space}\"a b\"") } else { format!("t{at}") };
            let header = if list { format!("[[{space}{name}]]") } else { format!("[{name}{space}]") };
            text.push_str(&format!("{space}{header}{end}"));
            for (at, (before, after, value, end)) in pairs.iter().enumerate() {
                text.push_str(&format!("{before}k{at}{before}={after}{value}{end}"));
            }
        }
        text
    })
}

proptest! {
    #[test]
    fn layout_keeps_the_meaning_and_is_its_own_layout(text in document()) {
        prop_assume!(toml::from_str::<toml::Table>(&text).is_ok());
        let once = laid_out(&text);
        prop_assert_eq!(meaning(&once), meaning(&text), "{}\n---\n{}", text, once);
        prop_assert_eq!(laid_out(&once), once.clone(), "{}", text);
        let comments = |text: &str| text.matches("own").count() + text.matches("# c").count();
        prop_assert_eq!(comments(&once), comments(&text), "{}\n---\n{}", text, once);
    }

    #[test]
    fn no_text_is_too_odd(text in "(?s)[\\[\\]{}=.,#'\"a1 \n\r\t\\\\]{0,60}") {
        if let Ok(once) = fmt(&Document::new("sluice.toml", &text)) {
            prop_assert_eq!(laid_out(&once), once);
        }
    }
}
