//! What upstreams may answer wrongly, as data.

use super::case::bytes;

/// What the client gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Gets {
    /// A problem made by the edge.
    Problem(u16, &'static str),
    /// The upstream's answer, whole.
    Whole(u16, &'static str),
    /// The upstream's answer, ending too early; or 502 where nothing of it was passed on yet.
    Broken,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub method: &'static str,
    /// What the upstream writes, and what it does then.
    pub script: Vec<u8>,
    pub closes: bool,
    pub gets: Gets,
    /// The upstream's connection may serve another request.
    pub reusable: bool,
}

pub const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// An answer nobody asked for, behind another one.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
const INVALID: Gets = Gets::Problem(502, "upstream_invalid");
const GONE: Gets = Gets::Problem(502, "upstream_refused");

pub fn case(name: &str, script: &str, gets: Gets) -> Case {
    Case { name: name.to_owned(), method: "GET", script: bytes(script), closes: false, gets, reusable: false }
}

impl Case {
    fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    pub fn reusable(mut self) -> Self {
        self.reusable = true;
        self
    }

    fn of(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }
}

pub fn cases() -> Vec<Case> {
    [starts(), fields(), lengths(), chunks(), bodiless(), interim()].concat()
}

fn starts() -> Vec<Case> {
    let line = |line: &str, gets: Gets| {
        case(
            &format!("status line {line:?}"),
            &format!("{line}\r\nContent-Length: 5\r\n\r\nhello{POISON}"),
            gets,
        )
    };
    let hello = Gets::Whole(200, "hello");
    let mut all: Vec<Case> = [
        "HTTP/1.1 abc OK",
        "HTTP/1.1 99 OK",
        "HTTP/1.1 1000 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 -200 OK",
        "HTTP/1.1 +200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "ICY 200 OK",
        "200 OK",
        "hello",
        "HTTP/1.1 200 O\\x00K",
        "HTTP/1.1 200 O\\x7fK",
        "HTTP/1.1 200 O\rK",
        "\\x16\\x03\\x01\\x00\\x02",
        "GET / HTTP/1.1",
    ]
    .map(|text| line(text, INVALID))
    .into();
    all.extend(
        ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 All is well", "HTTP/1.0 200 OK"]
            .map(|text| line(text, hello.clone())),
    );
    all.extend([
        case("fine", FINE, hello.clone()).reusable(),
        case("fine, an answer nobody asked for behind it", &format!("{FINE}{POISON}"), hello.clone()),
        case("fine, junk behind it", &format!("{FINE}\r\n\r\n"), hello.clone()),
        case(
            "fine, and says it closes",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            hello.clone(),
        ),
        case("fine, then closes", FINE, hello.clone()).closing(),
        case("closes at once", "", GONE).closing(),
        case("closes inside the status line", "HTTP/1.1 20", GONE).closing(),
        case("closes inside the head", "HTTP/1.1 200 OK\r\nContent-Le", GONE).closing(),
        case("closes before the end of the head", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", GONE).closing(),
        case("says nothing", "", Gets::Problem(504, "upstream_timeout")),
        case(
            "stops inside the head",
            "HTTP/1.1 200 OK\r\nContent-Le",
            Gets::Problem(504, "upstream_timeout"),
        ),
        case("stops inside the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", Gets::Broken),
        case(
            "stops inside a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
            Gets::Broken,
        ),
    ]);
    all
}

fn fields() -> Vec<Case> {
    let with = |lines: &str, gets: Gets| {
        case(
            &format!("fields {lines:?}"),
            &format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 5\r\n\r\nhello{POISON}"),
            gets,
        )
    };
    let mut all: Vec<Case> = [
        "nocolon\r\n",
        ": y\r\n",
        " X: y\r\n",
        "X: a\\x00b\r\n",
        "X: a\\x01b\r\n",
        "X: a\\x7fb\r\n",
        "X: a\rb\r\n",
        "X\rY: z\r\n",
        "X\\xe9: y\r\n",
        "X(y): z\r\n",
    ]
    .map(|lines| with(lines, INVALID))
    .into();
    let sized = |bytes: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: {}\r\n\r\nhello", "v".repeat(bytes))
    };
    let counted = |count: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{}\r\nhello", "X: y\r\n".repeat(count - 1))
    };
    let hello = || Gets::Whole(200, "hello");
    // Folded lines are refused, as RFC 9112 section 5.2 lets a proxy do; a space before a colon it must remove.
    all.extend(
        ["X: a\r\n b\r\n", "X: a\r\n\tSet-Cookie: b\r\n", "X: a\r\n \r\n"].map(|lines| with(lines, INVALID)),
    );
    all.push(with("X : a\r\n", hello()));
    all.extend([
        case("head of 60 KiB", &sized(60 << 10), hello()).reusable(),
        case("head above 64 KiB", &sized(64 << 10), INVALID),
        case("head of 900 KiB", &sized(900 << 10), INVALID),
        case("head without end", &format!("HTTP/1.1 200 OK\r\nX: {}", "v".repeat(2 << 20)), INVALID),
        case(
            "fields without end",
            &format!("HTTP/1.1 200 OK\r\n{}", "X: yyyyyyyyyyyyyyyy\r\n".repeat(60_000)),
            INVALID,
        ),
        case("256 fields", &counted(256), hello()).reusable(),
        case("257 fields", &counted(257), INVALID),
    ]);
    all
}

