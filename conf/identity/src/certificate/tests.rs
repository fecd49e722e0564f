//! Certificates made for the purpose, sound and hostile.

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber, string::Ia5String,
};

use super::*;

const ID: &str = "spiffe://sluice.internal/service/bot";

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).unwrap())
}

/// A certificate as the vault issues it.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "bot");
    params.serial_number = Some(SerialNumber::from_slice(&[0x4a; 16]));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(ID), dns("bot"), SanType::IpAddress([127, 0, 0, 1].into())];
    params
}

fn der(params: &CertificateParams) -> Vec<u8> {
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn made(change: impl FnOnce(&mut CertificateParams)) -> Result<ClientCertificate, CertificateError> {
    let mut params = params();
    change(&mut params);
    ClientCertificate::parse(&der(&params))
}

fn named(names: Vec<SanType>) -> Result<ClientCertificate, CertificateError> {
    made(|params| params.subject_alt_names = names)
}

/// A subject alternative name extension with these bytes: what the maker of certificates would refuse to write.
fn raw_names(content: Vec<u8>) -> Result<ClientCertificate, CertificateError> {
    made(|params| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
    })
}

/// `SEQUENCE { [tag] text, … }` with lengths below 128.
fn names(list: &[(u8, &[u8])]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (tag, text) in list {
        inner.extend([*tag, text.len() as u8]);
        inner.extend_from_slice(text);
    }
    [vec![0x30, inner.len() as u8], inner].concat()
}

const URI: u8 = 0x86;
const DNS: u8 = 0x82;

#[test]
fn sound_certificate_is_read_in_full() {
    let bytes = der(&params());
    let read = ClientCertificate::parse(&bytes).unwrap();
    assert_eq!(read.spiffe.as_ref().unwrap().to_string(), ID);
    assert_eq!(read.spiffe.as_ref().unwrap().service(), Some("bot"));
    assert_eq!(read.serial, "4a".repeat(16));
    assert_eq!(read.subject, "CN=bot");
    assert_eq!(read.fingerprint.as_slice(), digest::digest(&digest::SHA256, &bytes).as_ref());
    assert!(read.not_before_unix_s < read.not_after_unix_s);
    assert!(read.is_valid_at(read.not_after_unix_s) && !read.is_valid_at(read.not_after_unix_s + 1));
    assert!(!read.is_valid_at(read.not_before_unix_s - 1));
}

#[test]
fn certificate_without_spiffe_id_has_none() {
    assert_eq!(named(vec![dns("bot")]).unwrap().spiffe, None);
    assert_eq!(named(vec![]).unwrap().spiffe, None);
    assert_eq!(named(vec![dns("*.bot.example")]).unwrap().spiffe, None);
    let two = named(vec![uri("https://a.example/x"), uri("https://b.example/")]).unwrap();
    assert_eq!(two.spiffe, None, "other URIs are nobody's identity");
    assert_eq!(
        named(vec![SanType::Rfc822Name(Ia5String::try_from("a@b.example").unwrap())]).unwrap().spiffe,
        None
    );
}

#[test]
fn spiffe_id_is_the_only_uri_or_nothing() {
    for second in ["spiffe://sluice.internal/service/other", "https://a.example/", "SPIFFE://x/y", ID] {
        assert_eq!(named(vec![uri(ID), uri(second)]), Err(CertificateError::TwoUris), "{second}");
        assert_eq!(named(vec![uri(second), uri(ID)]), Err(CertificateError::TwoUris), "{second}");
    }
}

#[test]
fn malformed_spiffe_ids_are_refused_not_passed_over() {
    for text in [
        "SPIFFE://sluice.internal/service/bot",
        "Spiffe://sluice.internal/service/bot",
        "spiffe:sluice.internal/service/bot",
        "spiffe://sluice.internal",
        "spiffe://sluice.internal/",
        "spiffe://sluice.internal/service/bot/",
        "spiffe://sluice.internal/service/../role/edge",
        "spiffe://Sluice.internal/service/bot",
        "spiffe://sluice.internal:443/service/bot",
        "spiffe://sluice.internal/service/bot?x",
    ] {
        assert!(matches!(named(vec![uri(text)]), Err(CertificateError::SpiffeId(_))), "{text}");
    }
    let long = format!("spiffe://d/{}", "a".repeat(SPIFFE_ID_BYTES_MAX));
    assert_eq!(named(vec![uri(&long)]), Err(CertificateError::Name));
}

