//! `pki/…`: certificates of this installation's authority, for names that roles allow.
//!
//! The authority is the one that is there: generating a root shows it. No certificate made here names a service or
//! role of this trust domain; those are issued at `/credentials/…`.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::Answer;
use super::call::{Fields, Op, WORDS_MAX, seconds};
use super::route::{Ask, unsupported_operation, unsupported_path};
use super::{fault, logical, nothing};
use crate::ca::{Authority, Named, NamedRequest, RequestedKey, is_dns_name, is_ours, pem, serial_of};
use crate::context::Vault;
use crate::error::VaultError;

/// Life of a certificate where nothing else is said, and the longest: that of the issuing intermediate.
const TTL_S: i64 = 86_400;
const TTL_MAX_S: i64 = 90 * 86_400;

/// What certificates of a role may say.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Role {
    allowed_domains: Vec<String>,
    allow_bare_domains: bool,
    allow_subdomains: bool,
    allow_any_name: bool,
    allow_localhost: bool,
    allow_ip_sans: bool,
    allowed_uri_sans: Vec<String>,
    server: bool,
    client: bool,
    ttl_s: i64,
    max_ttl_s: i64,
}

fn key(name: &str) -> String {
    format!("pki/role/{name}")
}

/// `aa:bb`.
fn colons(serial: &str) -> String {
    let pairs: Vec<&str> = (0..serial.len() / 2).map(|at| &serial[at * 2..at * 2 + 2]).collect();
    pairs.join(":")
}

impl Vault {
    /// What anybody may have: certificates of the authority and its lists, not as JSON.
    pub(super) fn v1_pki_open(&self, path: &[&str]) -> Option<Result<Answer, VaultError>> {
        let authority = self.authority.load_full();
        let lists = || self.revocation_lists(Timestamp::now());
        let answer = match path {
            ["ca"] => Ok(Answer::Raw("application/pkix-cert", authority.issuing().der.clone())),
            ["ca", "pem"] => {
                Ok(Answer::Raw("application/pem-certificate-chain", authority.issuing().pem().into()))
            }
            ["ca_chain"] => {
                Ok(Answer::Raw("application/pem-certificate-chain", authority.chain_pem().into_bytes()))
            }
            ["crl", "pem"] => {
                lists().map(|lists| Answer::Raw("application/x-pem-file", first(&lists).into_bytes()))
            }
            ["crl"] => lists().and_then(|lists| {
                let block = x509_parser::pem::parse_x509_pem(lists.as_bytes());
                let (_, block) = block.map_err(|_| VaultError::Crypto("a revocation list does not parse"))?;
                Ok(Answer::Raw("application/pkix-crl", block.contents))
            }),
            _ => return None,
        };
        Some(answer)
    }

    pub(super) fn v1_pki(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        match (path, ask.call.op) {
            (["root", "generate", "internal"] | ["generate", "root", "internal"], Op::Write) => {
                self.v1_pki_root(ask)
            }
            (["root", "generate", _] | ["generate", "root", _], Op::Write) => {
                Err(self
                    .refuse(ask.entry(), fault(400, "the key of the authority does not leave this vault")))
            }
            (["roles"], Op::List) => self.v1_names(ask, "pki/role/"),
            (["roles", name], op) => self.v1_pki_role(ask, logical::name(name)?, op),
            (["issue", name], Op::Write) => self.v1_pki_issue(ask, name, false),
            (["sign", name], Op::Write) => self.v1_pki_issue(ask, name, true),
            (["revoke"], Op::Write) => self.v1_pki_revoke(ask),
            (["certs"], Op::List) => {
                let serials = self.read(ask.entry(), || self.known_serials())?;
                Answer::keys(&serials.iter().map(|serial| colons(serial)).collect::<Vec<_>>())
            }
            (["cert", serial], Op::Read) => self.v1_pki_cert(ask, serial),
            (["crl", "rotate"], Op::Read | Op::Write) => {
                self.renew_lists(ask.entry(), ask.call.act.now)?;
                Answer::data(&json!({ "success": true }))
            }
            (["config", "urls"], Op::Read | Op::Write) => {
                // The lists have their own address; none is written into certificates.
                self.read(ask.entry(), || {
                    Answer::data(&json!({
                        "crl_distribution_points": [], "delta_crl_distribution_points": [], "enable_templating": false,
                        "issuing_certificates": [], "ocsp_servers": [],
                    }))
                })
            }
            (["tidy"], Op::Write) => Ok(Answer::warning("Certificates that have ended go by themselves.")),
            (["roles" | "certs" | "revoke"] | ["issue" | "sign" | "cert", _], _) => {
                Err(unsupported_operation())
            }
            _ => Err(unsupported_path()),
        }
    }

