//! Cases about heads: the fields that frame a request, lines and their ends.

use super::case::Case;

const FRAMING: &str = "bad_framing";

/// A POST with these field lines, then `body`.
pub fn post(lines: &str, body: &str) -> String {
    format!("POST /api/TAG00 HTTP/1.1\r\nHost: edge\r\n{lines}\r\n{body}")
}

pub fn cases() -> Vec<Case> {
    [lengths(), codings(), passing(), lines()].concat()
}

fn lengths() -> Vec<Case> {
    let lists = [
        ("length, then coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("coding, then length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("length 0 and coding", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        ("length and coding in odd case", "cONTENT-lENGTH: 5\r\ntRANSFER-eNCODING: CHUNKED\r\n"),
        ("length twice, same", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("length twice, different", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("length twice, other case", "Content-Length: 5\r\ncontent-length: 5\r\n"),
        ("length twice, one empty", "Content-Length: 5\r\nContent-Length:\r\n"),
        ("length thrice", "Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\nContent-Length: 5\r\n"),
        ("length with space before colon", "Content-Length : 5\r\n"),
        ("length with tab before colon", "Content-Length\t: 5\r\n"),
        ("length folded", "Content-Length: 5\r\n 6\r\n"),
        ("length on a folded line", "X: y\r\n Content-Length: 5\r\n"),
        ("length behind a bare LF", "X: y\nContent-Length: 5\r\n"),
        ("length behind a bare CR", "X: y\rContent-Length: 5\r\n"),
        ("NUL in the name of the length", "Content-Length\\x00: 5\r\n"),
        ("control byte in the name of the length", "\\x0bContent-Length: 5\r\n"),
    ];
    let values = [
        "5, 5",
        "5,5",
        "5,",
        ",5",
        "5;5",
        "5 5",
        "5\t5",
        "+5",
        "-5",
        "-0",
        "0x5",
        "5_0",
        "1e1",
        "5.",
        "5.0",
        "",
        " ",
        "\"5\"",
        "'5'",
        "five",
        "NaN",
        "Infinity",
        "\\xd9\\xa5",
        "5\\x0b",
        "\\x0c5",
        "5\\x00",
        "\\xa05",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999",
        "00000000000000000005",
        "340282366920938463463374607431768211461",
    ];
    let lists = lists
        .into_iter()
        .map(|(name, lines)| Case::refused(name, 400, FRAMING, &post(lines, "5\r\nhello\r\n0\r\n\r\n")));
    let values = values.into_iter().map(|value| {
        let lines = format!("Content-Length: {value}\r\n");
        Case::refused(format!("length {value:?}"), 400, FRAMING, &post(&lines, "hello"))
    });
    lists.chain(values).collect()
}

fn codings() -> Vec<Case> {
    let unknown = [
        "gzip",
        "identity",
        "deflate",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "x-chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "chunked;",
        "\"chunked\"",
        "'chunked'",
        "chun ked",
        "chunked chunked",
        "\\xffchunked",
        "chunked\\xa0",
        "cow",
        "chunked; foo=bar",
    ];
    let malformed = [
        "chunked, chunked",
        "chunked,chunked",
        "chunked,",
        ",chunked",
        ", chunked",
        ",",
        "",
        "chunked\\x0b",
        "\\x0bchunked",
        "\\x0cchunked",
        "chunked\\x00",
        "chunked\\x7f",
        "chunked\r\n ",
        "\r\n chunked",
        "chunked\rX: y",
        "chunked\nX: y",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-encoding: cow",
        "\r\nTransfer-Encoding: chunked",
    ];
    let lines = [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding \r\n : chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding\\x00: chunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding\\xc2\\xa0: chunked\r\n",
        "Transfer\\xe2\\x80\\x90Encoding: chunked\r\n",
        "Foo: bar\r\n\rTransfer-Encoding: chunked\r\n",
        "Transfer Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "\r\nTransfer-Encoding: chunked\r\n",
    ];
    let of = |status, code| {
        move |value: &str| {
            let raw = post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
            Case::refused(format!("coding {value:?}"), status, code, &raw)
        }
    };
    let old = |name, lines| {
        Case::refused(
            name,
            400,
            FRAMING,
            &format!("POST /api/TAG00 HTTP/1.0\r\nHost: edge\r\n{lines}\r\n0\r\n\r\n"),
        )
    };
    let mut all: Vec<Case> = unknown.into_iter().map(of(501, "not_implemented")).collect();
    all.extend(malformed.into_iter().map(of(400, FRAMING)));
    // An empty line ends the head: what follows is not a field but the next request, and a malformed one.
    let (last, lines) = lines.split_last().expect("not empty");
    all.extend(lines.iter().map(|lines| {
        Case::refused(format!("coding line {lines:?}"), 400, FRAMING, &post(lines, "0\r\n\r\n"))
    }));
    let mut early =
        Case::passed("head ended before the coding", &post(last, "0\r\n\r\n"), "POST /TAG00 HTTP/1.1", "");
    early.answers.push((400, FRAMING));
    all.push(early.closing());
    all.push(old("coding in HTTP/1.0", "Transfer-Encoding: chunked\r\n"));
    all.push(old("length and coding in HTTP/1.0", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"));
    all.push(old("identity in HTTP/1.0", "Transfer-Encoding: identity\r\n"));
    all
}

/// Framing that is unusual and right.
fn passing() -> Vec<Case> {
    let line = "POST /TAG00 HTTP/1.1";
    let coded = |value: &str| {
        let raw = post(&format!("Transfer-Encoding:{value}\r\n"), "5\r\nhello\r\n0\r\n\r\n");
        Case::passed(format!("coding {value:?} passes"), &raw, line, "hello")
            .has("transfer-encoding", "chunked")
    };
    let sized = |value: &str| {
        let raw = post(&format!("content-length:{value}\r\n"), "hello");
        Case::passed(format!("length {value:?} passes"), &raw, line, "hello").has("content-length", "5")
    };
    let mut all: Vec<Case> =
        [" chunked", "chunked", "\tchunked \t", " Chunked", " CHUNKED"].map(coded).into();
    all.extend([" 5", "5", "\t5\t ", " 05", " 0000000000000000005"].map(sized));
    all.extend([
        Case::passed("no body at all", &post("", ""), line, ""),
        Case::passed("length 0", &post("Content-Length: 0\r\n", ""), line, "").has("content-length", "0"),
        Case::passed("no chunk but the last", &post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), line, ""),
        Case::passed("GET with a body",
            "GET /api/TAG00 HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\nhello", "GET /TAG00 HTTP/1.1", "hello"),
        Case::passed("GET with chunks",
            "GET /api/TAG00 HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "GET /TAG00 HTTP/1.1", "hello"),
        Case::passed("DELETE with a body",
            "DELETE /api/TAG00 HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\nhello", "DELETE /TAG00 HTTP/1.1", "hello"),
        Case::passed("HEAD", "HEAD /api/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n", "HEAD /TAG00 HTTP/1.1", "").bodiless(),
        Case::passed("HEAD with a body", "HEAD /api/TAG00 HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\nhello",
            "HEAD /TAG00 HTTP/1.1", "hello").bodiless(),
        Case::passed("length nominated by Connection", &post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
            line, "hello").has("content-length", "5").lacks("connection"),
        Case::passed("coding nominated by Connection",
            &post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), line, "hello"),
        Case::passed("a name that looks like the length", &post("Content_Length: 5\r\nContent-Lengthy: 5\r\n", ""), line, "")
            .has("content-lengthy", "5").lacks("content_length").lacks("content-length"),
        Case::passed("a name that looks like the coding", &post("Transfer_Encoding: chunked\r\nX-Transfer-Encoding: chunked\r\n", ""),
            line, "").lacks("transfer_encoding").lacks("transfer-encoding"),
        Case::passed("an empty line before the request", &format!("\r\n{}", post("", "")), line, ""),
    ]);
    all
}

fn lines() -> Vec<Case> {
    let head = |name: &str, raw: &str| Case::refused(name, 400, FRAMING, raw);
    let fields = [
        ("name with space before colon", "X : y\r\n"),
        ("name with tab before colon", "X\t: y\r\n"),
        ("empty name", ": y\r\n"),
        ("only a colon", ":\r\n"),
        ("line without colon", "nocolon\r\n"),
        ("two words without colon", "no colon\r\n"),
        ("space in a name", "X y: z\r\n"),
        ("paren in a name", "X(y): z\r\n"),
        ("slash in a name", "X/y: z\r\n"),
        ("at in a name", "X@y: z\r\n"),
        ("quote in a name", "\"X\": y\r\n"),
        ("comma in a name", "X,Y: z\r\n"),
        ("bracket in a name", "X[0]: z\r\n"),
        ("brace in a name", "{X}: z\r\n"),
        ("8-bit name", "X\\xe9: y\r\n"),
        ("delete in a name", "X\\x7f: y\r\n"),
        ("NUL in a name", "X\\x00y: z\r\n"),
        ("NUL in a value", "X: a\\x00b\r\n"),
        ("NUL ends a value", "X: a\\x00\r\n"),
        ("bell in a value", "X: a\\x07b\r\n"),
        ("delete in a value", "X: a\\x7fb\r\n"),
        ("escape in a value", "X: \\x1b[31m\r\n"),
        ("vertical tab in a value", "X: a\\x0bb\r\n"),
        ("form feed in a value", "X: a\\x0cb\r\n"),
        ("bare CR in a value", "X: a\rb\r\n"),
        ("bare CR ends a value", "X: a\r\r\n"),
        ("bare CR in a name", "X\rY: z\r\n"),
        ("bare CR is a line", "\rX: y\r\n"),
        ("bare LF in a value", "X: a\nb\r\n"),
        ("bare LF ends a line", "X: y\n"),
        ("bare LF in a name", "X\nY: z\r\n"),
        ("bare LF smuggles a field", "X: y\nX-User: root\r\n"),
        ("folded by space", "X: a\r\n b\r\n"),
        ("folded by tab", "X: a\r\n\tb\r\n"),
        ("folded to nothing", "X: a\r\n \r\n"),
        ("LF before CR", "X: a\n\r"),
    ];
    let mut all: Vec<Case> = fields.iter().map(|(name, lines)| head(name, &post(lines, ""))).collect();
    let after = "Host: edge\r\nX-Tag: TAG00\r\n\r\n";
    let starts = [
        ("LF ends the request line", "GET /api HTTP/1.1\n"),
        ("CR ends the request line", "GET /api HTTP/1.1\r"),
        ("CR CR LF ends the request line", "GET /api HTTP/1.1\r\r\n"),
        ("LF CR ends the request line", "GET /api HTTP/1.1\n\r"),
        ("NUL in the method", "G\\x00T /api HTTP/1.1\r\n"),
        ("NUL in the version", "GET /api HTTP/1.\\x001\r\n"),
        ("CR in the method", "G\rT /api HTTP/1.1\r\n"),
        ("space before the method", " GET /api HTTP/1.1\r\n"),
        ("tab after the method", "GET\t/api HTTP/1.1\r\n"),
        ("no method", "/api HTTP/1.1\r\n"),
        ("paren in the method", "G(T /api HTTP/1.1\r\n"),
        ("8-bit method", "G\\xc9T /api HTTP/1.1\r\n"),
        ("space after the version", "GET /api HTTP/1.1 \r\n"),
        ("no version", "GET /api\r\n"),
        ("only a method", "GET\r\n"),
        ("lower-case version", "GET /api http/1.1\r\n"),
        ("version without digits", "GET /api HTTP/\r\n"),
        ("version 1", "GET /api HTTP/1\r\n"),
        ("version 1.10", "GET /api HTTP/1.10\r\n"),
        ("version 01.1", "GET /api HTTP/01.1\r\n"),
        ("version with comma", "GET /api HTTP/1,1\r\n"),
        ("version of another protocol", "GET /api ICAP/1.0\r\n"),
        ("version run together", "GET /apiHTTP/1.1\r\n"),
        ("space before the first field", "GET /api HTTP/1.1\r\n X: y\r\n"),
        ("tab before the first field", "GET /api HTTP/1.1\r\n\tX: y\r\n"),
        ("two empty lines first", "\r\n\r\nGET /api HTTP/1.1\r\n"),
        ("LF first", "\nGET /api HTTP/1.1\r\n"),
        ("a handshake of TLS", "\\x16\\x03\\x01\\x02\\x00\\x01\r\n"),
        ("a PROXY line nobody asked for", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /api HTTP/1.1\r\n"),
    ];
    all.extend(starts.iter().map(|(name, start)| head(name, &format!("{start}{after}"))));
    all.extend(
        [
            ("HTTP/0.9", "HTTP/0.9"),
            ("HTTP/1.2", "HTTP/1.2"),
            ("HTTP/2.0", "HTTP/2.0"),
            ("HTTP/9.9", "HTTP/9.9"),
        ]
        .map(|(name, version)| {
            Case::refused(name, 505, "http_version_not_supported", &format!("GET /api {version}\r\n{after}"))
        }),
    );
    all.push(Case::refused(
        "greeting of HTTP/2 that goes on otherwise",
        505,
        "http_version_not_supported",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ));
    all.push(head("LF everywhere", "GET /api HTTP/1.1\nHost: edge\nX-Tag: TAG00\n\n"));
    all.push(head("LF ends the head", "GET /api HTTP/1.1\r\nHost: edge\r\nX: y\r\n\n"));
    all.push(head("CR CR LF ends the head", "GET /api HTTP/1.1\r\nHost: edge\r\nX: y\r\n\r\r\n\r\n"));
    all
}