#[test]
fn names_are_printable_ascii_without_wildcards() {
    let nul = |tag| raw_names(names(&[(tag, b"spiffe://sluice.internal/service/bot\0.evil")]));
    assert_eq!(nul(URI), Err(CertificateError::Name));
    assert_eq!(nul(DNS), Err(CertificateError::Name));
    for text in [&b"a b"[..], b"", b"a\n", b"\x7f", "bücher".as_bytes(), b"*.*.example", b"a*", b"*"] {
        assert_eq!(raw_names(names(&[(DNS, text)])), Err(CertificateError::Name), "{text:?}");
    }
    assert_eq!(raw_names(names(&[(DNS, b"\xff\xfe")])), Err(CertificateError::Malformed));
    assert_eq!(raw_names(names(&[(0x87, &[1, 2, 3])])), Err(CertificateError::Name), "a short address");
    let sound = raw_names(names(&[(URI, ID.as_bytes())])).unwrap();
    assert_eq!(sound.spiffe.unwrap().to_string(), ID, "made by hand it reads the same");
}

#[test]
fn bytes_after_the_names_are_refused() {
    let mut trailing = names(&[(URI, ID.as_bytes())]);
    trailing.extend(names(&[(URI, b"spiffe://sluice.internal/role/edge")]));
    assert_eq!(raw_names(trailing), Err(CertificateError::Malformed));
    let mut certificate = der(&params());
    certificate.push(0);
    assert_eq!(ClientCertificate::parse(&certificate), Err(CertificateError::Malformed));
}

#[test]
fn subject_is_text_that_cannot_pretend() {
    let with =
        |value: DnValue| made(|params| params.distinguished_name.push(DnType::OrganizationName, value));
    assert_eq!(with(DnValue::Utf8String("Sluice".into())).unwrap().subject, "CN=bot,O=Sluice");
    assert_eq!(with(DnValue::Utf8String("x,CN=admin".into())).unwrap().subject, "CN=bot,O=x\\,CN\\=admin");
    for bad in ["a\0b", "a\r\nx-user: admin", "Bücher", "", "\u{202e}x"] {
        assert_eq!(with(DnValue::Utf8String(bad.into())), Err(CertificateError::Name), "{bad:?}");
    }
    assert_eq!(with(DnValue::BmpString("wide".try_into().unwrap())), Err(CertificateError::Name));
    assert_eq!(with(DnValue::Utf8String("x".repeat(2_000))), Err(CertificateError::Name));
    assert_eq!(with(DnValue::Utf8String("x".repeat(1_020))), Err(CertificateError::TooLarge));
    let none = made(|params| params.distinguished_name = DistinguishedName::new());
    assert_eq!(none.unwrap().subject, "");
}

