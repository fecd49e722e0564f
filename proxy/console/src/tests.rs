//! The files agree with each other, with the policy and with their bounds.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::*;

/// Uncompressed, so that no compressor is needed to check it: text of this kind deflates to a third or less,
/// which keeps the page under its 120 kB on the wire.
const BYTES_MAX: usize = 300_000;
const CHART_LINES_MAX: usize = 400;
/// The one address that is a name, not a place: an SVG outside HTML is none without it.
const SVG_NAMESPACE: &str = "http://www.w3.org/2000/svg";

fn text_of(path: &str) -> &'static str {
    std::str::from_utf8(asset(path).expect(path).bytes).expect(path)
}

fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path)
}

/// What stands between `open` and the next `close`, at each occurrence.
fn quoted<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

/// `../dom.js` seen from `views/strip.js` is `dom.js`.
fn resolve(from: &str, to: &str) -> String {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(to).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{to} leaves the folder"),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path.to_str().unwrap().to_owned()
}

/// What a file loads: imports of a script, links and scripts of the page.
fn references(path: &str) -> Vec<String> {
    let text = text_of(path);
    if asset(path).expect(path).content_type == HTML {
        let places = quoted(text, "src=\"", '"').chain(quoted(text, "href=\"", '"'));
        return places.filter_map(|place| place.strip_prefix("/dashboard/")).map(str::to_owned).collect();
    }
    quoted(text, " from \"", '"').chain(quoted(text, "import(\"", '"')).map(|to| resolve(path, to)).collect()
}

#[test]
fn every_file_that_is_loaded_is_embedded() {
    for path in paths() {
        for wanted in references(path) {
            assert!(asset(&wanted).is_some(), "{path} loads {wanted}");
        }
    }
}

#[test]
fn every_embedded_file_is_loaded() {
    let mut reached = BTreeSet::from(["index.html".to_owned()]);
    let mut open = vec!["index.html".to_owned()];
    while let Some(path) = open.pop() {
        for next in references(&path) {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    assert_eq!(reached, paths().map(str::to_owned).collect());
}

#[test]
fn every_file_of_the_folder_is_embedded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["", "views"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_file() && name != "Cargo.toml" {
                assert!(asset(&name).is_some(), "{name} is not in the table");
            }
        }
    }
}

#[test]
fn nothing_points_to_another_host() {
    for path in paths() {
        let text = text_of(path).replace(SVG_NAMESPACE, "");
        for needle in ["http://", "https://", "ws://", "wss://", "\"//", "'//", "`//", "=//", "(//"] {
            assert!(!text.contains(needle), "{path} contains {needle}");
        }
    }
}

#[test]
fn nothing_needs_a_weaker_policy() {
    let page = text_of("index.html");
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("<script type=\"module\" src=\"/dashboard/app.js\"></script>"));
    for needle in [" style=\"", "<style", " onclick=", " onload=", "javascript:"] {
        assert!(!page.contains(needle), "index.html contains {needle}");
    }
    for (path, _) in FILES.iter().filter(|(_, asset)| asset.content_type == SCRIPT) {
        for needle in
            ["innerHTML =", "outerHTML =", "insertAdjacentHTML", "eval(", "new Function", "localStorage"]
        {
            assert!(!text_of(path).contains(needle), "{path} contains {needle}");
        }
    }
}

#[test]
fn the_page_states_the_policy_the_port_sends() {
    let page = quoted(text_of("index.html"), "Content-Security-Policy\" content=\"", '"').next().unwrap();
    let own = CONTENT_SECURITY_POLICY.strip_suffix("; frame-ancestors 'none'").unwrap();
    assert_eq!(page, own);
}

#[test]
fn the_page_is_small() {
    let total: usize = FILES.iter().map(|(_, asset)| asset.bytes.len()).sum();
    assert!(total <= BYTES_MAX, "{total} bytes");
}

#[test]
fn the_chart_is_short() {
    let lines = text_of("chart.js").lines().count();
    assert!(lines <= CHART_LINES_MAX, "{lines} lines");
}

#[test]
fn etags_are_quoted_and_tell_files_apart() {
    let tags: BTreeSet<_> = FILES.iter().map(|(_, asset)| asset.etag).collect();
    assert_eq!(tags.len(), FILES.len());
    for etag in tags {
        assert!(etag.len() == 18 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    }
    // FNV-1a of "a", from the published test vectors.
    assert_eq!(&tag(b"a"), b"\"af63dc4c8601ec8c\"");
}

#[test]
fn only_names_of_the_table_are_answered() {
    assert_eq!(asset("index.html").unwrap().content_type, HTML);
    assert_eq!(asset("views/strip.js").unwrap().content_type, SCRIPT);
    for path in [
        "",
        "/index.html",
        "../Cargo.toml",
        "views/../app.js",
        "views",
        "fixtures/snapshot.json",
        "src/lib.rs",
    ] {
        assert_eq!(asset(path), None, "{path}");
    }
}
