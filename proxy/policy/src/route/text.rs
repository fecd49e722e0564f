//! Hosts, prefixes and paths as texts.

use super::SEGMENTS_MAX;

/// A `Host` value or authority without its port; brackets of an IPv6 address stay.
pub fn host_name(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

/// Where the path's segments end, and how many the table could use. Empty segments end nothing.
pub(super) fn borders(path: &str, depths: u32) -> ([usize; SEGMENTS_MAX + 1], usize) {
    let deepest = (31 - (depths | 1).leading_zeros() as usize).min(SEGMENTS_MAX);
    let mut borders = [0; SEGMENTS_MAX + 1];
    let (mut count, mut start) = (0, 1);
    while count < deepest && start < path.len() {
        let length = path[start..].find('/').unwrap_or(path.len() - start);
        if length > 0 {
            count += 1;
            borders[count] = start + length;
        }
        start += length + 1;
    }
    (borders, count)
}

/// Whether a text is a prefix whose one form is itself.
pub fn is_prefix(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(letter);
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

pub(super) fn depth(prefix: &str) -> usize {
    if prefix == "/" { 0 } else { prefix.matches('/').count() }
}