#[test]
fn authorities_and_other_usages_are_refused() {
    let ca = made(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(ca, Err(CertificateError::Authority));
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        let signs = made(|params| params.key_usages.push(usage));
        assert_eq!(signs, Err(CertificateError::Authority));
    }
    let server = made(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(server, Err(CertificateError::Usage));
    let any = made(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    assert_eq!(any, Err(CertificateError::Usage));
    let encrypts = made(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(encrypts, Err(CertificateError::Usage));
    let silent = made(|params| {
        params.key_usages.clear();
        params.extended_key_usages.clear();
        params.is_ca = IsCa::NoCa;
    });
    assert_eq!(silent, Err(CertificateError::Usage), "who may be a client is said, not left open");
    let unlimited = made(|params| params.key_usages.clear());
    assert!(unlimited.is_ok(), "a key whose use is not limited may sign a handshake");
}

#[test]
fn unknown_critical_and_doubled_extensions_are_refused() {
    let extension = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    assert!(made(|params| params.custom_extensions = vec![extension(false)]).is_ok());
    let critical = made(|params| params.custom_extensions = vec![extension(true)]);
    assert_eq!(critical, Err(CertificateError::Extension));
    let second = CustomExtension::from_oid_content(&[2, 5, 29, 17], names(&[(URI, ID.as_bytes())]));
    let doubled = made(|params| params.custom_extensions = vec![second]);
    assert_eq!(doubled, Err(CertificateError::Extension), "which of two name lists counts?");
}

#[test]
fn a_leaf_that_limits_names_or_hides_its_own_is_refused() {
    // SEQUENCE { [0] { GeneralSubtree { dNSName "a" } } }
    let content = vec![0x30, 0x07, 0xa0, 0x05, 0x30, 0x03, 0x82, 0x01, b'a'];
    for critical in [false, true] {
        let mut limits = CustomExtension::from_oid_content(&[2, 5, 29, 30], content.clone());
        limits.set_criticality(critical);
        let limited = made(|params| params.custom_extensions = vec![limits]);
        assert_eq!(limited, Err(CertificateError::Authority), "critical: {critical}");
    }
    let hidden = |critical: bool| {
        made(|params| {
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names.clear();
            let content = names(&[(URI, ID.as_bytes())]);
            let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
            extension.set_criticality(critical);
            params.custom_extensions = vec![extension];
        })
    };
    assert_eq!(hidden(false), Err(CertificateError::Extension));
    assert_eq!(hidden(true).unwrap().spiffe.unwrap().to_string(), ID);
}

#[test]
fn serials_are_positive_and_bounded() {
    let with = |octets: &[u8]| {
        made(|params| params.serial_number = Some(SerialNumber::from_slice(octets))).map(|read| read.serial)
    };
    assert_eq!(with(&[1]).unwrap(), "01");
    assert_eq!(with(&[0x7f; 20]).unwrap(), "7f".repeat(20));
    assert_eq!(with(&[0xff; 16]).unwrap(), "ff".repeat(16), "without the sign octet");
    assert_eq!(with(&[0x7f; 21]), Err(CertificateError::Serial));
    assert_eq!(with(&[0x7f; 4_000]), Err(CertificateError::Serial));
    assert_eq!(with(&[0]), Err(CertificateError::Serial));
    for octets in [&[][..], &[0x80], &[0xff, 1], &[0, 1], &[0, 0, 0x80]] {
        assert_eq!(serial(octets), Err(CertificateError::Serial), "{octets:?}");
    }
}

#[test]
fn sizes_are_bounded() {
    let many = (0..=NAMES_MAX).map(|number| dns(&format!("n{number}"))).collect();
    assert_eq!(named(many), Err(CertificateError::TooLarge));
    let large = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0; 20_000]);
    assert_eq!(made(|params| params.custom_extensions = vec![large]), Err(CertificateError::TooLarge));
    let extension = |n| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, n], vec![5, 0]);
    let crowd = made(|params| params.custom_extensions = (0..70).map(extension).collect());
    assert_eq!(crowd, Err(CertificateError::TooLarge));
}

#[test]
fn truncated_certificates_are_refused_at_every_length() {
    let bytes = der(&params());
    for length in 0..bytes.len() {
        assert_eq!(ClientCertificate::parse(&bytes[..length]), Err(CertificateError::Malformed), "{length}");
    }
}

#[test]
fn every_error_has_its_own_word() {
    use CertificateError as E;
    let all = [
        E::TooLarge,
        E::Malformed,
        E::Version,
        E::Serial,
        E::Validity,
        E::Authority,
        E::Usage,
        E::Extension,
        E::Name,
        E::TwoUris,
        E::SpiffeId(SpiffeIdError::Path),
    ];
    let words: std::collections::BTreeSet<_> = all.iter().map(|error| error.reason()).collect();
    assert_eq!(words.len(), all.len());
}

/// What must hold of everything that is accepted.
fn is_sound(read: &ClientCertificate) -> bool {
    let visible = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let id = read.spiffe.as_ref().map(ToString::to_string).unwrap_or_default();
    visible(&read.subject)
        && visible(&id)
        && id.parse::<SpiffeId>().is_ok() == read.spiffe.is_some()
        && (2..=2 * SERIAL_OCTETS_MAX).contains(&read.serial.len())
        && read.serial.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_mutation_panics_or_gets_a_strange_name_through(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
        rounds in proptest::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        static SOUND: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| der(&params()));
        for round in rounds {
            let mut bytes = SOUND.clone();
            for (at, value, kind) in &edits {
                let at = (at.index(bytes.len()) + round.index(bytes.len())) % bytes.len();
                match kind {
                    0 => bytes[at] = *value,
                    1 => bytes[at] ^= 1 << (value % 8),
                    _ => {
                        bytes.remove(at);
                    }
                }
            }
            if let Ok(read) = ClientCertificate::parse(&bytes) {
                prop_assert!(is_sound(&read), "{read:?}");
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _refused_or_not = ClientCertificate::parse(&bytes);
    }
}
