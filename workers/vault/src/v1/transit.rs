//! `transit/…`: encryption with keys that stay here. AES-256-GCM; a ciphertext is `vault:v<version>:` and base64 of
//! nonce and sealed text.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::answer::Answer;
use super::call::{Fields, Op};
use super::route::{Ask, unsupported_operation, unsupported_path};
use super::{fault, logical};
use crate::context::Vault;
use crate::error::VaultError;

/// LIMIT: versions of one key.
const VERSIONS_MAX: usize = 64;
/// LIMIT: texts of one call.
const BATCH_MAX: usize = 256;

/// A key. No Debug: it is a secret.
#[derive(Clone, Serialize, Deserialize)]
struct Row {
    /// Made at (unix seconds) and 32 bytes, base64, by version.
    versions: BTreeMap<u32, (i64, String)>,
    min_decryption: u32,
    deletion_allowed: bool,
}

fn row_key(name: &str) -> String {
    format!("transit/{name}")
}

impl Row {
    fn new(now: Timestamp) -> Result<Self, VaultError> {
        let mut row = Self { versions: BTreeMap::new(), min_decryption: 1, deletion_allowed: false };
        row.rotate(now)?;
        Ok(row)
    }

    fn rotate(&mut self, now: Timestamp) -> Result<(), VaultError> {
        if self.versions.len() >= VERSIONS_MAX {
            return Err(fault(400, format!("a key has at most {VERSIONS_MAX} versions")));
        }
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| VaultError::Crypto("random numbers"))?;
        self.versions.insert(self.latest() + 1, (now.as_second(), STANDARD.encode(*bytes)));
        Ok(())
    }

    fn latest(&self) -> u32 {
        self.versions.keys().next_back().copied().unwrap_or(0)
    }

    fn cipher(&self, version: u32) -> Result<LessSafeKey, VaultError> {
        let damaged = || VaultError::Crypto("a transit key does not parse");
        let (_, text) = self
            .versions
            .get(&version)
            .ok_or_else(|| fault(400, "invalid ciphertext: no such key version"))?;
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| damaged())?);
        UnboundKey::new(&AES_256_GCM, &bytes).map(LessSafeKey::new).map_err(|_| damaged())
    }

    fn seal(&self, plaintext: &str) -> Result<String, VaultError> {
        let mut text =
            STANDARD.decode(plaintext).map_err(|_| fault(400, "illegal base64 data in plaintext"))?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::Crypto("random numbers"))?;
        let cipher = self.cipher(self.latest())?;
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
            .map_err(|_| VaultError::Crypto("transit"))?;
        Ok(format!("vault:v{}:{}", self.latest(), STANDARD.encode([nonce.as_slice(), &text].concat())))
    }

    fn open(&self, ciphertext: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let rest = ciphertext.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
        let (version, text) = rest.ok_or_else(|| fault(400, "invalid ciphertext: no prefix"))?;
        let version: u32 = version
            .parse()
            .map_err(|_| fault(400, "invalid ciphertext: version number could not be decoded"))?;
        if version < self.min_decryption {
            return Err(fault(400, "ciphertext or signature version is disallowed by policy (too old)"));
        }
        let cipher = self.cipher(version)?;
        let mut bytes = Zeroizing::new(
            STANDARD.decode(text).map_err(|_| fault(400, "invalid ciphertext: could not decode base64"))?,
        );
        let Some((nonce, sealed)) =
            bytes.split_first_chunk_mut::<NONCE_LEN>().filter(|(_, sealed)| sealed.len() >= 16)
        else {
            return Err(fault(400, "invalid ciphertext length"));
        };
        let opened = cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), sealed);
        let plain = opened.map_err(|_| fault(400, "cipher: message authentication failed"))?;
        Ok(Zeroizing::new(plain.to_vec()))
    }

    fn described(&self, name: &str) -> Value {
        let made: BTreeMap<String, i64> =
            self.versions.iter().map(|(version, (at, _))| (version.to_string(), *at)).collect();
        json!({
            "allow_plaintext_backup": false, "auto_rotate_period": 0, "deletion_allowed": self.deletion_allowed,
            "derived": false, "exportable": false, "imported_key": false, "keys": made,
            "latest_version": self.latest(), "min_available_version": 0,
            "min_decryption_version": self.min_decryption, "min_encryption_version": 0, "name": name,
            "soft_deleted": false, "supports_decryption": true, "supports_derivation": true,
            "supports_encryption": true, "supports_signing": false, "type": "aes256-gcm96",
        })
    }
}

impl Vault {
    pub(super) fn v1_transit(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        let op = ask.call.op;
        match (path, op) {
            (["keys"], Op::List) => self.v1_names(ask, "transit/"),
            (["keys", name, rest @ ..], op) => self.v1_transit_key(ask, logical::name(name)?, rest, op),
            ([what @ ("encrypt" | "decrypt" | "rewrap"), name], Op::Write) => {
                self.v1_transit_texts(ask, what, logical::name(name)?)
            }
            (["keys"] | ["encrypt" | "decrypt" | "rewrap", _], _) => Err(unsupported_operation()),
            _ => Err(unsupported_path()),
        }
    }