fn lengths() -> Vec<Case> {
    let with = |lines: &str, gets: Gets| {
        case(
            &format!("framing {lines:?}"),
            &format!("HTTP/1.1 200 OK\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n{POISON}"),
            gets,
        )
    };
    let mut all: Vec<Case> = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: abc\r\n",
        "Content-Length:\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
    ]
    .map(|lines| with(lines, INVALID))
    .into();
    all.extend([
        case("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", INVALID),
        // The chunks win and the length is dropped; what the length would have left behind is not.
        case("length and chunks", &format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{POISON}"),
            Gets::Whole(200, "hello")),
        case("no length, closes", "HTTP/1.1 200 OK\r\n\r\nhello", Gets::Whole(200, "hello")).closing(),
        case("no length in HTTP/1.0, closes", "HTTP/1.0 200 OK\r\n\r\nhello", Gets::Whole(200, "hello")).closing(),
        case("less than the length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", Gets::Broken).closing(),
        case("nothing of the length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Gets::Broken).closing(),
    ]);
    all
}

fn chunks() -> Vec<Case> {
    let of = |body: &str, gets: Gets| {
        case(
            &format!("chunks {body:?}"),
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
            gets,
        )
        .closing()
    };
    let mut all: Vec<Case> = [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "zz\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\n\r",
        "5\r\nhel",
        "5\r\n",
        "5",
        "5\r\nhello\r\n0\r\nX: y\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\n",
        "",
    ]
    .map(|body| of(body, Gets::Broken))
    .into();
    all.push(of(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(90_000)), Gets::Broken));
    all.push(of("\r\nhello\r\n0\r\n\r\n", Gets::Broken));
    all.push(of(&format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "y".repeat(70_000)), Gets::Broken));
    let hello = || Gets::Whole(200, "hello");
    all.extend([
        of("5\r\nhello\r\n0\r\n\r\n", hello()),
        of("2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX: y\r\n\r\n", hello()),
        of("0\r\n\r\n", Gets::Whole(200, "")),
    ]);
    all.push(case(
        "chunks, an answer nobody asked for behind them",
        &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{POISON}"),
        hello(),
    ));
    all
}

fn bodiless() -> Vec<Case> {
    let with = |status: &str, lines: &str, body: &str, gets: Gets| {
        case(
            &format!("{status} {lines:?} {body:?}"),
            &format!("HTTP/1.1 {status}\r\n{lines}\r\n{body}"),
            gets,
        )
    };
    let none = |status| Gets::Whole(status, "");
    vec![
        with("204 No Content", "", "", none(204)).reusable(),
        with("204 No Content", "Content-Length: 5\r\n", "hello", none(204)),
        with("204 No Content", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", none(204)),
        with("204 No Content", "", POISON, none(204)),
        with("304 Not Modified", "Content-Length: 5\r\n", "", none(304)).reusable(),
        with("304 Not Modified", "Content-Length: 5\r\n", "hello", none(304)),
        with("304 Not Modified", "", POISON, none(304)),
        with("205 Reset Content", "Content-Length: 0\r\n", "", none(205)).reusable(),
        with("200 OK", "Content-Length: 5\r\n", "", none(200)).of("HEAD").reusable(),
        with("200 OK", "Content-Length: 5\r\n", "hello", none(200)).of("HEAD"),
        with("200 OK", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", none(200)).of("HEAD"),
        with("404 Not Found", "Content-Length: 5\r\n", "hello", Gets::Whole(404, "hello")).reusable(),
        with("500 Internal Server Error", "Content-Length: 5\r\n", "hello", Gets::Whole(500, "hello"))
            .reusable(),
    ]
}

fn interim() -> Vec<Case> {
    let hints = |count: usize| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
    let hello = || Gets::Whole(200, "hello");
    vec![
        case("100 first", &format!("HTTP/1.1 100 Continue\r\n\r\n{FINE}"), hello()).reusable(),
        case("102 first", &format!("HTTP/1.1 102 Processing\r\n\r\n{FINE}"), hello()).reusable(),
        case("eight hints first", &format!("{}{FINE}", hints(8)), hello()).reusable(),
        case("nine hints first", &format!("{}{FINE}", hints(9)), INVALID),
        case("hints without end", &hints(20_000), INVALID),
        case("a hint, then silence", &hints(1), Gets::Problem(504, "upstream_timeout")),
        case("a hint, then the end", &hints(1), GONE).closing(),
        case("a hint, then junk", &format!("{}junk\r\n\r\n", hints(1)), INVALID),
        case(
            "a hint with a length",
            &format!("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n{FINE}"),
            hello(),
        )
        .reusable(),
        case(
            "a switch nobody asked for",
            &format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{FINE}"),
            INVALID,
        ),
    ]
}
