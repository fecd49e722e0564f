//! Leaf certificates: what they say is decided here, never by who asks.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData as _, SanType, SerialNumber,
};
use sluice_wire::role::Role;
use zeroize::Zeroizing;

use super::BACKDATE_S;
use super::authority::{Issuing, date, generate, hex, new_serial, pem};
use super::csr::{RequestedKey, spki_digest};
use crate::error::VaultError;
use crate::path::ServiceName;

/// Whom a leaf identifies. No service has a role's name, so the name alone tells which it is.
#[derive(Debug, Clone)]
pub(crate) enum Holder {
    /// A service.
    Service(ServiceName),
    /// A role of Sluice itself.
    Role(Role),
}

/// What a leaf is to say; names are checked already.
#[derive(Debug)]
pub(crate) struct LeafRequest {
    /// Whom it identifies.
    pub(crate) holder: Holder,
    /// DNS names beside the holder's own.
    pub(crate) dns_names: Vec<String>,
    /// Addresses.
    pub(crate) ip_addresses: Vec<IpAddr>,
    /// How long it lives.
    pub(crate) ttl: SignedDuration,
    /// The key of a request; without one, a key is made.
    pub(crate) key: Option<RequestedKey>,
}

/// A new leaf.
pub(crate) struct Leaf {
    pub(crate) pem: String,
    pub(crate) private_key: Option<Zeroizing<String>>,
    pub(crate) serial: String,
    pub(crate) not_after: Timestamp,
    pub(crate) spiffe_id: String,
    pub(crate) dns_names: Vec<String>,
    /// `key_id` of its issuer.
    pub(crate) issuer: String,
    /// SHA-256 of its public key.
    pub(crate) key_digest: [u8; 32],
}

impl Holder {
    /// Its name: common name, first DNS name, key in the inventory.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Service(name) => name.as_str(),
            Self::Role(role) => role.as_str(),
        }
    }

    fn spiffe_id(&self, trust_domain: &str) -> String {
        match self {
            Self::Service(name) => format!("spiffe://{trust_domain}/service/{name}"),
            Self::Role(role) => format!("spiffe://{trust_domain}/role/{role}"),
        }
    }
}

impl Leaf {
    /// Issues a leaf. It identifies its holder by SPIFFE id and the names `<name>` and
    /// `<name>.<trust domain>`, and ends with its issuer at the latest.
    pub(crate) fn issue(
        issuing: &Issuing,
        trust_domain: &str,
        request: LeafRequest,
        now: Timestamp,
    ) -> Result<Self, VaultError> {
        let holder = request.holder.name();
        let spiffe_id = request.holder.spiffe_id(trust_domain);
        let mut dns_names = vec![holder.to_owned(), format!("{holder}.{trust_domain}")];
        for name in request.dns_names {
            if !dns_names.contains(&name) {
                dns_names.push(name);
            }
        }
        let serial = new_serial(now);
        let not_before = now - SignedDuration::from_secs(BACKDATE_S);
        let not_after = (now + request.ttl).min(issuing.not_after);
        let mut params = params(holder, &spiffe_id, &dns_names, &request.ip_addresses)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = date(not_before)?.to_datetime();
        params.not_after = date(not_after)?.to_datetime();
        let failed = |_| VaultError::Crypto("leaf certificate");
        let (certificate, private_key, key_digest) = if let Some(requested) = request.key {
            let certificate = params.signed_by(&requested.key, &issuing.issuer).map_err(failed)?;
            (certificate, None, requested.digest)
        } else {
            let key = generate()?;
            let certificate = params.signed_by(&key, &issuing.issuer).map_err(failed)?;
            let digest = spki_digest(&key.subject_public_key_info());
            (certificate, Some(Zeroizing::new(key.serialize_pem())), digest)
        };
        Ok(Self {
            pem: pem("CERTIFICATE", certificate.der()),
            private_key,
            serial: hex(&serial),
            not_after: Timestamp::from_second(not_after.as_second()).unwrap_or(not_after),
            spiffe_id,
            dns_names,
            issuer: issuing.key_id.clone(),
            key_digest,
        })
    }
}