    fn v1_pki_root(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let authority = self.authority.load_full();
        let root = &authority.root;
        let answer = self.read(ask.entry(), || {
            Answer::data(&json!({
                "certificate": root.pem(),
                "expiration": root.not_after.as_second(),
                "issuer_id": root.key_id,
                "issuer_name": "",
                "issuing_ca": root.pem(),
                "key_id": root.key_id,
                "key_name": "",
                "serial_number": colons(&root.serial),
            }))
        })?;
        Ok(answer.warn("This vault has one authority, made at its first start: what was asked for its root is not taken."))
    }

    fn v1_pki_role(&self, ask: &Ask, name: &str, op: Op) -> Result<Answer, VaultError> {
        let key = key(name);
        match op {
            Op::Read => {
                let role: Role = self.v1_read(ask, || logical::load(&self.store.snapshot()?, &key))?;
                Answer::data(&role.described())
            }
            Op::Write => {
                let role = Role::of(&ask.call.fields).map_err(|error| self.refuse(ask.entry(), error))?;
                let told = role.described();
                self.write(ask.entry(), move |change| logical::save(change, &key, &role))?;
                Answer::data(&told)
            }
            Op::Delete => self.v1_remove(ask, key),
            _ => Err(unsupported_operation()),
        }
    }

    fn v1_pki_issue(&self, ask: &Ask, name: &str, sign: bool) -> Result<Answer, VaultError> {
        let planned = || {
            let role: Option<Role> = logical::load(&self.store.snapshot()?, &key(name))?;
            let role = role.ok_or_else(|| fault(400, format!("unknown role: {name}")))?;
            role.plan(&ask.call.fields, sign, &self.settings.trust_domain)
        };
        let (request, clamped) = planned().map_err(|error| self.refuse(ask.entry(), error))?;
        let now = ask.call.act.now;
        let made = self.issue_named(ask.entry(), &format!("pki/{name}"), request, now);
        let authority = self.authority.load_full();
        Self::v1_later(ask, async move { shown(&made.await?, &authority, clamped) })
    }

    fn v1_pki_revoke(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let wanted = || {
            let text = ask.call.fields.needed("serial_number")?;
            let unknown = || {
                fault(
                    400,
                    format!(
                        "certificate with serial {} not found.",
                        text.chars().take(64).collect::<String>()
                    ),
                )
            };
            let serial = serial_of(&text).ok_or_else(unknown)?;
            let known = self.known_certificate(&serial)?.ok_or_else(unknown)?;
            // A policy about `pki/` ends no service and no role.
            if !known.holder.starts_with("pki/") && !ask.who.is_root() {
                return Err(super::denied());
            }
            Ok(serial)
        };
        let serial = wanted().map_err(|error| self.refuse(ask.entry(), error))?;
        let since = self.revoke_known(ask.entry(), &serial, ask.call.act.now)?.ok_or_else(nothing)?;
        Answer::data(&json!({
            "revocation_time": since.as_second(), "revocation_time_rfc3339": since.to_string(), "state": "revoked",
        }))
    }

