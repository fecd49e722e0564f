//! Requests with a few bytes changed at random: the edge refuses them, or forwards exactly what two other
//! readers take them for, the strict one of these tests and `httparse`.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::origin::{Arrived, Origin, echo};
use super::strict::{Request, read_all};
use super::wire::{Missing, Wire};
use crate::harness::{Edge, Setup, find, service};

const TEMPLATES: [&str; 5] = [
    "GET /api/a/b?c=d&e HTTP/1.1\r\nHost: edge\r\nX-M1: one\r\nAccept: */*\r\nX-M2: two, three\r\n\r\n",
    "POST /api/p HTTP/1.1\r\nHost: edge\r\nContent-Length: 11\r\nX-M1: one\r\n\r\nhello world",
    "POST /api/c HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\nX-M1: one\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: x\r\n\r\n",
    "PUT http://edge/api/./x/../%41?q HTTP/1.1\r\nHost: edge\r\nContent-Length: 3\r\nX-M1: one\r\nX-M1: two\r\n\r\nabc",
    "GET /api/1 HTTP/1.1\r\nHost: edge\r\n\r\nPOST /api/2 HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n\r\nok",
];
const BYTES: &[u8] = b"\r\n\0 \t:;,%/\\.?#0159afFxX+-_\"\x7f\x80\xff\x0b";

