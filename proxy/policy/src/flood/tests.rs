use super::*;
use proptest::prelude::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn head(kind: u8) -> Frame {
    Frame { kind, length: 8, ..Frame::default() }
}

fn read(bytes: &[u8], step: usize, skip: u64) -> (Vec<Frame>, bool) {
    let (mut frames, mut scanner) = (Vec::new(), FrameScanner::after(skip));
    for piece in bytes.chunks(step) {
        let told: Result<(), ()> = scanner.scan(piece, |frame| {
            frames.push(*frame);
            Ok(())
        });
        told.unwrap();
    }
    (frames, scanner.is_in_block())
}

/// How many frames of one kind pass within one second.
fn passes(of: Frame) -> u32 {
    let mut guard = FloodGuard::new(Nanos::ZERO);
    let mut count = 0;
    while count < 20_000 && guard.received(&of, Nanos::from_millis(500)).is_ok() {
        count += 1;
    }
    count
}

#[test]
fn frames_are_found_behind_the_greeting_and_a_block_stays_open() {
    let bytes = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(Frame::SETTINGS, 0, 0, &[0; 12]),
        frame(Frame::DATA, 0x8, 3, &[2, b'x', 0, 0]),
        frame(Frame::DATA, 0x1, 3, b""),
        frame(Frame::RESET, 0, 5, &[0, 0, 0, 1]),
        frame(Frame::HEADERS, 0, 7, &[0x82; 30]),
        frame(Frame::CONTINUATION, 0, 7, b""),
    ]
    .concat();
    for step in [1, 2, 5, bytes.len()] {
        let (frames, open) = read(&bytes, step, 24);
        let kinds: Vec<u8> = frames.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [4, 0, 0, 3, 1, 9], "{step}");
        assert_eq!((frames[1].data_bytes(), frames[1].stream), (1, 3));
        assert!(frames[2].ends_stream() && frames[3].is_breach());
        assert!(open, "a block without its end");
    }
    let (_, open) = read(&frame(Frame::HEADERS, 0x4, 1, &[0x82; 3]), 1, 0);
    assert!(!open);
}

#[test]
fn each_kind_has_its_limit_a_second() {
    let data = |length| Frame { kind: Frame::DATA, length, ..Frame::default() };
    for (of, most) in [
        (head(Frame::RESET), 100),
        (head(Frame::PING), 100),
        (head(Frame::SETTINGS), 50),
        (data(0), 100),
        (Frame { flags: 0x8, word: 0x0300_0000, ..data(4) }, 100),
        (data(1), 1_000),
        (data(5), 20_000),
        (head(Frame::PRIORITY), 100),
        (head(Frame::WINDOW_UPDATE), 1_000),
        (head(Frame::CONTINUATION), 5),
        (head(0x10), 100),
        (head(7), 100),
        (head(Frame::HEADERS), 20_000),
        (Frame { flags: 0x1, ..data(0) }, 20_000),
    ] {
        assert_eq!(passes(of), most, "{of:?}");
    }
}

#[test]
fn a_second_later_the_counts_begin_anew() {
    let mut guard = FloodGuard::new(Nanos::from_secs(7));
    for second in 7..20 {
        for _ in 0..100 {
            assert_eq!(guard.received(&head(Frame::PING), Nanos::from_secs(second)), Ok(()));
        }
    }
    assert_eq!(guard.received(&head(Frame::PING), Nanos::from_secs(19)), Err(Flood::Ping));
}

#[test]
fn answers_explain_pings_and_window_updates() {
    let mut guard = FloodGuard::new(Nanos::ZERO);
    let data = |length| Frame { kind: Frame::DATA, length, ..Frame::default() };
    for _ in 0..500 {
        guard.sent(&data(100), Nanos::from_millis(10)).unwrap();
    }
    for _ in 0..600 {
        assert_eq!(guard.received(&head(Frame::PING), Nanos::from_millis(1_500)), Ok(()));
    }
    assert_eq!(guard.received(&head(Frame::PING), Nanos::from_millis(1_500)), Err(Flood::Ping));
    for _ in 0..3_000 {
        assert_eq!(guard.received(&head(Frame::WINDOW_UPDATE), Nanos::from_millis(1_500)), Ok(()));
    }
    assert_eq!(
        guard.received(&head(Frame::WINDOW_UPDATE), Nanos::from_millis(1_500)),
        Err(Flood::WindowUpdate)
    );
    let mut drawn = FloodGuard::new(Nanos::ZERO);
    let cut = (0..2_000).find(|_| {
        drawn.sent(&data(1), Nanos::ZERO).unwrap();
        drawn.received(&head(Frame::WINDOW_UPDATE), Nanos::ZERO).is_err()
    });
    assert_eq!(cut, Some(1_000), "an answer drawn byte by byte");
    let mut unary = FloodGuard::new(Nanos::ZERO);
    for call in 0..20_000_u64 {
        let now = Nanos::from_millis(call / 10);
        for frame in [head(Frame::HEADERS), data(5), head(Frame::HEADERS)] {
            unary.sent(&frame, now).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(unary.received(&head(Frame::WINDOW_UPDATE), now), Ok(()), "call {call}");
        }
    }
}

