//! Chains that must not be believed, shown to the edge's listener: the handshake ends, and nobody goes on as nobody.
//!
//! What the verifier makes of weak digests, short keys and long chains is in `workers/http/src/tls/tests/chains.rs`.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;

use crate::tls::{Ca, Leaf, Site, ask, connect, site};

const PRICER: &str = "spiffe://desk.example/service/pricer";

/// A client's certificate with these properties, and what follows it.
fn shown(signer: &Ca, between: &[&Ca], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["pricer".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(PRICER.try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let leaf = params.signed_by(&key, &signer.issuer).unwrap();
    let chain = [leaf.der().clone()].into_iter().chain(between.iter().map(|ca| ca.root.clone()));
    Leaf::of(chain.collect(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// An authority below another, or of its own.
fn authority(above: Option<&Ca>, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    let made = match above {
        Some(above) => params.signed_by(&key, &above.issuer),
        None => params.self_signed(&key),
    };
    Ca { root: made.unwrap().der().clone(), issuer: Issuer::new(params, key) }
}

#[test]
fn a_bad_client_certificate_ends_the_handshake_where_none_is_required_too() {
    let more = "client_auth = \"optional\"\nclient_ca = \"ca.pem\"\n[auth.roles]\n\
                \"spiffe://desk.example/service/pricer\" = [\"read\"]";
    // Whoever goes on without a name would be answered here.
    let Site { ca, upstream, edge } = site(more, "auth_required = false");
    let status = |leaf: &Leaf| {
        let mut client = connect(&edge, &ca.client(Some(leaf)), "shop.example");
        ask(&mut client, "shop.example")
    };
    assert_eq!(status(&shown(&ca, &[], |_| ())), Some(200));
    let between = authority(Some(&ca), "Between", |_| ());
    assert_eq!(status(&shown(&between, &[&between], |_| ())), Some(200));
    let mut anonymous = connect(&edge, &ca.client(None), "shop.example");
    assert_eq!(ask(&mut anonymous, "shop.example"), Some(200));
    let users: Vec<_> = upstream.seen().iter().map(|seen| seen.fields("x-user").join(",")).collect();
    assert_eq!(users, [PRICER, PRICER, ""]);

    let uris = |uris: [&'static str; 2]| {
        move |params: &mut CertificateParams| {
            params.subject_alt_names = uris.map(|uri| SanType::URI(uri.try_into().unwrap())).to_vec();
        }
    };
    let last = authority(Some(&ca), "Last", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let beyond = authority(Some(&last), "Beyond", |_| ());
    let others = authority(Some(&ca), "For others", |params| {
        let subtree = vec![GeneralSubtree::DnsName("other.example".to_owned())];
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: subtree, excluded_subtrees: Vec::new() });
    });
    let twin = authority(None, "Test CA", |_| ());
    let mut line = vec![authority(Some(&ca), "0", |_| ())];
    for depth in 1..20 {
        let next = authority(line.last(), &depth.to_string(), |_| ());
        line.push(next);
    }
    let deep: Vec<&Ca> = line.iter().rev().collect();
    let itself = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["pricer".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(PRICER.try_into().unwrap()));
        let made = params.self_signed(&key).unwrap().der().clone();
        Leaf::of(vec![made], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    };
    let usage = |usages: Vec<ExtendedKeyUsagePurpose>| {
        move |params: &mut CertificateParams| params.extended_key_usages = usages
    };
    let refused = [
        ("expired", shown(&ca, &[], |params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not yet valid", shown(&ca, &[], |params| params.not_before = date_time_ymd(2090, 1, 1))),
        ("for servers alone", shown(&ca, &[], usage(vec![ExtendedKeyUsagePurpose::ServerAuth]))),
        ("for nothing named", shown(&ca, &[], usage(Vec::new()))),
        ("an authority", shown(&ca, &[], |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("two ids", shown(&ca, &[], uris([PRICER, "spiffe://desk.example/service/other"]))),
        ("an id and a URI", shown(&ca, &[], uris([PRICER, "https://pricer.example/"]))),
        ("itself", itself),
        ("the same name, another key", shown(&twin, &[], |_| ())),
        ("with its own root", shown(&twin, &[&twin], |_| ())),
        ("beyond the last", shown(&beyond, &[&beyond, &last], |_| ())),
        ("a name outside", shown(&others, &[&others], |_| ())),
        ("twenty between", shown(&line[19], &deep, |_| ())),
    ];
    for (what, leaf) in &refused {
        assert_eq!(status(leaf), None, "{what}");
    }
    assert_eq!(upstream.seen().len(), 3, "none of them came through");
}