#[derive(Clone, Debug)]
enum Edit {
    Replace(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    /// Repeats so many bytes from here.
    Repeat(usize, usize),
    /// Repeats this line.
    RepeatLine(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = 0_usize..400;
    let byte = prop_oneof![4 => proptest::sample::select(BYTES), 1 => any::<u8>()];
    prop_oneof![
        (at.clone(), byte.clone()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (at.clone(), byte).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        at.clone().prop_map(Edit::Remove),
        (at.clone(), 1_usize..12).prop_map(|(at, count)| Edit::Repeat(at, count)),
        at.prop_map(Edit::RepeatLine),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let length = bytes.len();
    match *edit {
        Edit::Replace(at, byte) => bytes[at % length] = byte,
        Edit::Insert(at, byte) => bytes.insert(at % length, byte),
        Edit::Remove(at) => {
            bytes.remove(at % length);
        }
        Edit::Repeat(at, count) => {
            let at = at % length;
            let again = bytes[at..(at + count).min(length)].to_vec();
            bytes.splice(at..at, again);
        }
        Edit::RepeatLine(at) => {
            let from = bytes[..at % length].iter().rposition(|byte| *byte == b'\n').map_or(0, |lf| lf + 1);
            let to = bytes[from..].iter().position(|byte| *byte == b'\n').map_or(length, |lf| from + lf + 1);
            let again = bytes[from..to].to_vec();
            bytes.splice(from..from, again);
        }
    }
}

/// The path and query an upstream must get for a target, worked out naively.
fn forwarded(target: &str) -> String {
    let lower = target.to_ascii_lowercase();
    let origin = match lower.find("://") {
        Some(at) if !target.starts_with('/') => {
            let rest = &target[at + 3..];
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    let (path, query) = origin.split_once('?').map_or((origin, None), |(path, query)| (path, Some(query)));
    let mut stack: Vec<String> = Vec::new();
    let mut slash = false;
    for segment in path.split('/').skip(1) {
        let plain = plain(segment);
        slash = matches!(plain.as_str(), "" | "." | "..");
        match plain.as_str() {
            "" | "." => {}
            ".." => drop(stack.pop()),
            _ => stack.push(plain),
        }
    }
    let end = if slash && !stack.is_empty() { "/" } else { "" };
    let whole = format!("/{}{end}", stack.join("/"));
    let stripped = whole.strip_prefix("/api").unwrap_or("not under the prefix");
    let stripped = if stripped.is_empty() { "/" } else { stripped };
    query.map_or(stripped.to_owned(), |query| format!("{stripped}?{query}"))
}

/// A segment with its letters decoded and all else encoded in upper case.
fn plain(segment: &str) -> String {
    let (bytes, mut out, mut at) = (segment.as_bytes(), String::new(), 0);
    while at < bytes.len() {
        let triplet = segment.get(at..at + 3).filter(|triplet| triplet.starts_with('%'));
        match triplet.and_then(|triplet| u8::from_str_radix(&triplet[1..], 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
            }
            Some(byte) => out.push_str(&format!("%{byte:02X}")),
            None if b"\"<>[]^`{|}".contains(&bytes[at]) => out.push_str(&format!("%{:02X}", bytes[at])),
            None => out.push(char::from(bytes[at])),
        }
        at += if triplet.is_some() { 3 } else { 1 };
    }
    out
}

/// What arrived is what was read, and nothing was added but what the edge says.
fn same(arrived: &Arrived, read: &Request) -> Result<(), String> {
    let got = &arrived.request;
    if (&got.method, &got.target, &got.body) != (&read.method, &forwarded(&read.target), &read.body) {
        return Err(format!("{} {} {:?} arrived of {read:?}", got.method, got.target, got.body));
    }
    let ours = ["host", "content-length", "transfer-encoding", "x-request-id", "traceparent"];
    for (name, value) in &got.fields {
        let known = ours.contains(&name.as_str()) || name.starts_with("x-forwarded-");
        if !known && !read.values(name).contains(&value.as_slice()) {
            return Err(format!("{name}: {} was never sent", value.escape_ascii()));
        }
    }
    let nominates = !read.values("connection").is_empty();
    for (name, _) in read.fields.iter().filter(|(name, _)| name.starts_with("x-m") && !name.contains('_')) {
        if !nominates && got.values(name) != read.values(name) {
            return Err(format!("{name} arrived as {:?}", got.values(name)));
        }
    }
    Ok(())
}

/// `httparse` reads the head as the strict reader did.
fn second_opinion(bytes: &[u8], read: &Request) -> Result<(), String> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut fields);
    let status = parsed.parse(bytes).map_err(|error| format!("httparse refuses it: {error}"))?;
    let theirs: Vec<(String, Vec<u8>)> = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), field.value.trim_ascii().to_vec()))
        .collect();
    let agrees = status == httparse::Status::Complete(read.head_bytes)
        && parsed.method == Some(&read.method)
        && parsed.path == Some(&read.target)
        && theirs == read.fields;
    if agrees { Ok(()) } else { Err(format!("httparse reads {parsed:?} of {read:?}")) }
}

fn check(edge: &Edge, origin: &Origin, bytes: &[u8]) -> Result<(), String> {
    let (requests, _) = read_all(bytes);
    let mark = origin.mark();
    let mut client = Wire::to(edge.http);
    client.send(bytes);
    let (mut served, mut at) = (Vec::new(), 0);
    for request in &requests {
        let answer = match client.answer(request.method == "HEAD") {
            Ok(answer) => answer,
            Err(Missing::Closed) => break,
            Err(other) => return Err(format!("no answer to {request:?}: {other:?}")),
        };
        if answer.status == 200 {
            second_opinion(&bytes[at..], request)?;
            served.push(request);
        }
        at += request.bytes;
        if answer.field("connection") == "close" {
            break;
        }
    }
    client.finish();
    let rest = client.remainder().map_err(|missing| format!("left open: {missing:?}"))?;
    if find(&rest, b" 200 OK").is_some() {
        return Err(format!("served what nobody reads as a request: {}", rest.escape_ascii()));
    }
    let arrived = origin.since(mark);
    if arrived.len() != served.len() {
        return Err(format!("{} requests arrived, {} were served", arrived.len(), served.len()));
    }
    arrived.iter().zip(served).try_for_each(|(arrived, read)| same(arrived, read))
}

#[test]
fn changed_requests_are_refused_or_arrive_as_everybody_reads_them() {
    let origin = Origin::start(echo);
    let more = "auth_required = false\nrate_limit = 1000000\nretry = { attempts = 1 }\n";
    let text = service("api", "/api", &[origin.url()], more);
    let edge = Setup::new("[edge]\nthreads = 1\n").service("api", &text).start();
    for template in TEMPLATES {
        check(&edge, &origin, template.as_bytes()).unwrap();
    }
    assert_eq!(origin.since(0).len(), 6, "every template is served as it stands");
    let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    let edits = proptest::collection::vec(edit(), 1..4);
    let outcome = runner.run(&(0..TEMPLATES.len(), edits), |(template, edits)| {
        let mut bytes = TEMPLATES[template].as_bytes().to_vec();
        for edit in &edits {
            apply(&mut bytes, edit);
        }
        check(&edge, &origin, &bytes)
            .map_err(|fault| TestCaseError::fail(format!("{}: {fault}", bytes.escape_ascii())))
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(origin.since(0).len() > 20, "hardly any changed request was served: the comparison is idle");
    for history in origin.connections() {
        assert_eq!(history.wrong, None, "{}", history.bytes.escape_ascii());
    }
}