fn params(
    holder: &str,
    spiffe_id: &str,
    dns_names: &[String],
    ip_addresses: &[IpAddr],
) -> Result<CertificateParams, VaultError> {
    let ascii =
        |text: &str| text.to_owned().try_into().map_err(|_| VaultError::Crypto("a name is not ASCII"));
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, holder);
    params.distinguished_name = subject;
    // Explicit, so that the certificate says CA:FALSE and carries its key id.
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(ascii(spiffe_id)?)];
    for name in dns_names {
        params.subject_alt_names.push(SanType::DnsName(ascii(name)?));
    }
    params.subject_alt_names.extend(ip_addresses.iter().map(|address| SanType::IpAddress(*address)));
    Ok(params)
}

/// Whether a text may be a DNS name in a certificate: lower-case labels, no wildcard, not an address.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    text.len() <= 253 && text.parse::<IpAddr>().is_err() && text.split('.').all(label)
}

/// Whether a name says whose a connection is within this installation: a role's, or one of the trust domain.
pub(crate) fn is_ours(name: &str, trust_domain: &str) -> bool {
    name == trust_domain
        || name.strip_suffix(trust_domain).is_some_and(|head| head.ends_with('.'))
        || name.parse::<Role>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::authority::{self, Authority};
    use super::*;
    use std::collections::HashSet;
    use std::sync::Arc;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::*;

    const DOMAIN: &str = "sluice.internal";

    fn now() -> Timestamp {
        "2026-11-21T08:00:00Z".parse().unwrap()
    }

    fn authority() -> Authority {
        let root = Issuing::restore(&authority::make_root(DOMAIN, now()).unwrap()).unwrap();
        let intermediate = authority::make_intermediate(&root, DOMAIN, now()).unwrap();
        let intermediate = Issuing::restore(&intermediate).unwrap();
        Authority { root: Arc::new(root), intermediates: vec![Arc::new(intermediate)] }
    }

    fn request(key: Option<RequestedKey>, hours: i64) -> LeafRequest {
        LeafRequest {
            holder: Holder::Service(ServiceName::parse("bot").unwrap()),
            dns_names: vec!["localhost".into()],
            ip_addresses: vec!["127.0.0.1".parse().unwrap()],
            ttl: SignedDuration::from_hours(hours),
            key,
        }
    }

    fn der(pem: &str) -> Vec<u8> {
        let (rest, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        assert!(rest.is_empty());
        block.contents
    }

    /// Everything a leaf must and must not be.
    fn check_leaf(leaf: &[u8], issuer: &Issuing) {
        let (rest, leaf) = X509Certificate::from_der(leaf).unwrap();
        assert!(rest.is_empty());
        assert!(!leaf.is_ca());
        leaf.verify_signature(Some(X509Certificate::from_der(&issuer.der).unwrap().1.public_key())).unwrap();
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature());
        assert!(!usage.value.key_cert_sign() && !usage.value.crl_sign());
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        let uris: Vec<_> = names.iter().filter(|name| matches!(name, GeneralName::URI(_))).collect();
        assert_eq!(uris, [&GeneralName::URI("spiffe://sluice.internal/service/bot")]);
        assert!(names.contains(&GeneralName::DNSName("bot")));
        assert!(names.contains(&GeneralName::DNSName("bot.sluice.internal")));
        assert!(
            leaf.raw_serial().len() >= 16 && leaf.raw_serial().len() <= 19 && leaf.raw_serial()[0] < 0x80
        );
        assert!(leaf.validity().not_after.timestamp() <= issuer.not_after.as_second());
        assert_eq!(leaf.validity().not_before.timestamp(), now().as_second() - 60);
        let has = |wanted: fn(&ParsedExtension<'_>) -> bool| {
            leaf.extensions().iter().any(|extension| wanted(extension.parsed_extension()))
        };
        assert!(has(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_))));
        assert!(has(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_))));
    }

    #[test]
    fn chain_is_root_intermediate_leaf_with_proper_limits() {
        let authority = authority();
        let (_, root) = X509Certificate::from_der(&authority.root.der).unwrap();
        let (_, middle) = X509Certificate::from_der(&authority.intermediates[0].der).unwrap();
        root.verify_signature(None).unwrap();
        middle.verify_signature(Some(root.public_key())).unwrap();
        let limit =
            |ca: &X509Certificate<'_>| ca.basic_constraints().unwrap().unwrap().value.path_len_constraint;
        assert!(root.is_ca() && middle.is_ca());
        assert_eq!((limit(&root), limit(&middle)), (Some(1), Some(0)));
        assert_ne!(root.subject(), middle.subject());
        let days =
            |ca: &X509Certificate<'_>| (ca.validity().not_after.timestamp() - now().as_second()) / 86_400;
        assert_eq!((days(&root), days(&middle)), (3_652, 90));
        let leaf = Leaf::issue(&authority.intermediates[0], DOMAIN, request(None, 24), now()).unwrap();
        check_leaf(&der(&leaf.pem), &authority.intermediates[0]);
    }

    #[test]
    fn leaf_never_outlives_its_issuer() {
        let authority = authority();
        let leaf = Leaf::issue(&authority.intermediates[0], DOMAIN, request(None, 24 * 400), now()).unwrap();
        assert_eq!(leaf.not_after, authority.intermediates[0].not_after);
    }

    #[test]
    fn request_that_asks_to_be_a_ca_gets_an_ordinary_leaf() {
        let authority = authority();
        let key = generate().unwrap();
        let mut wanted = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        wanted.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        wanted.subject_alt_names.push(SanType::URI("spiffe://sluice.internal/role/edge".try_into().unwrap()));
        let csr = wanted.serialize_request(&key).unwrap();
        let requested = RequestedKey::parse(&pem("CERTIFICATE REQUEST", csr.der())).unwrap();
        let leaf =
            Leaf::issue(&authority.intermediates[0], DOMAIN, request(Some(requested), 24), now()).unwrap();
        assert!(leaf.private_key.is_none());
        let der = der(&leaf.pem);
        check_leaf(&der, &authority.intermediates[0]);
        let text = String::from_utf8_lossy(&der);
        assert!(!text.contains("evil.example") && !text.contains("role/edge"));
    }

    #[test]
    fn serials_are_unique_also_for_one_key() {
        let authority = authority();
        let serials: HashSet<_> = (0..200).map(|_| new_serial(now())).collect();
        assert_eq!(serials.len(), 200);
        assert!(new_serial(now()) < new_serial(now() + SignedDuration::from_millis(1)), "they lie by time");
        let key = generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let text = pem("CERTIFICATE REQUEST", csr.der());
        let issue = || {
            let requested = RequestedKey::parse(&text).unwrap();
            Leaf::issue(&authority.intermediates[0], DOMAIN, request(Some(requested), 1), now())
                .unwrap()
                .serial
        };
        assert_ne!(issue(), issue());
    }

    #[test]
    fn revocation_list_names_serial_number_and_issuer() {
        let authority = authority();
        let middle = &authority.intermediates[0];
        let revoked = authority::RevokedCertificate {
            serial: hex(&new_serial(now())),
            issuer: middle.key_id.clone(),
            at: now(),
        };
        let lists = authority.crls(std::slice::from_ref(&revoked), 7, now()).unwrap();
        assert_eq!(lists.len(), 2);
        let (_, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
        assert_eq!(list.crl_number().unwrap().to_string(), "7");
        let serials: Vec<_> = list.iter_revoked_certificates().map(|entry| hex(entry.raw_serial())).collect();
        assert_eq!(serials, [revoked.serial]);
        list.verify_signature(X509Certificate::from_der(&middle.der).unwrap().1.public_key()).unwrap();
        let (_, root_list) = CertificateRevocationList::from_der(&lists[1]).unwrap();
        assert_eq!(root_list.iter_revoked_certificates().count(), 0);
    }

    #[test]
    fn dns_names_are_plain_lower_case_labels() {
        for good in ["a", "a.b", "my_service.sluice.internal", "localhost"] {
            assert!(is_dns_name(good), "{good}");
        }
        for bad in
            ["", "*", "*.a", "a..b", "A", "a b", "-a", "a-", "127.0.0.1", "::1", "a/b", "é", &"a".repeat(64)]
        {
            assert!(!is_dns_name(bad), "{bad}");
        }
    }
}