    fn v1_pki_cert(&self, ask: &Ask, serial: &str) -> Result<Answer, VaultError> {
        let authority = self.authority.load_full();
        let fixed = match serial {
            "ca" => Some(authority.issuing().pem().to_owned()),
            "ca_chain" => Some(authority.chain_pem()),
            "crl" => Some(first(&self.revocation_lists(ask.call.act.now)?)),
            _ => None,
        };
        if let Some(text) = fixed {
            let mut told = json!({ "certificate": text.trim_end(), "revocation_time": 0, "revocation_time_rfc3339": "" });
            if serial == "ca_chain" {
                told["ca_chain"] = text.trim_end().into();
            }
            return self.read(ask.entry(), || Answer::data(&told));
        }
        let known = self.v1_read(ask, || match serial_of(serial) {
            Some(serial) => self.known_certificate(&serial),
            None => Ok(None),
        })?;
        let mut told = json!({
            "certificate": known.pem.trim_end(),
            "revocation_time": known.revoked_at.map_or(0, Timestamp::as_second),
            "revocation_time_rfc3339": known.revoked_at.map(|at| at.to_string()).unwrap_or_default(),
        });
        if known.revoked_at.is_some() {
            told["issuer_id"] = authority.issuing().key_id.clone().into();
        }
        Answer::data(&told)
    }
}

/// A new certificate.
fn shown(made: &Named, authority: &Authority, clamped: bool) -> Result<Answer, VaultError> {
    let (issuing, root) = (authority.issuing().pem().trim_end(), authority.root.pem().trim_end());
    let mut told = json!({
        "ca_chain": [issuing, root],
        "certificate": made.pem.trim_end(),
        "expiration": made.not_after.as_second(),
        "issuing_ca": issuing,
        "not_before": made.not_before.as_second(),
        "serial_number": colons(&made.serial),
    });
    if let Some(key) = &made.private_key {
        told["private_key"] = key.trim_end().into();
        told["private_key_type"] = "ec".into();
    }
    let answer = Answer::data(&told)?;
    Ok(if clamped { answer.warn("TTL is longer than the role allows and was shortened.") } else { answer })
}

/// The first block of several.
fn first(pems: &str) -> String {
    match x509_parser::pem::parse_x509_pem(pems.as_bytes()) {
        Ok((_, block)) => pem(&block.label, &block.contents),
        Err(_) => String::new(),
    }
}

impl Role {
    fn of(fields: &Fields) -> Result<Self, VaultError> {
        let flag = |name: &str, usual: bool| Ok::<_, VaultError>(fields.flag(name)?.unwrap_or(usual));
        match fields.text("key_type")?.as_deref() {
            None | Some("" | "ec" | "any") => {}
            Some(other) => {
                return Err(fault(400, format!("key_type {other} is not supported: keys are ec, P-256")));
            }
        }
        if !matches!(fields.number("key_bits")?, None | Some(0 | 256)) {
            return Err(fault(400, "key_bits is 256"));
        }
        for unsupported in
            ["allow_glob_domains", "allowed_domains_template", "code_signing_flag", "email_protection_flag"]
        {
            if flag(unsupported, false)? {
                return Err(fault(400, format!("{unsupported} is not supported")));
            }
        }
        let role = Self {
            allowed_domains: fields.words("allowed_domains")?.unwrap_or_default(),
            allow_bare_domains: flag("allow_bare_domains", false)?,
            allow_subdomains: flag("allow_subdomains", false)?,
            allow_any_name: flag("allow_any_name", false)?,
            allow_localhost: flag("allow_localhost", true)?,
            allow_ip_sans: flag("allow_ip_sans", true)?,
            allowed_uri_sans: fields.words("allowed_uri_sans")?.unwrap_or_default(),
            server: flag("server_flag", true)?,
            client: flag("client_flag", true)?,
            ttl_s: fields.seconds("ttl")?.unwrap_or(0),
            max_ttl_s: fields.seconds("max_ttl")?.unwrap_or(0),
        };
        if role.max_ttl_s > 0 && role.ttl_s > role.max_ttl_s {
            return Err(fault(400, "\"ttl\" value must be less than \"max_ttl\" value"));
        }
        Ok(role)
    }

