//! The stable numbers of every finding. A number is never reused; `conf/DESIGN.md` lists them.

use std::fmt;

/// What is wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A file cannot be read, or is not UTF-8.
    Unreadable,
    /// A file, or all of them together, is too large.
    TooLarge,
    /// The text is not TOML.
    Syntax,
    /// Too many services or files.
    TooMany,
    /// There are more findings than are reported.
    MoreFindings,
    /// No version of Sluice has this key.
    UnknownKey,
    /// A key of Sluice that this version does not implement.
    PlannedKey,
    /// The value has another type.
    WrongType,
    /// A key that must be there is not.
    MissingKey,
    /// A section that belongs in the main file.
    Misplaced,
    /// Not a duration, or out of its range.
    Duration,
    /// Not a size, or out of its range.
    Size,
    /// Not a socket address.
    Address,
    /// Not a network.
    Network,
    /// Not an instance address.
    Url,
    /// Not a method, or one that cannot be configured.
    Method,
    /// A number out of its range.
    Range,
    /// Not one of the words this key takes.
    Word,
    /// Not a header name or value, or a header Sluice owns.
    Header,
    /// Not a path prefix.
    Prefix,
    /// Not a name.
    Name,
    /// Not a host name.
    Host,
    /// Not a permission.
    Permission,
    /// Not a reference to a secret.
    SecretReference,
    /// Not a path.
    Path,
    /// A list is too long, or names something twice.
    List,
    /// A value of Sluice that this version does not implement.
    PlannedValue,
    /// Not an origin.
    Origin,
    /// Not a regular expression, or a replacement that does not fit it.
    Pattern,
    /// Not a digest.
    Digest,
    /// Two services of one name.
    DuplicateService,
    /// Two services match the same requests.
    EqualMatch,
    /// A prefix that Sluice answers itself.
    ReservedPrefix,
    /// A service that no request can reach.
    Shadowed,
    /// Timeouts nested the wrong way.
    TimeoutOrder,
    /// A probe that outlasts its interval.
    HealthOrder,
    /// Two listeners on one address.
    DuplicateListener,
    /// A rate limit that contradicts itself.
    RateOrder,
    /// One instance listed twice.
    DuplicateInstance,
    /// A worker's port open to other machines without TLS.
    OpenWorker,
    /// A permission for a method the service never gets.
    DeadPermission,
    /// More services of one prefix and host than a request can ask.
    SharedPrefix,
    /// An `https` instance without a name its certificate must carry.
    NoServerName,
    /// Rules for web pages that contradict each other.
    CorsConflict,
    /// A split that cannot be made.
    BadSplit,
    /// A fallback that cannot be given.
    BadFallback,
    /// A mirror that gets no copies.
    BadMirror,
    /// A key that can be guessed.
    WeakSecret,
    /// A secret that cannot be read.
    UnreadableSecret,
    /// A variable and its `_FILE` form are both set.
    TwiceSet,
    /// A certificate, key or CA that cannot be read.
    CertificateFile,
    /// A file that is no certificate or key in PEM.
    Pem,
    /// A private key that is not the certificate's.
    KeyMismatch,
    /// A certificate outside its time.
    Expired,
    /// A server's certificate without names.
    NamelessCertificate,
    /// Clients are to be checked against a CA that cannot check any.
    UnusableAuthority,
    /// A service without instances.
    NoInstances,
    /// A variable or key without effect.
    NoEffect,
    /// TLS that takes any certificate.
    Unverified,
    /// A certificate that ends soon.
    ExpiresSoon,
}