#[test]
fn a_client_that_cancels_half_its_streams_lives_long() {
    let mut guard = FloodGuard::new(Nanos::ZERO);
    let mut stream = 1;
    for second in 0..2_000 {
        for count in 0..100 {
            guard.received(&Frame { stream, ..head(Frame::HEADERS) }, Nanos::from_secs(second)).unwrap();
            if count % 2 == 0 {
                guard.received(&Frame { stream, ..head(Frame::RESET) }, Nanos::from_secs(second)).unwrap();
            }
            stream += 2;
        }
    }
    let mut rapid = FloodGuard::new(Nanos::ZERO);
    let lived = (0..20_000_u64).find(|at| {
        let (now, stream) = (Nanos::from_secs(at / 90), u32::try_from(at * 2 + 1).unwrap());
        rapid.received(&Frame { stream, ..head(Frame::HEADERS) }, now).unwrap();
        rapid.received(&Frame { stream, ..head(Frame::RESET) }, now).is_err()
    });
    assert_eq!(lived, Some(10_000), "below the limit of a second, and cut all the same");
}

#[test]
fn malformed_streams_end_it_whoever_finds_them() {
    let mut guard = FloodGuard::new(Nanos::ZERO);
    let reset = Frame { kind: Frame::RESET, word: 1, length: 4, ..Frame::default() };
    for _ in 0..15 {
        guard.malformed().unwrap();
        guard.sent(&reset, Nanos::ZERO).unwrap();
        guard.sent(&Frame { word: 8, ..reset }, Nanos::ZERO).unwrap();
    }
    guard.malformed().unwrap();
    assert_eq!(guard.sent(&reset, Nanos::from_secs(900)), Err(Flood::Malformed));
}

#[test]
fn words_are_distinct() {
    let words: std::collections::BTreeSet<&str> = Flood::ALL.iter().map(|flood| flood.as_str()).collect();
    assert_eq!(words.len(), Flood::ALL.len());
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..12, any::<u8>(), 0_u32..9, proptest::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

proptest! {
    #[test]
    fn where_bytes_are_cut_makes_no_difference(
        frames in proptest::collection::vec(any_frame(), 0..30), step in 1_usize..40, skip in 0_usize..30,
    ) {
        let bytes = [vec![0xff; skip], frames.concat()].concat();
        let whole = read(&bytes, bytes.len().max(1), skip as u64);
        prop_assert_eq!(whole.0.len(), frames.len());
        prop_assert_eq!(read(&bytes, step, skip as u64), whole);
    }

    /// Against a model that remembers everything: frames of three kinds with plain limits.
    #[test]
    fn a_window_is_a_whole_second(
        began in 0_u64..5_000, steps in proptest::collection::vec((0_u64..30, 0_usize..3), 0..600),
    ) {
        let kinds = [(Frame::SETTINGS, 50), (Frame::PRIORITY, 100), (Frame::RESET, 100)];
        let mut guard = FloodGuard::new(Nanos::from_millis(began));
        let (mut at, mut seen) = (began, Vec::<(u64, usize)>::new());
        for (wait, which) in steps {
            at += wait;
            let second = (at - began) / 1_000;
            seen.push((second, which));
            let same = seen.iter().filter(|entry| **entry == (second, which)).count();
            let verdict = guard.received(&head(kinds[which].0), Nanos::from_millis(at));
            prop_assert_eq!(verdict.is_ok(), same <= kinds[which].1);
        }
    }

    #[test]
    fn no_frames_at_all_are_no_panic(frames in proptest::collection::vec((any_frame(), any::<u32>()), 0..80)) {
        let mut guard = FloodGuard::new(Nanos::from_secs(3));
        let mut scanner = FrameScanner::default();
        for (bytes, ms) in frames {
            let now = Nanos::from_millis(u64::from(ms));
            if scanner.scan(&bytes, |frame| guard.received(frame, now)).is_err() {
                break;
            }
        }
    }
}
