//! The PROXY protocol: how a load balancer in front tells whose connection it passes on.
//!
//! Both versions of the specification. Exact rules: version 1 is one line of at most 107 bytes, addresses
//! and ports written canonically; version 2 is a block of at most 2 KiB whose extensions are
//! skipped. `LOCAL` and `UNKNOWN` mean the balancer speaks for itself. Anything else is a fault, as a
//! guess would give one client the address of another.
//!
//! [`read`] never asks for a byte behind the header, so that what follows (a TLS hello, a request) stays
//! in the socket. Cost: version 1 is asked for byte by byte behind its shortest form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// LIMIT: bytes of a version 1 line, its end included.
const LINE_MAX: usize = 107;
/// LIMIT: bytes behind the fixed part of a version 2 header.
const BLOCK_MAX: usize = 2_048;
/// The shortest line: `PROXY UNKNOWN` and its end.
const LINE_MIN: usize = 15;
/// First bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: signature, version and command, family, length.
const FIXED: usize = 16;

/// How far the bytes bring us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// At least so many more bytes belong to the header.
    Need(usize),
    /// The header is whole.
    Done(Origin),
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The balancer's own, such as a health check, or one it cannot name.
    Local,
    /// A client's: its address.
    Client(SocketAddr),
}

/// The bytes are no header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PROXY protocol header: {0}")]
pub struct ProxyHeaderFault(pub &'static str);

/// Reads a header from its first bytes.
///
/// # Errors
/// [`ProxyHeaderFault`] as soon as the bytes cannot become one.
pub fn read(bytes: &[u8]) -> Result<Step, ProxyHeaderFault> {
    let start = bytes.len().min(SIGNATURE.len());
    if bytes[..start] == SIGNATURE[..start] && !bytes.is_empty() {
        return read_block(bytes);
    }
    let start = bytes.len().min(6);
    if bytes[..start] != b"PROXY "[..start] {
        return Err(ProxyHeaderFault("no signature"));
    }
    read_line(bytes)
}

fn read_line(bytes: &[u8]) -> Result<Step, ProxyHeaderFault> {
    if bytes.len() < LINE_MIN {
        return Ok(Step::Need(LINE_MIN - bytes.len()));
    }
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        if bytes.contains(&b'\n') {
            return Err(ProxyHeaderFault("line end"));
        }
        return if bytes.len() < LINE_MAX {
            Ok(Step::Need(1))
        } else {
            Err(ProxyHeaderFault("line too long"))
        };
    };
    let line = std::str::from_utf8(line).map_err(|_| ProxyHeaderFault("not ASCII"))?;
    if line.contains(['\r', '\n']) {
        return Err(ProxyHeaderFault("line end"));
    }
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Step::Done(Origin::Local));
    }
    let mut next = || words.next().ok_or(ProxyHeaderFault("word missing"));
    let (source, destination, port, port_there) = (next()?, next()?, next()?, next()?);
    if words.next().is_some() {
        return Err(ProxyHeaderFault("word too many"));
    }
    let ip = match family {
        "TCP4" => IpAddr::V4(both::<Ipv4Addr>(source, destination)?),
        "TCP6" => IpAddr::V6(both::<Ipv6Addr>(source, destination)?),
        _ => return Err(ProxyHeaderFault("family")),
    };
    parse_port(port_there)?;
    Ok(Step::Done(Origin::Client(SocketAddr::new(ip, parse_port(port)?))))
}

fn both<T: FromStr>(source: &str, destination: &str) -> Result<T, ProxyHeaderFault> {
    let parse = |text: &str| text.parse().map_err(|_| ProxyHeaderFault("address"));
    parse(destination)?;
    parse(source)
}

/// Digits without sign or leading zero.
fn parse_port(text: &str) -> Result<u16, ProxyHeaderFault> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| canonical && digits).ok_or(ProxyHeaderFault("port"))
}

