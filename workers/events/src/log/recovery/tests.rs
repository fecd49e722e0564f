//! What a crash can leave of a segment, and what it cannot.

use std::io::Write;

use std::sync::Arc;

use super::*;
use crate::log::form::tests::{encrypted, plain, version_1};
use crate::log::frame::{Label, Sealer};
use crate::log::id::MessageId;
use crate::log::record::{Draft, Labels, Stamp, seal};

/// How the segments of a test are written.
fn forms() -> [Arc<Form>; 3] {
    [version_1(1), plain(1), encrypted(1)]
}

fn draft(seq: u64) -> Draft {
    let labels = Labels { kind: "market_data_update", symbol: "BTC/USDT", source: "s" };
    let json = format!(r#"{{"n":{seq},"pad":"{}"}}"#, "x".repeat((seq * 37 % 300) as usize));
    Draft::new(labels, seq as i64, u128::from(seq), seq, json.as_bytes()).unwrap()
}

/// A segment of commits with the given numbers of records, each record a unit of its own; offsets of the
/// commits' begins and of the end.
fn segment_of(form: &Arc<Form>, commits: &[usize], barriers: bool) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = form.header().to_vec();
    let mut sealer = Sealer::begin(Arc::clone(form));
    let mut begins = vec![bytes.len() as u64];
    let mut seq = 0;
    for count in commits {
        for i in 0..*count {
            seq += 1;
            let first = if i == 0 { FIRST } else { 0 };
            let ordered = if i == 0 && (barriers || seq == 1) { BARRIER } else { 0 };
            let flags = first | ordered | if i + 1 == *count { LAST } else { 0 };
            let mut record = Vec::new();
            draft(seq).encode(Stamp { seq, id: MessageId { ms: seq, n: 0 } }, None, &mut record);
            if form.is_framed() {
                let label = Label { seq, count: 1, flags, plain: record.len() };
                let at = bytes.len() as u64;
                sealer.seal(&mut bytes, at, &label, &record);
            } else {
                seal(&mut record, flags);
                bytes.extend_from_slice(&record);
            }
        }
        begins.push(bytes.len() as u64);
    }
    (bytes, begins)
}

fn scan_bytes(form: &Form, bytes: &[u8], last: bool) -> Result<Verdict, ScanError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    scan(&file, form, 1, last)
}

#[test]
fn a_whole_segment_stands_with_and_without_reserved_space() {
    for form in forms() {
        let (mut bytes, begins) = segment_of(&form, &[1, 3, 2], true);
        for _ in 0..2 {
            for last in [true, false] {
                let verdict = scan_bytes(&form, &bytes, last).unwrap();
                assert_eq!((verdict.index.summary.records, verdict.torn), (6, None));
                assert_eq!(verdict.index.summary.end, begins[3]);
            }
            bytes.resize(bytes.len() + 10_000, 0);
        }
    }
}

#[test]
fn a_commit_torn_at_any_byte_is_cut_off_whole() {
    for form in forms() {
        let (bytes, begins) = segment_of(&form, &[2, 1, 3], true);
        let begin = begins[2] as usize;
        for (reserved, cut) in
            [0, 5_000].into_iter().flat_map(|r| (begin + 1..bytes.len()).map(move |c| (r, c)))
        {
            let mut torn = bytes[..cut].to_vec();
            let missing_nothing = bytes[cut..].iter().all(|b| *b == 0);
            torn.resize(if reserved == 0 { cut } else { bytes.len() + reserved }, 0);
            if reserved > 0 && missing_nothing {
                continue;
            }
            let verdict = scan_bytes(&form, &torn, true).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            assert_eq!(verdict.index.summary.records, 3, "cut at {cut}");
            assert!(verdict.torn.is_some());
            assert!(scan_bytes(&form, &torn, false).is_err(), "a sealed segment is never torn");
        }
    }
}

#[test]
fn a_commit_that_misses_sectors_is_torn() {
    for form in forms() {
        let (bytes, begins) = segment_of(&form, &[2, 12], true);
        let mut tested = 0;
        for sector in (begins[1] / 512 + 1)..(begins[2] / 512) {
            let mut torn = bytes.clone();
            torn[sector as usize * 512..][..512].fill(0);
            torn.resize(torn.len() + 4_096, 0);
            let verdict = scan_bytes(&form, &torn, true).unwrap();
            assert_eq!(verdict.index.summary.records, 2);
            tested += 1;
        }
        assert!(tested > 3);
    }
}

#[test]
fn every_flipped_bit_of_a_stored_record_is_refused() {
    for form in forms() {
        let (mut bytes, begins) = segment_of(&form, &[1, 2, 1], true);
        let end = bytes.len();
        bytes.resize(end + 600, 0);
        for bit in begins[0] as usize * 8..end * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = scan_bytes(&form, &bad, true);
            assert!(matches!(found, Err(ScanError::Corrupt { .. })), "bit {bit}: {found:?}");
        }
    }
}

#[test]
fn a_frame_from_elsewhere_is_refused_though_its_checksum_holds() {
    let form = encrypted(1);
    let (bytes, begins) = segment_of(&form, &[1, 1, 1], true);
    let frame = |i: usize| begins[i] as usize..begins[i + 1] as usize;
    // The same frame of the same segment, as another opening of it would have written it.
    let (other, other_begins) = segment_of(&form, &[1, 1, 1], true);
    assert_eq!(begins, other_begins);
    let mut swapped = bytes.clone();
    swapped[frame(1)].copy_from_slice(&other[frame(1)]);
    assert!(scan_bytes(&form, &swapped, true).is_ok(), "it is what may stand here");
    // The same frame of another log.
    let stranger = encrypted(2);
    let (other, _) = segment_of(&stranger, &[1, 1, 1], true);
    let mut foreign = bytes.clone();
    foreign[frame(1)].copy_from_slice(&other[frame(1)]);
    let found = scan_bytes(&form, &foreign, true);
    assert!(matches!(found, Err(ScanError::Corrupt { offset, .. }) if offset == begins[1]), "{found:?}");
}

#[test]
fn a_stray_bit_behind_the_end_costs_nothing() {
    for form in forms() {
        let (mut bytes, begins) = segment_of(&form, &[1, 2], true);
        bytes.resize(bytes.len() + 600, 0);
        bytes[begins[2] as usize + 100] = 4;
        let verdict = scan_bytes(&form, &bytes, true).unwrap();
        assert_eq!(verdict.index.summary.records, 3);
        assert!(verdict.torn.is_some());
    }
}

#[test]
fn without_barriers_more_than_one_commit_may_be_torn() {
    for form in forms() {
        let (mut bytes, begins) = segment_of(&form, &[1, 1, 1], false);
        bytes[begins[1] as usize..begins[1] as usize + 64].fill(0);
        let verdict = scan_bytes(&form, &bytes, true).unwrap();
        assert_eq!(verdict.index.summary.records, 1);
    }
}
