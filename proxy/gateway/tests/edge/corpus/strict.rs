//! A second reading of HTTP/1.1 requests, written apart from the edge's: what is not exactly right is wrong.
//!
//! It is the judge of what reaches an upstream, and the reference that mutated requests are compared with.

/// One request, cut out of a byte stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    /// In the order they came, names in lower case, values trimmed.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Decoded.
    pub body: Vec<u8>,
    pub head_bytes: usize,
    pub bytes: usize,
}

/// What the start of a byte stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Whole(Box<Request>),
    /// Right so far, and not all of it.
    Partial,
    Wrong(&'static str),
}

impl Request {
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_slice()).collect()
    }
}

/// Reads the first request of `bytes`.
pub fn read(bytes: &[u8]) -> Reading {
    match request(bytes) {
        Ok(Some(request)) => Reading::Whole(Box::new(request)),
        Ok(None) => Reading::Partial,
        Err(why) => Reading::Wrong(why),
    }
}

/// Reads all requests of `bytes`; what follows the last whole one comes second.
pub fn read_all(mut bytes: &[u8]) -> (Vec<Request>, Reading) {
    let mut all = Vec::new();
    loop {
        match read(bytes) {
            Reading::Whole(request) => {
                bytes = &bytes[request.bytes..];
                all.push(*request);
            }
            other => return (all, other),
        }
    }
}

fn request(bytes: &[u8]) -> Result<Option<Request>, &'static str> {
    let lead = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let Some((line, mut at)) = line(bytes, lead)? else { return Ok(None) };
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err("request line") };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err("method");
    }
    if !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return Err("version");
    }
    check_target(target)?;
    let mut fields = Vec::new();
    loop {
        let Some((line, next)) = self::line(bytes, at)? else { return Ok(None) };
        at = next;
        if line.is_empty() {
            break;
        }
        fields.push(field(line)?);
    }
    let mut request = Request {
        method: text(method),
        target: text(target),
        version: text(version),
        fields,
        body: Vec::new(),
        head_bytes: at,
        bytes: at,
    };
    check_host(&request)?;
    Ok(body(&mut request, bytes)?.map(|()| request))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One line that ends in CRLF and holds neither CR nor LF nor any control byte but tabs.
fn line(bytes: &[u8], from: usize) -> Result<Option<(&[u8], usize)>, &'static str> {
    for at in from..bytes.len() {
        match bytes[at] {
            b'\r' => match bytes.get(at + 1) {
                Some(b'\n') => return Ok(Some((&bytes[from..at], at + 2))),
                Some(_) => return Err("CR without LF"),
                None => return Ok(None),
            },
            b'\n' => return Err("LF without CR"),
            b'\t' | b' '..=b'~' | 0x80.. => {}
            _ => return Err("control byte"),
        }
    }
    Ok(None)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn check_target(target: &[u8]) -> Result<(), &'static str> {
    let plain = target.iter().all(|byte| byte.is_ascii_graphic() && !b"#\\".contains(byte));
    let lower = text(target).to_ascii_lowercase();
    let form = lower.starts_with('/') || lower.starts_with("http://") || lower.starts_with("https://");
    if plain && form { Ok(()) } else { Err("target") }
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon")?;
    let name = &line[..colon];
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err("field name");
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let value = &line[colon + 1..];
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    Ok((text(name).to_ascii_lowercase(), value[start..end].to_vec()))
}

fn check_host(request: &Request) -> Result<(), &'static str> {
    let hosts = request.values("host");
    let [host] = hosts[..] else { return Err("host count") };
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    if host.is_empty() || !host.iter().all(usual) { Err("host") } else { Ok(()) }
}

fn body(request: &mut Request, bytes: &[u8]) -> Result<Option<()>, &'static str> {
    let lengths = request.values("content-length");
    let codings = request.values("transfer-encoding");
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Some(())),
        ([length], []) => {
            if length.is_empty() || length.len() > 19 || !length.iter().all(u8::is_ascii_digit) {
                return Err("content-length");
            }
            let length: usize = text(length).parse().map_err(|_| "content-length")?;
            let end = request.head_bytes.checked_add(length).ok_or("content-length")?;
            let Some(body) = bytes.get(request.head_bytes..end) else { return Ok(None) };
            request.body = body.to_vec();
            request.bytes = end;
            Ok(Some(()))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && request.version == "HTTP/1.1" => {
            chunks(request, bytes)
        }
        _ => Err("framing fields"),
    }
}

fn chunks(request: &mut Request, bytes: &[u8]) -> Result<Option<()>, &'static str> {
    let mut at = request.head_bytes;
    loop {
        let Some((size_line, next)) = line(bytes, at)? else {
            return check_size_start(&bytes[at..]).map(|()| None);
        };
        let digits = size_line.split(|byte| *byte == b';').next().unwrap_or(size_line);
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("chunk size");
        }
        let size = u64::from_str_radix(&text(digits), 16).map_err(|_| "chunk size")? as usize;
        at = next;
        if size == 0 {
            break;
        }
        let Some(end) = at.checked_add(size) else { return Err("chunk size") };
        let Some(data) = bytes.get(at..end) else { return Ok(None) };
        request.body.extend_from_slice(data);
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => at = end + 2,
            Some(_) => return Err("chunk end"),
            None => return Ok(None),
        }
    }
    loop {
        let Some((trailer, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        if trailer.is_empty() {
            request.bytes = at;
            return Ok(Some(()));
        }
        field(trailer)?;
    }
}

/// A size line that has not ended may still be wrong already.
fn check_size_start(bytes: &[u8]) -> Result<(), &'static str> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    match bytes.get(digits) {
        None => Ok(()),
        Some(b';' | b'\r') if digits > 0 => Ok(()),
        Some(_) => Err("chunk size"),
    }
}

#[test]
fn the_reference_reads_what_is_right_and_nothing_else() {
    let whole = |bytes: &[u8]| match read(bytes) {
        Reading::Whole(request) => *request,
        other => panic!("{other:?}"),
    };
    let get = whole(b"GET /a HTTP/1.1\r\nHost: h\r\nX:  y \r\n\r\nrest");
    assert_eq!((get.target.as_str(), get.values("x"), get.bytes), ("/a", vec![&b"y"[..]], 36));
    let post = whole(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcX");
    assert_eq!((post.body.as_slice(), post.bytes), (&b"abc"[..], 51));
    let chunked = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\nT: x\r\n\r\n";
    assert_eq!(whole(chunked).body, b"abc");
    for cut in 0..chunked.len() {
        assert_eq!(read(&chunked[..cut]), Reading::Partial, "{cut}");
    }
    for wrong in [
        &b"GET /a HTTP/1.1\nHost: h\n\n"[..],
        b"GET /a HTTP/1.1\r\n\r\n",
        b"GET /a  HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+2",
    ] {
        assert!(matches!(read(wrong), Reading::Wrong(_)), "{}", wrong.escape_ascii());
    }
}