    fn v1_transit_key(&self, ask: &Ask, name: &str, rest: &[&str], op: Op) -> Result<Answer, VaultError> {
        let (key, now) = (row_key(name), ask.call.act.now);
        let found = |row: Option<Row>| row.ok_or_else(|| fault(400, "encryption key not found"));
        let row = match (rest, op) {
            ([], Op::Read) => self.v1_read(ask, || logical::load(&self.store.snapshot()?, &key))?,
            ([], Op::Write) => {
                if !matches!(ask.call.fields.text("type")?.as_deref(), None | Some("" | "aes256-gcm96")) {
                    return Err(self.refuse(ask.entry(), fault(400, "keys are of type aes256-gcm96")));
                }
                self.write(ask.entry(), move |change| {
                    if let Some(row) = logical::load(change, &key)? {
                        return Ok(row);
                    }
                    let row = Row::new(now)?;
                    logical::save(change, &key, &row)?;
                    Ok(row)
                })?
            }
            (["rotate"], Op::Write) => self.write(ask.entry(), move |change| {
                let mut row = found(logical::load(change, &key)?)?;
                row.rotate(now)?;
                logical::save(change, &key, &row)?;
                Ok(row)
            })?,
            (["config"], Op::Write) => {
                let fields = &ask.call.fields;
                let (deletion, least) =
                    (fields.flag("deletion_allowed")?, fields.number("min_decryption_version")?);
                self.write(ask.entry(), move |change| {
                    let mut row = found(logical::load(change, &key)?)?;
                    row.deletion_allowed = deletion.unwrap_or(row.deletion_allowed);
                    if let Some(least) = least {
                        let latest = row.latest();
                        row.min_decryption = u32::try_from(least)
                            .ok()
                            .filter(|least| (1..=latest).contains(least))
                            .ok_or_else(|| fault(400, "min_decryption_version is a version of the key"))?;
                    }
                    logical::save(change, &key, &row)?;
                    Ok(row)
                })?
            }
            ([], Op::Delete) => {
                let shown = name.to_owned();
                self.write(ask.entry(), move |change| {
                    let row = logical::load::<Row>(change, &key)?;
                    let row = row.ok_or_else(|| {
                        fault(400, format!("error deleting policy {shown}: could not delete key; not found"))
                    })?;
                    if !row.deletion_allowed {
                        return Err(fault(
                            400,
                            format!("error deleting policy {shown}: deletion is not allowed for this key"),
                        ));
                    }
                    logical::remove(change, &key);
                    Ok(())
                })?;
                return Ok(Answer::Nothing);
            }
            _ => return Err(unsupported_path()),
        };
        Answer::data(&row.described(name))
    }

    fn v1_transit_texts(&self, ask: &Ask, what: &str, name: &str) -> Result<Answer, VaultError> {
        let mut row: Option<Row> = logical::load(&self.store.snapshot()?, &row_key(name))?;
        if row.is_none() && what == "encrypt" && ask.who.may(Op::Write, &ask.call.path, false) {
            // As in Vault, a key is made by its first use for whoever may create it.
            let (key, now) = (row_key(name), ask.call.act.now);
            let made =
                ask.call.act.entry("v1", "create", format!("transit/keys/{name}")).actor(ask.who.actor());
            row = Some(self.write(made, move |change| {
                let row = Row::new(now)?;
                logical::save(change, &key, &row)?;
                Ok(row)
            })?);
        }
        let fields = &ask.call.fields;
        let work = || {
            let row = row.ok_or_else(|| fault(400, "encryption key not found"))?;
            let Some(batch) = fields.raw("batch_input") else {
                return Answer::data(&one(&row, what, fields)?);
            };
            let batch: Vec<Box<RawValue>> =
                serde_json::from_str(batch.get()).map_err(|_| fault(400, "batch_input is a list"))?;
            if batch.is_empty() || batch.len() > BATCH_MAX {
                return Err(fault(400, format!("batch_input has 1 to {BATCH_MAX} items")));
            }
            let each = batch.iter().map(|item| {
                let fields = Fields::parse(item.get().as_bytes())?;
                let mut told = one(&row, what, &fields)?;
                told["reference"] = fields.text("reference")?.unwrap_or_default().into();
                Ok(told)
            });
            Answer::data(&json!({ "batch_results": each.collect::<Result<Vec<_>, VaultError>>()? }))
        };
        match work() {
            Ok(answer) => self.read(ask.entry(), || Ok(answer)),
            Err(error) => Err(self.refuse(ask.entry(), error)),
        }
    }
}

fn one(row: &Row, what: &str, fields: &Fields) -> Result<Value, VaultError> {
    if fields.raw("context").is_some() || fields.raw("associated_data").is_some() {
        return Err(fault(400, "context and associated_data are not supported"));
    }
    let sealed = |ciphertext: String| json!({ "ciphertext": ciphertext, "key_version": row.latest() });
    match what {
        "encrypt" => Ok(sealed(row.seal(&fields.text("plaintext")?.unwrap_or_default())?)),
        "decrypt" => {
            Ok(json!({ "plaintext": STANDARD.encode(row.open(&fields.needed("ciphertext")?)?.as_slice()) }))
        }
        _ => {
            let plain = row.open(&fields.needed("ciphertext")?)?;
            Ok(sealed(row.seal(&STANDARD.encode(plain.as_slice()))?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(text in proptest::collection::vec(any::<u8>(), 0..64), rotations in 0usize..3, at in any::<prop::sample::Index>()) {
            let mut row = Row::new(Timestamp::UNIX_EPOCH).unwrap();
            let sealed = row.seal(&STANDARD.encode(&text)).unwrap();
            for _ in 0..rotations {
                row.rotate(Timestamp::UNIX_EPOCH).unwrap();
            }
            let opened = row.open(&sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), text.as_slice());
            let (head, body) = sealed.rsplit_once(':').unwrap();
            let mut bytes = STANDARD.decode(body).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            let forged = format!("{head}:{}", STANDARD.encode(&bytes));
            prop_assert!(row.open(&forged).is_err());
        }
    }
}
