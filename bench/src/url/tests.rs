use clap::Parser as _;

use super::*;

fn args(words: &[&str]) -> LoadArgs {
    let all = ["sluice-bench", "load"].iter().chain(words);
    let crate::Command::Load(args) = crate::Cli::parse_from(all).command else { panic!("not load") };
    *args
}

fn asked(words: &[&str]) -> anyhow::Result<Target> {
    let args = args(words);
    args.scenario()?;
    target(&args, &Address::parse(named(&args.urls[0]).1)?)
}

fn text(request: &mut Request) -> String {
    String::from_utf8(request.next(1, 0xab).to_vec()).unwrap()
}

#[test]
fn a_url_alone_is_a_get_in_the_closed_loop() {
    let args = args(&["http://127.0.0.1:8080/a"]);
    let scenario = args.scenario().unwrap();
    assert_eq!(scenario.paces(), [crate::load::Pace::Closed]);
    let mut target = asked(&["http://127.0.0.1:8080/a"]).unwrap();
    assert_eq!(text(&mut target.asks[0].request), "GET /a HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n");
    assert!(target.streams.is_none() && target.place.tls.is_none());
}

#[test]
fn bodies_headers_and_times_are_written_into_the_request() {
    let mut target = asked(&[
        "x=http://127.0.0.1:1/events",
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"at":"{{at}}"}"#,
    ])
    .unwrap();
    assert_eq!(
        text(&mut target.asks[0].request),
        "POST /events HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n\
         {\"at\":\"00000000000000ab\"}"
    );
}

#[test]
fn tokens_are_asked_in_turn_each_with_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, "aaa\n\nbbb 401\n").unwrap();
    let mut target = asked(&["http://127.0.0.1:1/", "--tokens", path.to_str().unwrap()]).unwrap();
    assert_eq!(target.asks.iter().map(|ask| ask.status).collect::<Vec<_>>(), [None, Some(401)]);
    assert!(text(&mut target.asks[1].request).contains("\r\nAuthorization: Bearer bbb\r\n"));
    for bad in ["", "aaa 401 x", "aaa four", "\u{e9} 1"] {
        std::fs::write(&path, bad).unwrap();
        assert!(asked(&["http://127.0.0.1:1/", "--tokens", path.to_str().unwrap()]).is_err(), "{bad}");
    }
}

#[test]
fn listeners_need_to_know_when_an_event_was_due() {
    let body = r#"[{"at":"{{at}}"},{"at":"{{at}}"}]"#;
    let words =
        ["http://127.0.0.1:1/events", "-H", "Content-Type: x", "-H", "Authorization: Bearer t", "-d", body];
    let with = |url: &'static str| [&words[..], &["--listen", url, "--subscribers", "3"]].concat();
    let audience = asked(&with("ws://127.0.0.1:2/ws")).unwrap().audience.unwrap();
    assert_eq!((audience.batch, audience.subscribers), (2, 3));
    let said = String::from_utf8(audience.steps[0].say.clone()).unwrap();
    assert!(said.contains("Upgrade: websocket") && said.contains("Bearer t"), "{said}");
    assert!(!said.contains("Content-Type") && audience.steps[0].must == " 101 ");
    let told = [&with("ws://127.0.0.1:2/ws")[..], &["--subscribe", "{}"]].concat();
    assert_eq!(asked(&told).unwrap().audience.unwrap().steps[1].say, b"\x81\x82\0\0\0\0{}");
    assert_eq!(frame(&"x".repeat(300)).unwrap()[..4], [0x81, 0xfe, 1, 44]);
    let told = [&with("http://127.0.0.1:2/ws")[..], &["--subscribe", "{}"]].concat();
    assert!(asked(&told).is_err());
    assert_eq!(audience.place.unwrap().address.port(), 2);
    assert!(asked(&["http://127.0.0.1:1/", "-d", "{}", "--listen", "http://127.0.0.1:2/"]).is_err());
}

#[test]
fn mistakes_are_said_before_anything_is_asked() {
    for (words, expected) in [
        (&["http://h/", "--sweep", "9"][..], "FROM..TO"),
        (&["http://127.0.0.1:1/", "--sweep", "100..50"], "goes up"),
        (&["http://127.0.0.1:1/", "--at", "20 true"], "within the 10 s"),
        (&["http://127.0.0.1:1/", "--at", "true"], "SECONDS COMMAND"),
        (&["http://127.0.0.1:1/", "-H", "no colon"], "Name: value"),
        (&["http://127.0.0.1:1/", "-H", "A: b\r\nC: d"], "no header"),
        (&["http://127.0.0.1:1/", "--connections", "0"], "connections"),
        (&["http://127.0.0.1:1/", "--repeats", "0"], "repeats"),
        (&["http://127.0.0.1:1/", "--seconds", "nan"], "no time"),
        (&["http://127.0.0.1:1/", "-d", "@/no/such/file"], "/no/such/file"),
        (&["ws://127.0.0.1:1/"], "--listen"),
    ] {
        let error = format!("{:#}", asked(words).unwrap_err());
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    let both = args(&["a=http://127.0.0.1:1/", "a=http://127.0.0.1:2/"]);
    assert!(fleet(&both).is_err());
}
