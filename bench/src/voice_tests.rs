use super::*;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn an_event_has_its_length_and_is_json() {
    for bytes in [event_bytes_min(), 200, 1_000] {
        let event = event(bytes);
        assert_eq!(event.len(), bytes);
        let value: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert_eq!(value["data"]["at"], STAMP);
    }
}

#[test]
fn a_post_announces_its_body() {
    for (batch, path) in [(1, "/events"), (3, "/events/batch")] {
        let (bytes, expects) = Voice::Http.publish("h:1", Some("Bearer t"), batch, 200, false);
        let (head, body) = text(&bytes).split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(&format!("POST {path} HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\n"))
        );
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["events"].as_array().map_or(1, Vec::len), batch as usize);
        assert_eq!(expects, Expects::Stored(batch));
    }
}

#[test]
fn stores_are_asked_once_an_event() {
    let (bytes, expects) = Voice::Redis.publish("", None, 2, 150, false);
    assert_eq!(text(&bytes).matches("*8\r\n$4\r\nXADD\r\n$5\r\nbench\r\n").count(), 2);
    assert_eq!(expects, Expects::Replies(2));
    let (bytes, expects) = Voice::Redis.publish("", None, 1, 150, true);
    assert!(text(&bytes).contains("*3\r\n$7\r\nPUBLISH\r\n"));
    assert_eq!(expects, Expects::Replies(2));
    let (bytes, _) = Voice::Nats.publish("", None, 1, 150, false);
    assert!(text(&bytes).starts_with("PUB bench _INBOX.bench.######## 150\r\n{"), "{}", text(&bytes));
}

#[test]
fn replies_of_redis_are_counted_and_errors_seen() {
    let two = b"$15\r\n1526919030474-0\r\n:3\r\n";
    let read = |bytes: &[u8], count| Expects::Replies(count).read(bytes).unwrap();
    assert_eq!(read(two, 2).map(|found| (found.response.used_bytes, found.right)), Some((two.len(), true)));
    for cut in 0..two.len() {
        assert_eq!(read(&two[..cut], 2), None, "{cut}");
    }
    let error = read(b"-ERR no\r\n", 1).unwrap();
    assert_eq!((error.response.status, error.right), (500, false));
    for bad in [&b"HTTP/1.1 200 OK\r\n"[..], b"$-1\r\n", b"$99999999\r\n", b"$1\r\nabc", b"*1\r\n:1\r\n"] {
        assert!(Expects::Replies(1).read(bad).is_err(), "{}", text(bad));
    }
}

#[test]
fn acknowledgements_of_jetstream_are_read() {
    let ack = b"MSG _INBOX.bench.00000001 1 26\r\n{\"stream\":\"bench\",\"seq\":7}\r\n";
    let read = |bytes: &[u8]| Expects::Acks(1).read(bytes).unwrap();
    assert_eq!(read(ack).map(|found| (found.response.used_bytes, found.right)), Some((ack.len(), true)));
    assert!((0..ack.len()).all(|cut| read(&ack[..cut]).is_none()));
    let noted = [b"PING\r\n".as_slice(), ack, b"INFO {} \r\nPING\r\n"].concat();
    assert_eq!(read(&noted).map(|found| found.response.used_bytes), Some(noted.len()));
    assert_eq!(read(b"PING\r\n"), None);
    let torn = b"MSG _INBOX.bench.00000001 1 23\r\n{\"error\":{\"code\":503}}\r\n";
    assert_eq!(read(torn), None, "one byte is missing");
    let longer = b"MSG _INBOX.bench.00000001 1 20\r\n{\"error\":{\"code\":503}}\r\n";
    assert!(Expects::Acks(1).read(longer).is_err());
    let refused = b"MSG _INBOX.bench.00000001 1 22\r\n{\"error\":{\"code\":503}}\r\n";
    assert_eq!(read(&refused[..]).map(|found| found.right), Some(false));
    assert!(Expects::Acks(1).read(b"-ERR 'Unknown'\r\n").is_err());
}

#[test]
fn an_answer_of_http_must_say_what_was_stored() {
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let right = |expects: Expects, body: &str| expects.read(answer(body).as_bytes()).unwrap().unwrap().right;
    assert!(right(Expects::Stored(1), r#"{"status":"published","duplicate":false}"#));
    assert!(!right(Expects::Stored(1), r#"{"status":"published","duplicate":true}"#));
    assert!(right(Expects::Stored(2), r#"{"published":2,"duplicates":0,"failed":0,"results":[]}"#));
    assert!(!right(Expects::Stored(2), r#"{"published":1,"duplicates":0,"failed":1,"results":[]}"#));
    assert!(right(Expects::Body(2), "ok") && !right(Expects::Body(3), "ok"));
    assert!(right(Expects::Says("\"valid\":true"), r#"{"valid":true}"#));
    assert!(!right(Expects::Says("\"valid\":true"), r#"{"valid":false}"#));
}
