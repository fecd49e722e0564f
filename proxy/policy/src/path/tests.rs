use super::*;
use proptest::prelude::*;

fn path_of(target: &[u8]) -> Option<String> {
    normalise(target).ok().map(|normalised| normalised.path().to_owned())
}

fn path(target: &str) -> Result<String, PathFault> {
    normalise(target.as_bytes()).map(|normalised| normalised.path().to_owned())
}

#[test]
fn canonical_paths_are_borrowed_as_they_are() {
    for same in [
        "/",
        "/api/data",
        "/api/data/",
        "/.well-known/x",
        "/a/...",
        "/a/..b",
        "/a.b/c:d@e,f=g",
        "/~u/!$&'()*+",
    ] {
        let normalised = normalise(same.as_bytes()).unwrap();
        assert_eq!(normalised.path(), same);
        assert!(!normalised.is_rewritten(), "{same}");
    }
}

#[test]
fn dot_segments_and_slashes_are_resolved_once() {
    for (sent, one_form) in [
        ("//", "/"),
        ("/a//b///c", "/a/b/c"),
        ("/a/./b/.", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a//../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/%2e/b", "/a/b"),
        ("/%61pi/%64ata", "/api/data"),
        ("/a%7Eb%2Dc", "/a~b-c"),
        ("/a/%252e%252e/b", "/a/%252e%252e/b"),
        ("/a%3ab", "/a%3Ab"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a[0]|{x}", "/a%5B0%5D%7C%7Bx%7D"),
        ("/a;v=1.2/b", "/a;v=1.2/b"),
        ("/a%20b", "/a%20b"),
    ] {
        assert_eq!(path(sent), Ok(one_form.to_owned()), "{sent}");
    }
}

#[test]
fn every_trick_is_refused_with_its_reason() {
    for (sent, fault) in [
        (&b""[..], PathFault::NotOriginForm),
        (b"*", PathFault::NotOriginForm),
        (b"a/b", PathFault::NotOriginForm),
        (b"?x", PathFault::NotOriginForm),
        (b"http://h/x", PathFault::NotOriginForm),
        (b"/a%2fb", PathFault::EncodedSlash),
        (b"/a%2Fb", PathFault::EncodedSlash),
        (b"/a%5cb", PathFault::EncodedBackslash),
        (b"/a%00b", PathFault::EncodedNul),
        (b"/a%0d%0aX", PathFault::EncodedControl),
        (b"/a%7f", PathFault::EncodedControl),
        (b"/a\\b", PathFault::Backslash),
        (b"/a b", PathFault::Space),
        (b"/a#b", PathFault::Fragment),
        (b"/a\tb", PathFault::Control),
        (b"/a\x00b", PathFault::Control),
        (b"/a\x7fb", PathFault::Control),
        (b"/a\xc3\xa9", PathFault::EightBit),
        (b"/a%", PathFault::Percent),
        (b"/a%2", PathFault::Percent),
        (b"/a%zz", PathFault::Percent),
        (b"/a%+1", PathFault::Percent),
        (b"/%c0%af", PathFault::NotUtf8),
        (b"/%e0%80%ae", PathFault::NotUtf8),
        (b"/%c3x%a9", PathFault::NotUtf8),
        (b"/..", PathFault::AboveRoot),
        (b"/a/../..", PathFault::AboveRoot),
        (b"/%2e%2e/x", PathFault::AboveRoot),
        (b"/.%2e/x", PathFault::AboveRoot),
        (b"//../x", PathFault::AboveRoot),
        (b"/a/..;/b", PathFault::DotParameter),
        (b"/a/.;x/b", PathFault::DotParameter),
        (b"/a/%2e%2e;x=1/b", PathFault::DotParameter),
        (b"/a/..%3b/b", PathFault::DotParameter),
        (b"/a/x;../b", PathFault::DotParameter),
        (b"/a?b#c", PathFault::Fragment),
        (b"/a?b c", PathFault::Space),
        (b"/a?b\\c", PathFault::Backslash),
        (b"/a?\xff", PathFault::EightBit),
        (b"/a?x\r", PathFault::Control),
    ] {
        assert_eq!(normalise(sent), Err(fault), "{}", sent.escape_ascii());
    }
}

#[test]
fn query_is_kept_apart_as_sent() {
    let normalised = normalise(b"/a/../b?x=%2f..&y=a?b").unwrap();
    assert_eq!((normalised.path(), normalised.query()), ("/b", Some("x=%2f..&y=a?b")));
    assert_eq!(normalised.target(), "/b?x=%2f..&y=a?b");
    assert_eq!(normalise(b"/a?").unwrap().query(), Some(""));
    assert_eq!(normalise(b"/a").unwrap().target(), "/a");
    assert_eq!(normalised.into_parts(), ("/b".to_owned(), Some("x=%2f..&y=a?b".to_owned())));
}

#[test]
fn absolute_form_yields_its_path() {
    assert_eq!(origin_form(b"/a?b"), Some(&b"/a?b"[..]));
    assert_eq!(origin_form(b"http://h:80/a?b"), Some(&b"/a?b"[..]));
    assert_eq!(origin_form(b"HTTPS://h"), Some(&b"/"[..]));
    for neither in [&b"http://h?x"[..], b"*", b"ftp://h/", b"http:/h", b""] {
        assert_eq!(origin_form(neither), None);
    }
}

/// The naive model: decode what may be decoded, then fold segments over a stack.
fn model(path: &str) -> Option<String> {
    let mut stack: Vec<String> = Vec::new();
    let mut trailing = false;
    for segment in path[1..].split('/') {
        let segment = segment.replace("%2e", ".").replace("%61", "a");
        trailing = true;
        match segment.as_str() {
            "" | "." => {}
            ".." => {
                stack.pop()?;
            }
            other => {
                trailing = false;
                stack.push(other.to_owned());
            }
        }
    }
    let slash = if trailing && !stack.is_empty() { "/" } else { "" };
    Some(format!("/{}{slash}", stack.join("/")))
}

/// The whole contract, naively: decode first, then judge, then fold, then write. `None` is a refusal.
fn naive(target: &[u8]) -> Option<String> {
    let path = target.split(|byte| *byte == b'?').next()?;
    let usual = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\');
    if path.first() != Some(&b'/') || !target.iter().all(usual) {
        return None;
    }
    let mut stack: Vec<String> = Vec::new();
    let mut slash = false;
    for segment in path[1..].split(|byte| *byte == b'/') {
        let bytes = decoded(segment)?;
        let text = String::from_utf8(bytes.iter().map(|(byte, _)| *byte).collect()).ok()?;
        slash = matches!(text.as_str(), "" | "." | "..");
        match text.split_once(';') {
            _ if text == ".." => drop(stack.pop()?),
            _ if slash => {}
            Some((before, _)) if text.contains("..") || (before == "." || before == "..") => return None,
            _ => stack.push(written(&bytes)),
        }
    }
    let end = if slash && !stack.is_empty() { "/" } else { "" };
    Some(format!("/{}{end}", stack.join("/")))
}

/// The bytes of a segment, and whether each was encoded.
fn decoded(segment: &[u8]) -> Option<Vec<(u8, bool)>> {
    let mut out = Vec::new();
    let mut rest = segment;
    while let Some((first, more)) = rest.split_first() {
        if *first != b'%' {
            out.push((*first, false));
            rest = more;
            continue;
        }
        let digits = more.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if byte.is_ascii_control() || matches!(byte, b'/' | b'\\') {
            return None;
        }
        out.push((byte, true));
        rest = &more[2..];
    }
    Some(out)
}

fn written(bytes: &[(u8, bool)]) -> String {
    let one = |(byte, encoded): &(u8, bool)| {
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        let odd = b"\"<>[]^`{|}".contains(byte);
        if unreserved || !(*encoded || odd) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }
    };
    bytes.iter().map(one).collect()
}

/// Pieces of which targets with every trick are made.
const PIECES: [&[u8]; 34] = [
    b"/", b"/", b"/", b"a", b"b", b".", b"..", b"%2e", b"%2E%2e", b"%2f", b"%5C", b"%00", b"%0a", b"%7f",
    b"%61", b"%7E", b"%20", b"%C3%A9", b"%c3", b"%c0%af", b"%", b"%zz", b"%252e", b";", b"%3b", b"..;", b"[",
    b"|", b":", b"\\", b" ", b"#", b"\xe9", b"?",
];

proptest! {
    #[test]
    fn agrees_with_the_naive_reading(
        picks in proptest::collection::vec((any::<bool>(), 0..PIECES.len()), 0..10), harmless in any::<bool>(),
    ) {
        // Half of the time only pieces that pass, or hardly any target would.
        let fine = |at: usize| !harmless || naive(&[b"/", PIECES[at]].concat()).is_some() || PIECES[at] == b"..";
        let pieces = picks.iter().filter(|(_, at)| fine(*at));
        let sent: Vec<u8> = pieces.fold(b"/".to_vec(), |mut sent, (slash, at)| {
            if *slash {
                sent.push(b'/');
            }
            sent.extend_from_slice(PIECES[*at]);
            sent
        });
        prop_assert_eq!(path_of(&sent), naive(&sent), "{}", sent.escape_ascii());
    }

    #[test]
    fn agrees_with_a_stack_of_segments(path_sent in "(/(\\.|\\.\\.|%2e|%2e%2e|a|%61b|c|)){1,8}") {
        prop_assert_eq!(path(&path_sent).ok(), model(&path_sent));
    }

    #[test]
    fn the_one_form_is_a_fixed_point_without_tricks(sent in "/[a-c./%2e5;\\[~:+ -]{0,24}") {
        if let Ok(one_form) = path(&sent) {
            let again = normalise(one_form.as_bytes()).unwrap();
            prop_assert_eq!(again.path(), one_form.as_str());
            prop_assert!(one_form.starts_with('/') && !one_form.contains("//") && !one_form.contains('\\'));
            prop_assert!(one_form.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(one_form.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
        }
    }

    #[test]
    fn any_bytes_are_refused_or_brought_into_form(sent in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(normalised) = normalise(&sent) {
            prop_assert!(normalised.path().is_ascii());
            prop_assert!(!normalised.path().to_ascii_lowercase().contains("%2f"));
        }
    }

    #[test]
    fn writing_a_letter_encoded_changes_nothing(letters in "[a-z]{1,8}", at in 0_usize..8) {
        let at = at % letters.len();
        let encoded = format!("/{}%{:02x}{}", &letters[..at], letters.as_bytes()[at], &letters[at + 1..]);
        prop_assert_eq!(path(&encoded).unwrap(), format!("/{letters}"));
    }
}
