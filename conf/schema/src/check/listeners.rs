//! Listeners against each other, and against the world.

use std::net::SocketAddr;

use crate::code::Code;
use crate::model::Config;
use crate::reader::Reader;
use crate::report::{Diagnostic, Severity, quote};

/// No two listeners on one address.
pub(super) fn listeners(reader: &mut Reader<'_>, config: &Config) {
    let listeners = config.listeners();
    for (at, (key, address)) in listeners.iter().enumerate() {
        let Some((other, _)) = listeners[..at].iter().find(|(_, earlier)| collide(*earlier, *address)) else {
            continue;
        };
        let message = format!("{} and {} both listen on {address}", quote(other), quote(key));
        // Blame the one that somebody wrote.
        let (blamed, related) = match (reader.place(key), reader.place(other)) {
            (Some(place), related) => (Some(place), related),
            (None, place) => (place, None),
        };
        let twice = Diagnostic::new(Code::DuplicateListener, message).at(blamed);
        reader.report(twice.related(related, "the other listener"));
    }
}

/// True where the second of two listeners could not be opened. Port 0 is any free port.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = |address: SocketAddr| address.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || everywhere(one) || everywhere(other))
}

/// A worker's port opens on this machine alone, but for the vault's: it speaks TLS.
pub(super) fn open_workers(reader: &mut Reader<'_>, config: &Config) {
    for (key, address) in config.listeners() {
        let worker = ["events.", "calc."].iter().any(|section| key.starts_with(section));
        if !worker || address.ip().is_loopback() {
            continue;
        }
        let message = format!("{} would serve {address} without TLS, which this version lacks", quote(key));
        let mut open = Diagnostic::new(Code::OpenWorker, message)
            .at(reader.place(key))
            .help("listen on 127.0.0.1; other machines reach the worker through the edge");
        if reader.mode.dev {
            open.severity = Severity::Warning;
        }
        reader.report(open);
    }
}