    fn described(&self) -> serde_json::Value {
        let mut told: serde_json::Value = serde_json::from_str(DESCRIBED).unwrap_or_default();
        let own = json!({
            "allowed_domains": self.allowed_domains, "allow_bare_domains": self.allow_bare_domains,
            "allow_subdomains": self.allow_subdomains, "allow_any_name": self.allow_any_name,
            "allow_localhost": self.allow_localhost, "allow_ip_sans": self.allow_ip_sans,
            "allowed_uri_sans": self.allowed_uri_sans, "server_flag": self.server, "client_flag": self.client,
            "ttl": self.ttl_s, "max_ttl": self.max_ttl_s,
        });
        if let (Some(told), serde_json::Value::Object(own)) = (told.as_object_mut(), own) {
            told.extend(own);
        }
        told
    }

    /// What a certificate is to say, and whether its life was shortened.
    fn plan(
        &self,
        fields: &Fields,
        sign: bool,
        trust_domain: &str,
    ) -> Result<(NamedRequest, bool), VaultError> {
        let key = if sign {
            let csr = fields.text("csr")?.unwrap_or_default();
            Some(RequestedKey::parse(&csr).map_err(|error| fault(400, error.to_string()))?)
        } else {
            None
        };
        let common_name = fields.text("common_name")?.unwrap_or_default();
        if common_name.is_empty() {
            return Err(fault(400, "the common_name field is required"));
        }
        let mut dns_names = fields.words("alt_names")?.unwrap_or_default();
        if !dns_names.contains(&common_name) && !fields.flag("exclude_cn_from_sans")?.unwrap_or(false) {
            dns_names.insert(0, common_name.clone());
        }
        if let Some(name) =
            dns_names.iter().chain([&common_name]).find(|name| !self.allows(name, trust_domain))
        {
            let what = if *name == common_name { "common name" } else { "subject alternate name" };
            return Err(fault(
                400,
                format!("{what} {} not allowed by this role", name.chars().take(253).collect::<String>()),
            ));
        }
        let addresses = fields.words("ip_sans")?.unwrap_or_default();
        let addresses: Option<Vec<IpAddr>> = addresses.iter().map(|text| text.parse().ok()).collect();
        let ip_addresses = addresses.ok_or_else(|| fault(400, "the value of ip_sans is not an address"))?;
        if !ip_addresses.is_empty() && !self.allow_ip_sans {
            return Err(fault(400, "IP Subject Alternative Names are not allowed in this role"));
        }
        let uris = fields.words("uri_sans")?.unwrap_or_default();
        if !uris.iter().all(|uri| self.allows_uri(uri, trust_domain)) {
            return Err(fault(400, "a URI Subject Alternative Name is not allowed by this role"));
        }
        let most = if self.max_ttl_s > 0 { self.max_ttl_s.min(TTL_MAX_S) } else { TTL_MAX_S };
        let usual = if self.ttl_s > 0 { self.ttl_s } else { TTL_S };
        let wanted = match fields.text("ttl")?.filter(|ttl| !ttl.is_empty()) {
            Some(text) => {
                seconds(&text).filter(|ttl| *ttl >= 0).ok_or_else(|| fault(400, "ttl is no duration"))?
            }
            None => 0,
        };
        let wanted = if wanted > 0 { wanted } else { usual.min(most) };
        let ttl = SignedDuration::from_secs(wanted.min(most));
        let (server, client) = (self.server, self.client);
        if dns_names.len() + ip_addresses.len() + uris.len() > WORDS_MAX {
            return Err(fault(400, "a certificate has at most 64 names"));
        }
        Ok((
            NamedRequest { common_name, dns_names, ip_addresses, uris, ttl, server, client, key },
            wanted > most,
        ))
    }

    fn allows(&self, name: &str, trust_domain: &str) -> bool {
        // A bare name is a service's: its certificates carry it.
        let is_bare = !name.contains('.') && name != "localhost";
        if !is_dns_name(name) || is_bare || is_ours(name, trust_domain) {
            return false;
        }
        let below =
            |domain: &String| name.strip_suffix(domain.as_str()).is_some_and(|head| head.ends_with('.'));
        self.allow_any_name
            || (self.allow_localhost && name == "localhost")
            || (self.allow_bare_domains && self.allowed_domains.iter().any(|domain| domain == name))
            || (self.allow_subdomains && self.allowed_domains.iter().any(below))
    }

