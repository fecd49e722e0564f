//! The certificate request of an order: its names are the order's, all of them and no other.

use std::collections::BTreeSet;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::key::AccountKey;
use super::order::Order;
use super::problem::{Word, refused};
use crate::ca::RequestedKey;
use crate::error::VaultError;

fn bad(detail: impl Into<String>) -> VaultError {
    refused(Word::BadCsr, detail)
}

/// The key of a request that fits an order and is not the account's own. Everything else it says is read and dropped.
pub(super) fn key_for(der: &[u8], order: &Order, account: &AccountKey) -> Result<RequestedKey, VaultError> {
    let key = RequestedKey::from_der(der).map_err(|error| bad(error.to_string()))?;
    let (_, request) = X509CertificationRequest::from_der(der).map_err(|_| bad("this is no request"))?;
    if account.is_of(&request.certification_request_info.subject_pki) {
        return Err(bad("a certificate's key is not the account's"));
    }
    let asked = names(&request)?;
    let ordered: BTreeSet<String> = order.names().map(str::to_owned).collect();
    if asked == ordered { Ok(key) } else { Err(bad("the names of the request are not those of the order")) }
}

/// The DNS names of a request, also one in its subject.
fn names(request: &X509CertificationRequest<'_>) -> Result<BTreeSet<String>, VaultError> {
    let mut found = BTreeSet::new();
    for name in request.certification_request_info.subject.iter_common_name() {
        let name = name.as_str().map_err(|_| bad("the common name is no text"))?;
        found.insert(name.to_ascii_lowercase());
    }
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension else { continue };
        for name in &alternative.general_names {
            let GeneralName::DNSName(name) = name else {
                return Err(bad("an alternative name of the request is no DNS name"));
            };
            found.insert(name.to_ascii_lowercase());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::order::{Authorization, Proof};
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn order(names: &[&str]) -> Order {
        let authorization = |name: &&str| Authorization {
            name: (*name).to_owned(),
            token: String::new(),
            proof: Proof::Pending,
        };
        Order {
            id: String::new(),
            account: String::new(),
            service: String::new(),
            expires: jiff::Timestamp::UNIX_EPOCH,
            authorizations: names.iter().map(authorization).collect(),
            issued: None,
            replaces: None,
        }
    }

    fn fits(names: &[SanType], common_name: Option<&str>) -> bool {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names.to_vec();
        let request = params.serialize_request(&key).unwrap();
        let other = AccountKey::Ed25519([1; 32]);
        key_for(request.der(), &order(&["a.example.com", "b.example.com"]), &other).is_ok()
    }

    #[test]
    fn exactly_the_ordered_names_are_taken() {
        let dns = |name: &str| SanType::DnsName(name.to_owned().try_into().unwrap());
        let (a, b) = (dns("a.example.com"), dns("b.example.com"));
        let both = [a.clone(), b.clone()];
        assert!(fits(&both, None) && fits(&both, Some("a.example.com")));
        assert!(fits(&[b.clone(), dns("A.example.com")], None), "in any order and case");
        assert!(fits(std::slice::from_ref(&b), Some("a.example.com")));
        assert!(!fits(&[], None) && !fits(std::slice::from_ref(&a), None));
        assert!(!fits(&both, Some("c.example.com")));
        assert!(!fits(&[a.clone(), b.clone(), dns("edge")], None));
        assert!(!fits(&[a.clone(), b.clone(), SanType::IpAddress([127, 0, 0, 1].into())], None));
        let uri = SanType::URI("spiffe://sluice.internal/role/edge".to_owned().try_into().unwrap());
        assert!(!fits(&[a, b, uri], None));
    }

    #[test]
    fn the_key_of_the_account_gets_no_certificate() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap();
        let mut params = params;
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key).unwrap();
        let own = AccountKey::P256(key.public_key_raw().try_into().unwrap());
        assert!(key_for(request.der(), &order(&["a.example.com"]), &own).is_err());
        assert!(key_for(request.der(), &order(&["a.example.com"]), &AccountKey::Ed25519([1; 32])).is_ok());
        assert!(key_for(b"", &order(&["a.example.com"]), &own).is_err());
    }
}
