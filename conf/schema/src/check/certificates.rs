//! Opens every certificate, key and CA that the configuration names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::SigningKey;

use crate::certificate::{self, Facts, PemFault};
use crate::code::Code;
use crate::model::{Authority, Certificate, ClientAuth, ClientCertificate, Config, KeyPairFiles};
use crate::reader::Reader;
use crate::report::{Diagnostic, Place, quote_path};

/// A certificate that ends sooner is worth a warning.
const SOON_DAYS: i64 = 14;
const DAY_S: i64 = 86_400;

/// Checks the files, where a time to judge them by is given. A file that several keys name is judged once.
pub(super) fn certificates(reader: &mut Reader<'_>, config: &Config) {
    let Some(now_s) = reader.mode.now_unix_s else { return };
    let mut judge = Judge { reader, now_s, pairs: BTreeSet::new(), authorities: BTreeSet::new() };
    if let Some(tls) = &config.edge.tls {
        if let Certificate::Files(pairs) = &tls.certificate {
            for (index, pair) in pairs.iter().enumerate() {
                judge.pair(&Key { path: "edge.tls.certificate", index }, pair, true);
            }
        }
        if let Authority::File(file) = &tls.client_ca {
            judge.client_ca(&Key { path: "edge.tls.client_ca", index: 0 }, file, tls.client_auth);
        }
    }
    if let Some(file) = &config.redis_tls.ca {
        judge.authority(&Key { path: "redis.ca", index: 0 }, file);
    }
    if let Some(pair) = &config.redis_tls.client_cert {
        judge.pair(&Key { path: "redis.client_cert", index: 0 }, pair, false);
    }
    if let Some(file) = &config.vault.external.ca {
        judge.authority(&Key { path: "vault.external.ca", index: 0 }, file);
    }
    for (index, service) in config.services.iter().enumerate() {
        if let Authority::File(file) = &service.tls.ca {
            judge.authority(&Key { path: &format!("service[{index}].tls.ca"), index: 0 }, file);
        }
        if let ClientCertificate::Files(pair) = &service.tls.client_cert {
            judge.pair(&Key { path: &format!("service[{index}].tls.client_cert"), index: 0 }, pair, false);
        }
    }
}

/// A key of the configuration that names files; `index` of them where it is a list.
struct Key<'k> {
    path: &'k str,
    index: usize,
}

struct Judge<'r, 'e> {
    reader: &'r mut Reader<'e>,
    now_s: i64,
    pairs: BTreeSet<KeyPairFiles>,
    authorities: BTreeSet<PathBuf>,
}

impl Judge<'_, '_> {
    /// A chain and its key; `server` where clients compare a name with it.
    fn pair(&mut self, key: &Key<'_>, pair: &KeyPairFiles, server: bool) {
        if !self.pairs.insert(pair.clone()) {
            return;
        }
        let [of_cert, of_key] = ["cert", "key"].map(|word| self.place(key, word));
        let chain = self.read(&pair.cert, of_cert.as_ref(), "certificate", certificate::certificates);
        let private: Option<Arc<dyn SigningKey>> =
            self.read(&pair.key, of_key.as_ref(), "private key", certificate::key);
        let Some(chain) = chain else { return };
        let shown = quote_path(&pair.cert);
        for certificate in &chain {
            if self.is_outside_its_time(&shown, certificate, of_cert.as_ref()) {
                break;
            }
        }
        let Some(leaf) = chain.first() else { return };
        if server && !leaf.is_named {
            let message = format!("the certificate {shown} carries no DNS name and no IP address");
            let nameless = Diagnostic::new(Code::NamelessCertificate, message).at(of_cert.clone());
            self.reader.report(nameless.help("clients compare its subject alternative names, never its CN"));
        }
        if private.is_some_and(|private| !certificate::belong(&*private, leaf)) {
            let message = format!("the key {} is not that of the certificate {shown}", quote_path(&pair.key));
            let other = Diagnostic::new(Code::KeyMismatch, message).at(of_key);
            let help = "the first certificate of the file must be the one the key was made for";
            self.reader.report(other.related(of_cert, "the certificate").help(help));
        }
    }