/// Code, number, meaning: the table in `conf/DESIGN.md`.
const TABLE: &[(Code, &str, &str)] = &[
    (Code::Unreadable, "E0001", "a file cannot be read, or is not UTF-8"),
    (Code::TooLarge, "E0002", "a file is larger than 1 MiB, or all together are larger than 64 MiB"),
    (Code::Syntax, "E0003", "the text is not TOML"),
    (Code::TooMany, "E0004", "more than 10,000 services or files"),
    (Code::MoreFindings, "E0005", "more findings than are reported"),
    (Code::UnknownKey, "E0101", "unknown key"),
    (Code::PlannedKey, "E0102", "a key that this version does not implement yet"),
    (Code::WrongType, "E0103", "the value has another type"),
    (Code::MissingKey, "E0104", "a required key is missing"),
    (Code::Misplaced, "E0105", "a section that belongs in the main file"),
    (Code::Duration, "E0201", "not a duration, or out of its range"),
    (Code::Size, "E0202", "not a size, or out of its range"),
    (Code::Address, "E0203", "not a socket address"),
    (Code::Network, "E0204", "not a network"),
    (Code::Url, "E0205", "not an instance address"),
    (Code::Method, "E0206", "not a method that can be configured"),
    (Code::Range, "E0207", "a number out of its range"),
    (Code::Word, "E0208", "not one of the words this key takes"),
    (Code::Header, "E0209", "not a header, or a header that Sluice owns"),
    (Code::Prefix, "E0210", "not a path prefix"),
    (Code::Name, "E0211", "not a name"),
    (Code::Host, "E0212", "not a host name"),
    (Code::Permission, "E0213", "not a permission"),
    (Code::SecretReference, "E0214", "not a reference to a secret"),
    (Code::Path, "E0215", "not a path"),
    (Code::List, "E0216", "a list that is too long, or names something twice"),
    (Code::PlannedValue, "E0217", "a value that this version does not implement yet"),
    (Code::Origin, "E0220", "not an origin as browsers send it"),
    (Code::Pattern, "E0221", "not a pattern and replacement that can be used"),
    (Code::Digest, "E0222", "not a SHA-256 digest"),
    (Code::DuplicateService, "E0301", "two services of one name"),
    (Code::EqualMatch, "E0302", "two services match the same requests"),
    (Code::ReservedPrefix, "E0303", "a prefix that Sluice answers itself"),
    (Code::Shadowed, "E0304", "a service that no request can reach"),
    (Code::TimeoutOrder, "E0305", "timeouts nested the wrong way"),
    (Code::HealthOrder, "E0306", "a health probe that outlasts its interval"),
    (Code::DuplicateListener, "E0307", "two listeners on one address"),
    (Code::RateOrder, "E0308", "a rate limit that contradicts itself"),
    (Code::DuplicateInstance, "E0309", "one instance listed twice"),
    (Code::OpenWorker, "E0310", "a worker's port open to other machines without TLS"),
    (Code::DeadPermission, "E0311", "a permission for a method that the service never gets"),
    (Code::SharedPrefix, "E0312", "more than 64 services of one prefix and host"),
    (Code::NoServerName, "E0313", "an https instance without `tls.sni`"),
    (Code::CorsConflict, "E0320", "rules for web pages that contradict each other"),
    (Code::BadSplit, "E0321", "a split that cannot be made"),
    (Code::BadFallback, "E0322", "a fallback that cannot be given"),
    (Code::BadMirror, "E0323", "a mirror that cannot get copies"),
    (Code::WeakSecret, "E0402", "a key that can be guessed (a warning under --dev)"),
    (Code::UnreadableSecret, "E0403", "a secret that cannot be read"),
    (Code::TwiceSet, "E0404", "a variable and its _FILE form are both set"),
    (Code::CertificateFile, "E0601", "a certificate, key or CA that cannot be read"),
    (Code::Pem, "E0602", "not a certificate or private key in PEM"),
    (Code::KeyMismatch, "E0603", "a private key that is not the certificate's"),
    (Code::Expired, "E0604", "a certificate that is expired, or not valid yet"),
    (Code::NamelessCertificate, "E0605", "a certificate without DNS name and IP address"),
    (Code::UnusableAuthority, "E0606", "clients are checked, and the CA can check none"),
    (Code::NoInstances, "W0501", "a service without instances"),
    (Code::NoEffect, "W0502", "a variable or key without effect"),
    (Code::Unverified, "W0503", "TLS that takes any certificate"),
    (Code::ExpiresSoon, "W0504", "a certificate that expires within 14 days"),
];

impl Code {
    /// Every code with its number and meaning, in order.
    pub fn all() -> impl Iterator<Item = (Code, &'static str, &'static str)> {
        TABLE.iter().copied()
    }

    /// The number, such as `E0101`.
    pub fn number(self) -> &'static str {
        TABLE.iter().find(|row| row.0 == self).map_or("E0000", |row| row.1)
    }

    /// True where the finding is never more than a warning.
    pub(crate) fn is_warning(self) -> bool {
        matches!(self, Self::NoInstances | Self::NoEffect | Self::Unverified | Self::ExpiresSoon)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_every_code_has_one() {
        let numbers: std::collections::BTreeSet<_> = Code::all().map(|row| row.1).collect();
        assert_eq!(numbers.len(), TABLE.len());
        // The table is in the order of the enum and the last variant closes it.
        assert!(TABLE.iter().enumerate().all(|(at, row)| row.0 as usize == at));
        assert_eq!(Code::ExpiresSoon as usize + 1, TABLE.len());
    }
}
