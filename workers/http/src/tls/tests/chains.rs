//! Every chain that must not be believed, shown in a real handshake, each beside one that must.
//!
//! The edge's listener judges by the same [`ClientVerifier`](super::ClientVerifier).

use std::io::Write as _;
use std::process::{Command, Stdio};

use rcgen::{CustomExtension, DnType, GeneralSubtree, NameConstraints, date_time_ymd};

use super::*;

const BOT: &str = "spiffe://sluice.internal/service/bot";

/// A service's certificate as the vault issues it, for clients and servers.
fn params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["bot".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(BOT.try_into().unwrap()));
    params.serial_number = Some(SerialNumber::from_slice(&[0x4a; 16]));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// An authority with these properties, itself signed by `above` or by itself.
fn authority(above: Option<&Ca>, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    let made = match above {
        Some(above) => params.signed_by(&key, &above.issuer),
        None => params.self_signed(&key),
    };
    Ca { pem: made.unwrap().pem(), issuer: Issuer::new(params, key) }
}

impl Ca {
    /// A leaf with these properties; `between` is what follows it in the chain.
    fn made(&self, between: &[&Self], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = params();
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        let chain = between.iter().map(|ca| ca.pem.as_str()).collect::<String>();
        Leaf { chain: leaf + &chain, key: key.serialize_der() }
    }
}

/// A door that believes a root of any depth too.
fn door_with(root: &Ca) -> Door {
    let door = door();
    let own = door.ca.leaf("role/demo", 1);
    door.tls.replace(&own.chain, &own.key, &format!("{}{}", door.ca.pem, root.pem)).unwrap();
    door
}

impl Door {
    async fn shown(&self, leaf: &Leaf) -> io::Result<String> {
        self.ask(&self.client(leaf), "/caller", "").await
    }

    async fn takes(&self, what: &str, leaf: &Leaf) {
        let answer = self.shown(leaf).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(answer.ends_with(&format!("{BOT} mtls [trade]")), "{what}: {answer}");
    }

