use super::*;

fn sealed() -> Vec<u8> {
    let labels = Labels { kind: "trading_signal", symbol: "BTC/USDT", source: "ml" };
    let draft = Draft::new(labels, 7, 9, 11, br#"{"a":1}"#).unwrap();
    let mut out = Vec::new();
    draft.encode(Stamp { seq: 3, id: MessageId { ms: 5, n: 1 } }, None, &mut out);
    assert_eq!(out.len(), draft.stored_bytes());
    seal(&mut out, FIRST | LAST);
    out
}

#[test]
fn a_record_reads_back_as_written() {
    let bytes = Bytes::from(sealed());
    let Parsed::Whole(header) = parse(&bytes) else { panic!("not whole") };
    let record = Record::slice(&header, &bytes, 0);
    assert_eq!((record.kind(), record.symbol(), record.source()), ("trading_signal", "BTC/USDT", "ml"));
    assert_eq!(record.json(), br#"{"a":1}"#);
    assert_eq!((record.stamp.seq, record.time_us, record.event_id, record.fingerprint), (3, 7, 9, 11));
}

#[test]
fn a_record_of_a_partition_reads_back_as_written() {
    let labels = Labels { kind: "trading_signal", symbol: "BTC/USDT", source: "ml" };
    let draft = Draft::new(labels, 7, 9, 11, br#"{"a":1}"#).unwrap();
    let mut out = Vec::new();
    let lane = Lane { partition: 63, seq: 2 };
    draft.encode(Stamp { seq: 3, id: MessageId { ms: 5, n: 1 } }, Some(lane), &mut out);
    assert_eq!(kind_of(&out), "trading_signal");
    let bytes = Bytes::from(out.clone());
    let Parsed::Whole(header) = parse_framed(&bytes) else { panic!("not whole") };
    let record = Record::slice(&header, &bytes, 0);
    assert_eq!((record.kind(), record.symbol(), record.source()), ("trading_signal", "BTC/USDT", "ml"));
    assert_eq!((record.json(), record.stamp.seq, record.lane), (&br#"{"a":1}"#[..], 3, lane));
    out[28] = PARTITIONS_MAX + 1;
    assert!(matches!(parse_framed(&out), Parsed::Damaged(_)));
}

#[test]
fn every_flipped_bit_is_seen() {
    let good = sealed();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(parse(&bad), Parsed::Whole(_)), "bit {bit}");
    }
}

#[test]
fn a_draft_too_large_is_refused() {
    let labels = Labels { kind: "x", symbol: "", source: "" };
    let json = vec![b' '; RECORD_BYTES_MAX];
    assert!(matches!(Draft::new(labels, 0, 0, 0, &json), Err(DraftError::Record(_))));
    let long = "x".repeat(256);
    let labels = Labels { kind: &long, symbol: "", source: "" };
    assert_eq!(Draft::new(labels, 0, 0, 0, b""), Err(DraftError::Label(256)));
}
