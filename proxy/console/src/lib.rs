//! The dashboard: one page of plain ES modules, embedded in the binary.
//!
//! Knows: its files, their content types and validators, and the policy a browser must enforce on them.
//! Must not know: HTTP, the gateway, where the figures come from. The page's own contract is in
//! `snapshot.js` (what the gateway streams to it) and `api.js` (what it calls).
//!
//! The control port serves `index.html` at `/dashboard` and every other file at `/dashboard/<path>`;
//! `/dashboard/stream` is the gateway's. There is no build step: what is in this folder is what is served.

/// What a browser may do with the page; the control port sends it with every file.
///
/// `index.html` repeats all of it but `frame-ancestors`, which a page cannot set for itself.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One embedded file, ready to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The bytes, uncompressed.
    pub bytes: &'static [u8],
    /// Strong validator, quoted; changes with the bytes.
    pub etag: &'static str,
}

/// The file at `path`, relative to `/dashboard/` (`index.html`, `views/strip.js`); `None` when there is none.
///
/// The table is the allow list: the path is compared, never opened, so it needs no cleaning.
pub fn asset(path: &str) -> Option<Asset> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, asset)| *asset)
}

macro_rules! files {
    ($($path:literal => $content_type:expr),* $(,)?) => {
        &[$(($path, {
            const BYTES: &[u8] = include_bytes!(concat!("../", $path));
            const TAG: [u8; 18] = tag(BYTES);
            const ETAG: &str = match std::str::from_utf8(&TAG) {
                Ok(text) => text,
                Err(_) => panic!("hexadecimal digits are UTF-8"),
            };
            Asset { content_type: $content_type, bytes: BYTES, etag: ETAG }
        })),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

const FILES: &[(&str, Asset)] = files! {
    "index.html" => HTML,
    "style.css" => STYLE,
    "icon.svg" => IMAGE,
    "app.js" => SCRIPT,
    "api.js" => SCRIPT,
    "bars.js" => SCRIPT,
    "chart.js" => SCRIPT,
    "dom.js" => SCRIPT,
    "format.js" => SCRIPT,
    "live.js" => SCRIPT,
    "snapshot.js" => SCRIPT,
    "views/alerts.js" => SCRIPT,
    "views/breaker.js" => SCRIPT,
    "views/groups.js" => SCRIPT,
    "views/holds.js" => SCRIPT,
    "views/instrument.js" => SCRIPT,
    "views/kill.js" => SCRIPT,
    "views/lanes.js" => SCRIPT,
    "views/routes.js" => SCRIPT,
    "views/security.js" => SCRIPT,
    "views/strip.js" => SCRIPT,
    "views/tape.js" => SCRIPT,
    "views/token.js" => SCRIPT,
    "views/upstreams.js" => SCRIPT,
};

/// The quoted FNV-1a hash of the bytes: told apart is all a validator must, an adversary writes no files here.
const fn tag(bytes: &[u8]) -> [u8; 18] {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    let mut text = [b'"'; 18];
    let mut place = 0;
    while place < 16 {
        text[place + 1] = b"0123456789abcdef"[(hash >> (60 - 4 * place)) as usize & 15];
        place += 1;
    }
    text
}

#[cfg(test)]
mod tests;