    /// The roots that certificates of clients are checked against.
    fn client_ca(&mut self, key: &Key<'_>, file: &Path, client_auth: ClientAuth) {
        let place = self.place(key, "");
        let Some(roots) = self.read(file, place.as_ref(), "certificate", certificate::certificates) else {
            return;
        };
        let usable = |root: &Facts| root.is_ca && self.is_now(root);
        if client_auth == ClientAuth::Off || roots.iter().any(usable) {
            return;
        }
        let message = format!("clients must be checked, and {} holds no CA valid today", quote_path(file));
        let unusable = Diagnostic::new(Code::UnusableAuthority, message).at(place);
        let related = self.reader.place("edge.tls.client_auth");
        let help = "name a file with the CA that signed them, or \"auto\" for the vault worker's";
        self.reader.report(unusable.related(related, "which asks for one").help(help));
    }

    /// The roots that certificates of instances are checked against.
    fn authority(&mut self, key: &Key<'_>, file: &Path) {
        if !self.authorities.insert(file.to_path_buf()) {
            return;
        }
        let place = self.place(key, "");
        let Some(roots) = self.read(file, place.as_ref(), "certificate", certificate::certificates) else {
            return;
        };
        if roots.iter().any(|root| self.is_now(root)) {
            return;
        }
        for root in roots.iter().take(1) {
            self.is_outside_its_time(&quote_path(file), root, place.as_ref());
        }
    }

    fn is_now(&self, certificate: &Facts) -> bool {
        (certificate.not_before.unix_s..=certificate.not_after.unix_s).contains(&self.now_s)
    }

    /// Reports a certificate that is not valid now, or not for long.
    fn is_outside_its_time(&mut self, shown: &str, certificate: &Facts, place: Option<&Place>) -> bool {
        let (first, last) = (&certificate.not_before, &certificate.not_after);
        let left_s = last.unix_s - self.now_s;
        let (code, message) = if left_s < 0 {
            (Code::Expired, format!("the certificate {shown} expired on {}", last.day))
        } else if first.unix_s > self.now_s {
            (Code::Expired, format!("the certificate {shown} is not valid before {}", first.day))
        } else if left_s < SOON_DAYS * DAY_S {
            let days = left_s / DAY_S;
            (Code::ExpiresSoon, format!("the certificate {shown} expires on {}, in {days} days", last.day))
        } else {
            return false;
        };
        let ends = Diagnostic::new(code, message).at(place.cloned());
        self.reader.report(ends.help("put a new one in its place; a reload takes it, nothing restarts"));
        true
    }

    /// What a file holds; reports a file that cannot be read, or holds something else.
    fn read<T>(
        &mut self,
        file: &Path,
        place: Option<&Place>,
        what: &'static str,
        parse: fn(&[u8]) -> Result<T, PemFault>,
    ) -> Option<T> {
        let shown = quote_path(file);
        let mut help = None;
        let (code, message) = match (self.reader.read_file)(file).map(|bytes| parse(&bytes)) {
            Ok(Ok(parsed)) => return Some(parsed),
            Ok(Err(fault)) => {
                help = (fault == PemFault::Nothing(what)).then(|| {
                    format!("a {what} in PEM starts with -----BEGIN; `cert` is public, `key` is private")
                });
                (Code::Pem, format!("{shown} {fault}"))
            }
            Err(error) => (Code::CertificateFile, format!("cannot read the {what} {shown}: {error}")),
        };
        let mut wrong = Diagnostic::new(code, message).at(place.cloned());
        wrong.help = help;
        self.reader.report(wrong);
        None
    }

    /// Where a file is named: the text itself, where a file of the configuration has it.
    fn place(&self, key: &Key<'_>, word: &str) -> Option<Place> {
        let index = key.index;
        let within = if word.is_empty() { String::new() } else { format!(".{word}") };
        let listed = format!("{}[{index}]{within}", key.path);
        let single = format!("{}{within}", key.path);
        self.reader.place_of_value(key.path, &[&listed, &single])
    }
}