    fn allows_uri(&self, uri: &str, trust_domain: &str) -> bool {
        let foreign = !uri.to_ascii_lowercase().starts_with(&format!("spiffe://{trust_domain}"));
        let fits = |allowed: &String| match allowed.strip_suffix('*') {
            Some(head) => uri.starts_with(head),
            None => uri == allowed,
        };
        foreign && uri.is_ascii() && self.allowed_uri_sans.iter().any(fits)
    }
}

/// What a role says that cannot be set here.
const DESCRIBED: &str = r#"{"allow_glob_domains":false,"allow_globs_in_identity_templates":false,"allow_token_displayname":false,"allow_wildcard_certificates":false,"allowed_domains_template":false,"allowed_ip_sans_cidr":[],"allowed_other_sans":[],"allowed_serial_numbers":[],"allowed_uri_sans_template":false,"allowed_user_ids":[],"basic_constraints_valid_for_non_ca":false,"cn_validations":["hostname"],"code_signing_flag":false,"country":[],"email_protection_flag":false,"enforce_hostnames":true,"ext_key_usage":[],"ext_key_usage_oids":[],"generate_lease":false,"issuer_ref":"default","key_bits":256,"key_type":"ec","key_usage":["DigitalSignature"],"locality":[],"no_store":false,"not_after":"","not_after_bound":"permit","not_before":"","not_before_bound":"permit","not_before_duration":60,"organization":[],"ou":[],"policy_identifiers":[],"postal_code":[],"province":[],"require_cn":true,"signature_bits":0,"street_address":[],"use_csr_common_name":false,"use_csr_sans":false,"use_pss":false}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn role(body: &str) -> Role {
        Role::of(&Fields::parse(body.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn names_are_those_of_the_role_and_never_this_installations() {
        let role = role(
            r#"{"allowed_domains":"example.com","allow_subdomains":true,"allowed_uri_sans":"https://*,spiffe://*"}"#,
        );
        let domain = "sluice.internal";
        for good in ["a.example.com", "a.b.example.com", "localhost"] {
            assert!(role.allows(good, domain), "{good}");
        }
        for bad in [
            "example.com",
            "aexample.com",
            "a.evil.com",
            "*.example.com",
            "A.example.com",
            "127.0.0.1",
            ".example.com",
            "a..example.com",
            "",
        ] {
            assert!(!role.allows(bad, domain), "{bad}");
        }
        assert!(role.allows_uri("https://a", domain) && role.allows_uri("spiffe://other/x", domain));
        assert!(!role.allows_uri("spiffe://sluice.internal/service/bot", domain));
        assert!(!role.allows_uri("SPIFFE://sluice.internal/role/edge", domain));
        let any = Role { allow_any_name: true, ..role };
        for ours in ["vault", "edge", "bot", "trading_service", "sluice.internal", "bot.sluice.internal"] {
            assert!(!any.allows(ours, domain), "{ours}");
        }
    }

    proptest! {
        #[test]
        fn no_certificate_outlives_its_role(ttl in 0i64..100_000_000, usual in 0i64..1_000_000, most in 1i64..10_000_000) {
            let body = format!(r#"{{"allow_any_name":true,"max_ttl":{most},"ttl":{}}}"#, usual.min(most));
            let fields = Fields::parse(format!(r#"{{"common_name":"a.b","ttl":{ttl}}}"#).as_bytes()).unwrap();
            let (request, clamped) = role(&body).plan(&fields, false, "sluice.internal").unwrap();
            prop_assert!(request.ttl.as_secs() <= most.min(TTL_MAX_S) && request.ttl.as_secs() > 0);
            prop_assert_eq!(clamped, ttl > most.min(TTL_MAX_S));
        }
    }
}
