use proptest::prelude::*;

use super::*;

fn whole(bytes: &[u8]) -> (Response, Vec<u8>) {
    let mut body = Vec::new();
    (parse(bytes, Some(&mut body)).unwrap().unwrap(), body)
}

#[test]
fn content_length_body_is_read_whole() {
    let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 5\r\n\r\nhelloHTTP";
    let (response, body) = whole(bytes);
    assert_eq!(body, b"hello");
    assert_eq!(response, Response { status: 200, body_bytes: 5, used_bytes: bytes.len() - 4, close: false });
}

#[test]
fn chunked_body_is_decoded_with_extensions_and_trailers() {
    let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
    let (response, body) = whole(bytes);
    assert_eq!(body, b"hello0123456789");
    assert_eq!((response.body_bytes, response.used_bytes), (15, bytes.len()));
}

#[test]
fn closing_answers_are_noticed() {
    assert!(whole(b"HTTP/1.1 401 X\r\nConnection: foo, Close\r\nContent-Length: 0\r\n\r\n").0.close);
    assert!(whole(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").0.close);
    assert!(!whole(b"HTTP/1.1 204\r\n\r\n").0.close);
}

#[test]
fn hostile_heads_are_refused() {
    use ResponseError::{BodyTooLarge, Framing, HeaderLine, Interim, StatusLine};
    let cases: [(&[u8], ResponseError); 15] = [
        (b"HTTP/2.0 200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2000\r\n\r\n", StatusLine),
        (b"\r\n\r\n", StatusLine),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Interim(100)),
        (b"HTTP/1.1 200 OK\r\n\r\n", Framing),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", Framing),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", Framing),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Framing),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx", Framing),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", Framing),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", BodyTooLarge),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\nx", HeaderLine),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", HeaderLine),
        (b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 3\r\n\r\n", HeaderLine),
    ];
    for (bytes, expected) in cases {
        assert_eq!(parse(bytes, None), Err(expected), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn hostile_chunks_are_refused() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for (tail, expected) in [
        (&b"0x5\r\nhello\r\n"[..], ResponseError::Chunk),
        (b"\r\n", ResponseError::Chunk),
        (b"fffffffff\r\n", ResponseError::Chunk),
        (b"5\r\nhelloXX", ResponseError::Chunk),
        (b"ffffffff\r\n", ResponseError::BodyTooLarge),
        (&[b'1'; CHUNK_LINE_BYTES_MAX], ResponseError::Chunk),
    ] {
        assert_eq!(parse(&[&head, tail].concat(), None), Err(expected), "{tail:?}");
    }
}

#[test]
fn oversized_head_is_refused_and_short_one_waits() {
    let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
    assert_eq!(parse(&bytes, None), Ok(None));
    bytes.resize(HEAD_BYTES_MAX, b'a');
    assert_eq!(parse(&bytes, None), Err(ResponseError::HeadTooLarge));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(parse(many.as_bytes(), None), Err(ResponseError::HeadTooLarge));
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400), framed in any::<bool>()) {
        let mut input = if framed { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
        input.extend(bytes);
        if let Ok(Some(response)) = parse(&input, None) {
            prop_assert!(response.used_bytes <= input.len());
        }
    }

    #[test]
    fn arrival_in_pieces_changes_nothing(chunks in proptest::collection::vec(1_usize..40, 0..6), chunked in any::<bool>()) {
        let body: Vec<u8> = (0..chunks.iter().sum::<usize>()).map(|i| i as u8).collect();
        let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
        if chunked {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut at = 0;
            for size in &chunks {
                bytes.extend(format!("{size:x}\r\n").bytes());
                bytes.extend(&body[at..at + size]);
                bytes.extend(b"\r\n");
                at += size;
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(&body);
        }
        for end in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..end], None), Ok(None));
        }
        let (response, read) = whole(&bytes);
        prop_assert_eq!(read, body);
        prop_assert_eq!(response.used_bytes, bytes.len());
    }
}
