//! Embedded files.

/// A file embedded in the binary, as the control port serves it.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The bytes.
    pub bytes: &'static [u8],
    /// Strong validator, quoted.
    pub etag: &'static str,
}
