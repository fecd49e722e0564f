//! The connections of one edge thread to instances of HTTP/2 that calls share.
//!
//! They are the framework's, with its limits: streams of a connection, windows, pings (`endpoint.rs`), and
//! when an idle one is closed. Its own proxy loop has others, which nobody outside can use.

use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::v2::Connector;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::upstreams::peer::{HttpPeer, Peer as _};

/// The connections of one thread.
pub(crate) struct Lines(Connector);

impl Lines {
    /// None yet; `idle_max` are kept without a call.
    pub(crate) fn new(idle_max: usize) -> Self {
        let mut options = ConnectorOptions::new(idle_max);
        // Roots are named by each service: none are loaded here, and a machine without any starts.
        options.ca_file = Some("/dev/null".to_owned());
        Self(Connector::new(Some(options)))
    }

    /// A stream to an instance, and whether its connection stood already; `None` where the instance chose HTTP/1.
    pub(super) async fn stream(&self, peer: &HttpPeer) -> pingora::Result<Option<(Http2Session, bool)>> {
        if let Some(session) = self.0.reused_http_session(peer).await? {
            return Ok(Some((session, true)));
        }
        // Boxed: what a handshake needs is large, and given back when it is over.
        let made: HttpSession = Box::pin(self.0.new_http_session(peer)).await?;
        Ok(match made {
            HttpSession::H2(session) => Some((session, false)),
            HttpSession::H1(_) | HttpSession::Custom(()) => None,
        })
    }

    /// Gives a stream back; its connection takes the next one, or is idle.
    pub(super) fn release(&self, session: Http2Session, peer: &HttpPeer) {
        self.0.release_http_session(session, peer, peer.idle_timeout());
    }
}
