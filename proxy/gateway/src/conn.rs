//! What is known of a client connection for its whole life.

use std::net::SocketAddr;

/// A client connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// The client; behind a proxy that speaks the PROXY protocol the one it names.
    pub(crate) peer: SocketAddr,
    /// The other end of the socket.
    pub(crate) direct: SocketAddr,
    /// This end of the socket.
    pub(crate) local: SocketAddr,
    /// Its TLS session; `None` for plain text.
    pub(crate) tls: Option<TlsSession>,
}

/// What a TLS handshake agreed on.
#[derive(Debug)]
pub(crate) struct TlsSession {
    /// The host name the client asked for, lower case.
    pub(crate) sni: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
}

/// The version of HTTP a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// The word for it in the access log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}