fn read_block(bytes: &[u8]) -> Result<Step, ProxyHeaderFault> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(Step::Need(FIXED - bytes.len()));
    };
    let (command, family) = (fixed[12], fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > BLOCK_MAX {
        return Err(ProxyHeaderFault("block too long"));
    }
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyHeaderFault("version or command"));
    }
    if rest.len() < length {
        return Ok(Step::Need(length - rest.len()));
    }
    if command == 0x20 {
        return Ok(Step::Done(Origin::Local));
    }
    let short = ProxyHeaderFault("block too short");
    let port = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let client = match family {
        // TCP over IPv4: two addresses, two ports.
        0x11 if length >= 12 => {
            let ip: [u8; 4] = rest[..4].try_into().map_err(|_| short)?;
            SocketAddr::new(Ipv4Addr::from(ip).into(), port(8).ok_or(short)?)
        }
        // TCP over IPv6.
        0x21 if length >= 36 => {
            let ip: [u8; 16] = rest[..16].try_into().map_err(|_| short)?;
            SocketAddr::new(Ipv6Addr::from(ip).into(), port(32).ok_or(short)?)
        }
        0x11 | 0x21 => return Err(short),
        // The specification has the receiver use the real address where the family is not told.
        0x00 => return Ok(Step::Done(Origin::Local)),
        _ => return Err(ProxyHeaderFault("family")),
    };
    Ok(Step::Done(Origin::Client(client)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads as a socket would be read: what is asked for and no more.
    fn drive(bytes: &[u8]) -> Result<(Origin, usize), ProxyHeaderFault> {
        let mut taken = 0;
        loop {
            match read(&bytes[..taken])? {
                Step::Done(origin) => return Ok((origin, taken)),
                Step::Need(count) if taken + count <= bytes.len() => taken += count,
                Step::Need(_) => return Err(ProxyHeaderFault("more asked for than there is")),
            }
        }
    }

    fn block(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn an_empty_start_asks_for_bytes() {
        assert_eq!(read(b""), Ok(Step::Need(LINE_MIN)));
        assert_eq!(read(b"PRO"), Ok(Step::Need(12)));
    }

    #[test]
    fn lines() {
        let client = |text: &str| Ok(Origin::Client(text.parse().unwrap()));
        let fault = |reason| Err(ProxyHeaderFault(reason));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", client("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", client("[2001:db8::1]:1")),
            ("PROXY UNKNOWN\r\n", Ok(Origin::Local)),
            ("PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", Ok(Origin::Local)),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n", fault("word missing")),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", fault("word too many")),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", fault("port")),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", fault("port")),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n", fault("port")),
            ("PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n", fault("address")),
            ("PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n", fault("address")),
            ("PROXY TCP6 192.0.2.1 2001:db8::2 1 2\r\n", fault("address")),
            ("PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", fault("family")),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", fault("line end")),
            ("PROXY TCP4 192.0.2.1\r198.51.100.2 1 2\r\n", fault("line end")),
            ("GET / HTTP/1.1\r\n", fault("no signature")),
            ("PROXYTCP4 192.0.2.1 198.51.100.2 1 2\r\n", fault("no signature")),
        ] {
            let read = drive(line.as_bytes()).map(|(origin, taken)| {
                assert_eq!(taken, line.len(), "{line:?}");
                origin
            });
            assert_eq!(read, expected, "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(drive(long.as_bytes()), Err(ProxyHeaderFault("line too long")));
    }

    #[test]
    fn blocks() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 1, 0xbb];
        let client = Origin::Client("192.0.2.1:56324".parse().unwrap());
        assert_eq!(drive(&block(0x21, 0x11, &four)), Ok((client, 28)));
        let with_extension = [&four[..], &[4, 0, 1, 0]].concat();
        assert_eq!(drive(&block(0x21, 0x11, &with_extension)), Ok((client, 32)));
        assert_eq!(drive(&block(0x20, 0x00, &[])), Ok((Origin::Local, 16)));
        assert_eq!(drive(&block(0x21, 0x00, &[1, 2])), Ok((Origin::Local, 18)));
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[32..34].copy_from_slice(&[0, 80]);
        let client = Origin::Client("[2001::]:80".parse().unwrap());
        assert_eq!(drive(&block(0x21, 0x21, &six)), Ok((client, 52)));
        for (command, family, body, reason) in [
            (0x21, 0x11, &four[..11], "block too short"),
            (0x21, 0x21, &six[..35], "block too short"),
            (0x22, 0x11, &four[..], "version or command"),
            (0x11, 0x11, &four[..], "version or command"),
            (0x21, 0x12, &four[..], "family"),
            (0x21, 0x31, &four[..], "family"),
        ] {
            assert_eq!(drive(&block(command, family, body)), Err(ProxyHeaderFault(reason)));
        }
        let mut long = block(0x21, 0x11, &four);
        long[14] = 0xff;
        assert_eq!(read(&long), Err(ProxyHeaderFault("block too long")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_ask_for_what_lies_behind(bytes in proptest::collection::vec(any::<u8>(), 0..64), tail in any::<bool>()) {
            let mut header = b"PROXY TCP4 ".to_vec();
            if tail { header = SIGNATURE.to_vec(); }
            header.extend(&bytes);
            let _no_panic = (drive(&header), drive(&bytes));
        }

        #[test]
        fn a_written_line_is_read_back(ip in any::<[u8; 4]>(), port in any::<u16>(), behind in any::<[u8; 8]>()) {
            let client = SocketAddr::new(Ipv4Addr::from(ip).into(), port);
            let line = format!("PROXY TCP4 {} 192.0.2.1 {port} 443\r\n", client.ip());
            let bytes = [line.as_bytes(), &behind].concat();
            prop_assert_eq!(drive(&bytes), Ok((Origin::Client(client), line.len())));
        }
    }
}