    /// A client that shows this chain, whatever its own library would say of it.
    fn client(&self, leaf: &Leaf) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&self.ca.pem).unwrap().remove(0)).unwrap();
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots);
        TlsConnector::from(Arc::new(config.with_client_cert_resolver(Arc::new(Shows::new(leaf)))))
    }

    /// Refused before a request is read: no answer at all, least of all as somebody without a name.
    async fn refuses(&self, what: &str, leaf: &Leaf) {
        if let Ok(answer) = self.shown(leaf).await {
            panic!("{what}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_leaf_that_is_not_as_the_vault_makes_it_is_refused_in_the_handshake() {
    let root = authority(None, "Any depth", |_| ());
    let door = door_with(&root);
    door.takes("as it is made", &root.made(&[], |_| ())).await;
    let year = |from: i32, to: i32| {
        move |params: &mut CertificateParams| {
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        }
    };
    door.refuses("expired", &root.made(&[], year(2019, 2020))).await;
    door.refuses("not yet valid", &root.made(&[], year(2090, 2091))).await;
    let usage = |usages: Vec<ExtendedKeyUsagePurpose>| {
        move |params: &mut CertificateParams| params.extended_key_usages = usages
    };
    door.refuses("for servers alone", &root.made(&[], usage(vec![ExtendedKeyUsagePurpose::ServerAuth])))
        .await;
    door.refuses("for mail", &root.made(&[], usage(vec![ExtendedKeyUsagePurpose::EmailProtection]))).await;
    let kind = |is_ca: IsCa| move |params: &mut CertificateParams| params.is_ca = is_ca;
    let ca = kind(IsCa::Ca(BasicConstraints::Constrained(0)));
    door.refuses("an authority as a leaf", &root.made(&[], ca)).await;
    let named = |uris: &'static [&'static str]| {
        move |params: &mut CertificateParams| {
            params.subject_alt_names =
                uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        }
    };
    door.refuses("two ids", &root.made(&[], named(&[BOT, "spiffe://sluice.internal/service/other"]))).await;
    door.refuses("an id and another URI", &root.made(&[], named(&[BOT, "https://bot.example/"]))).await;
    door.refuses("the same id twice", &root.made(&[], named(&[BOT, BOT]))).await;
    let unknown = |params: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    door.refuses("a critical extension nobody knows", &root.made(&[], unknown)).await;
    // Whoever has no name of ours is let in where the handshake asks for no name, and is nobody.
    for uris in [&["spiffe://evil.example/service/bot"][..], &["https://bot.example/"], &[]] {
        let answer = door.shown(&root.made(&[], named(uris))).await.unwrap();
        assert!(answer.ends_with("anonymous"), "{uris:?}: {answer}");
    }
    let key = KeyPair::generate().unwrap();
    let itself = params().self_signed(&key).unwrap().pem();
    door.refuses("signed by itself", &Leaf { chain: itself, key: key.serialize_der() }).await;
    let mut of_another = root.made(&[], |_| ());
    of_another.chain = root.made(&[], |_| ()).chain;
    let stolen = door.ask(&door.client(&of_another), "/caller", "").await;
    assert!(stolen.is_err(), "a certificate without its key: {stolen:?}");
}

/// Shows a chain unread and signs with a key that may be another's.
#[derive(Debug)]
struct Shows(Arc<rustls::sign::CertifiedKey>);

impl Shows {
    fn new(leaf: &Leaf) -> Self {
        let key = PrivateKeyDer::try_from(leaf.key.clone()).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).collect();
        Self(Arc::new(rustls::sign::CertifiedKey::new(chain.unwrap(), key)))
    }
}

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_path_that_breaks_its_own_rules_is_refused_in_the_handshake() {
    let root = authority(None, "Any depth", |_| ());
    let door = door_with(&root);
    let between = authority(Some(&root), "Between", |_| ());
    door.takes("one between", &between.made(&[&between], |_| ())).await;
    door.refuses("the one between is not shown", &between.made(&[], |_| ())).await;
    let twin = authority(None, "Any depth", |_| ());
    door.refuses("another authority of the same name", &twin.made(&[], |_| ())).await;
    door.refuses("and with its own root", &twin.made(&[&twin], |_| ())).await;
    let below_twin = authority(Some(&twin), "Between", |_| ());
    door.refuses("below it", &below_twin.made(&[&between], |_| ())).await;
    // A root that is believed is believed as it is (RFC 5280, 6.1): its own length binds nobody, its intermediates' does.
    let last = authority(Some(&root), "Last", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let beyond = authority(Some(&last), "Beyond", |_| ());
    door.takes("the last one", &last.made(&[&last], |_| ())).await;
    door.refuses("beyond the last one", &beyond.made(&[&beyond, &last], |_| ())).await;
    let leaf_signs = authority(Some(&root), "No authority", |params| params.is_ca = IsCa::ExplicitNoCa);
    door.refuses("signed by a leaf", &leaf_signs.made(&[&leaf_signs], |_| ())).await;
    let names = |permitted: &str| {
        let permitted = GeneralSubtree::DnsName(permitted.to_owned());
        move |params: &mut CertificateParams| {
            let subtrees = vec![permitted];
            params.name_constraints =
                Some(NameConstraints { permitted_subtrees: subtrees, excluded_subtrees: Vec::new() });
        }
    };
    let fits = authority(Some(&root), "For bot", names("bot"));
    door.takes("a name within", &fits.made(&[&fits], |_| ())).await;
    let other = authority(Some(&root), "For others", names("other.example"));
    door.refuses("a name outside", &other.made(&[&other], |_| ())).await;
    let ended = authority(Some(&root), "Ended", |params| params.not_after = date_time_ymd(2020, 1, 1));
    door.refuses("below one that has ended", &ended.made(&[&ended], |_| ())).await;
}

#[tokio::test]
async fn long_chains_are_refused_and_their_order_makes_nobody_else() {
    let root = authority(None, "Any depth", |_| ());
    let door = door_with(&root);
    let mut line = vec![authority(Some(&root), "0", |_| ())];
    for depth in 1..20 {
        let next = authority(line.last(), &depth.to_string(), |_| ());
        line.push(next);
    }
    let down_to = |depth: usize| {
        let between: Vec<&Ca> = line[..depth].iter().rev().collect();
        line[depth - 1].made(&between, |_| ())
    };
    door.takes("three between", &down_to(3)).await;
    let began = Instant::now();
    door.refuses("twenty between", &down_to(20)).await;
    // As many with one name and one key each: nothing grows with the ways through them.
    let mut maze = down_to(3);
    maze.chain += &(0..60).map(|_| authority(None, "2", |_| ()).pem).collect::<String>();
    let cost = || format!("{:?}", began.elapsed());
    assert!(door.shown(&maze).await.is_err() || began.elapsed() < PATIENCE / 4, "{}", cost());
    // RFC 8446 has servers take what is between in any order; who comes first is who is meant.
    let (last, middle) = (&line[1], &line[0]);
    door.takes("another order", &last.made(&[middle, last], |_| ())).await;
    door.takes("one too many", &last.made(&[last, middle, &root], |_| ())).await;
    let mut turned = last.made(&[last, middle], |_| ());
    let certificates: Vec<&str> = turned.chain.split_inclusive("-----END CERTIFICATE-----\n").collect();
    turned.chain = [certificates[1], certificates[0], certificates[2]].concat();
    let turned = door.ask(&door.client(&turned), "/caller", "").await;
    assert!(turned.is_err(), "an authority comes first: {turned:?}");
}

/// What `openssl` makes of it: weak digests and keys, which our own makers of certificates do not write.
struct Weak(tempfile::TempDir);

impl Weak {
    fn new() -> Self {
        let weak = Self(tempfile::tempdir().unwrap());
        let extensions = format!(
            "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:bot,URI:{BOT}\n"
        );
        std::fs::write(weak.0.path().join("leaf.cnf"), extensions).unwrap();
        weak.run("genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out ca.key");
        weak.run("req -x509 -key ca.key -out ca.pem -subj /CN=RSA -days 2 -addext basicConstraints=critical,CA:TRUE");
        for bits in [1024, 2048] {
            weak.run(&format!(
                "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:{bits} -out {bits}.key"
            ));
            weak.run(&format!("req -new -key {bits}.key -out {bits}.csr -subj /CN=bot"));
        }
        weak
    }

    fn run(&self, words: &str) {
        let done = Command::new("openssl").args(words.split(' ')).current_dir(self.0.path()).output();
        let done = done.expect("openssl is among what `./dev` needs");
        assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// What a client with a leaf of this key and this digest is answered.
    fn answer(&self, address: SocketAddr, bits: u32, digest: &str) -> String {
        self.run(&format!(
            "x509 -req -in {bits}.csr -CA ca.pem -CAkey ca.key -set_serial 77 -days 1 -{digest} -extfile leaf.cnf -out leaf.pem"
        ));
        let words = format!(
            "s_client -quiet -connect {address} -cert leaf.pem -key {bits}.key -cipher DEFAULT@SECLEVEL=0"
        );
        let mut client = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = "GET /caller HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        // It may have been refused already.
        let _gone = client.stdin.as_mut().unwrap().write_all(text.as_bytes());
        let done = client.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weak_digests_and_short_keys_are_refused_in_the_handshake() {
    let weak = tokio::task::spawn_blocking(Weak::new).await.unwrap();
    let root = std::fs::read_to_string(weak.0.path().join("ca.pem")).unwrap();
    let door = door();
    let own = door.ca.leaf("role/demo", 1);
    door.tls.replace(&own.chain, &own.key, &format!("{}{root}", door.ca.pem)).unwrap();
    let address = door.address;
    let answers = tokio::task::spawn_blocking(move || {
        [(2048, "sha256"), (2048, "sha1"), (2048, "md5"), (1024, "sha256")]
            .map(|(bits, digest)| (bits, digest, weak.answer(address, bits, digest)))
    });
    let [sound, weak @ ..] = tokio::time::timeout(PATIENCE, answers).await.unwrap().unwrap();
    assert!(sound.2.contains("HTTP/1.1 200") && sound.2.contains(BOT), "{}", sound.2);
    for (bits, digest, answer) in weak {
        assert!(!answer.contains("HTTP/1.1") && answer.contains("alert"), "{bits} {digest}: {answer}");
    }
}
