//! `sys/…`: health and seal, mounts, policies, capabilities, wrapping.

pub(super) mod keys;
pub(super) mod policies;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_http::Reject;
use zeroize::Zeroizing;

use super::answer::{Answer, refusal};
use super::call::{Fields, Op, WORDS_MAX};
use super::http::form;
use super::route::{Ask, unsupported_operation, unsupported_path};
use super::who::{self, Who};
use super::{fault, token};
use crate::barrier::{Barrier, SealStatus};
use crate::context::{Context, Vault};
use crate::error::VaultError;
use crate::request::Act;
use crate::rotate;
use crate::seal::{Share, Split};
use crate::store::View as _;
pub(super) use keys::Step;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is answered to anybody, sealed or not, and tells no more than that it is. `None`: something else was asked.
pub(super) fn unguarded(
    context: &Arc<Context>,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Option<Answer> {
    let read = method == Method::GET || method == Method::HEAD;
    let answer = match path.strip_prefix("sys/")? {
        "health" if read => health(context, query.unwrap_or_default()),
        "seal-status" if read => Answer::Bare(200, status(context)),
        "leader" if read => Answer::Bare(
            200,
            json!({
                "ha_enabled": false, "is_self": false, "active_time": "0001-01-01T00:00:00Z", "leader_address": "",
                "leader_cluster_address": "", "performance_standby": false,
                "performance_standby_last_remote_wal": 0,
            }),
        ),
        "init" if read => Answer::Bare(200, json!({ "initialized": status(context)["initialized"] })),
        "health" | "seal-status" | "leader" => {
            let (status, _, _) = refusal(405, &[]);
            Answer::Bare(status, json!({ "errors": [] }))
        }
        _ => return None,
    };
    Some(answer)
}

fn status(context: &Context) -> Value {
    told(&context.barrier.seal_status())
}

fn told(status: &SealStatus) -> Value {
    json!({
        "type": "shamir", "seal": status.kind, "initialized": status.initialized, "sealed": status.sealed, "t": status.threshold,
        "n": status.shares, "progress": status.progress,
        "nonce": status.nonce.map(|nonce| nonce.to_string()).unwrap_or_default(),
        "version": VERSION, "build_date": "", "migration": false, "recovery_seal": false, "storage_type": "redb",
        "cluster_name": "sluice", "cluster_id": "",
    })
}

/// Making and opening the vault: whoever has the shares may, and only once. `None`: something else was asked.
pub(super) async fn barrier(
    context: &Context,
    act: &Act,
    op: Op,
    path: &str,
    fields: &Fields,
) -> Option<Result<Result<Answer, VaultError>, Reject>> {
    let act = act.clone();
    let done = match (path, op) {
        // Whoever makes the vault holds its shares: only somebody on this machine.
        ("sys/init", Op::Write) if !act.is_local() => {
            Ok(Err(fault(403, "a vault is made from its own machine only")))
        }
        ("sys/init", Op::Write) => match split(fields) {
            Ok(split) => context.ask(move |barrier| init(barrier, &act, split)).await,
            Err(error) => Ok(Err(error)),
        },
        ("sys/unseal", Op::Write) => match share(fields) {
            Ok(None) => context.ask(move |barrier| barrier.unseal_reset(&act).map(answered)).await,
            Ok(Some(share)) => context.ask(move |barrier| barrier.unseal(&act, share).map(answered)).await,
            Err(error) => Ok(Err(error)),
        },
        _ => return None,
    };
    Some(done)
}

fn answered(status: SealStatus) -> Answer {
    Answer::Bare(200, told(&status))
}

fn split(fields: &Fields) -> Result<Split, VaultError> {
    let number = |name: &str| {
        Ok::<_, VaultError>(fields.number(name)?.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
    };
    Split::new(number("secret_shares")?, number("secret_threshold")?)
        .map_err(|error| fault(400, error.to_string()))
}

/// The share in a body; `None`: those given so far are to be forgotten.
fn share(fields: &Fields) -> Result<Option<Share>, VaultError> {
    if fields.flag("reset")?.unwrap_or(false) {
        return Ok(None);
    }
    let text = Zeroizing::new(fields.text("key")?.unwrap_or_default());
    let missing = "'key' must be specified in request body as JSON, or 'reset' set to true";
    if text.is_empty() {
        return Err(fault(400, missing));
    }
    let wrong = || fault(400, "'key' must be a valid hex or base64 string");
    Share::parse(&text).map(Some).ok_or_else(wrong)
}

/// The shares and the first token, shown this once.
fn init(barrier: &Barrier, act: &Act, split: Split) -> Result<Answer, VaultError> {
    let now = act.now;
    let made = barrier.init(act, split, |vault| vault.mint_root(0, now))?;
    let root = made.first?;
    let keys: Vec<String> = made.shares.iter().map(|share| share.to_hex().to_string()).collect();
    let base64: Vec<String> = made.shares.iter().map(|share| share.to_base64().to_string()).collect();
    Ok(Answer::Bare(200, json!({ "keys": keys, "keys_base64": base64, "root_token": root })))
}

/// 200, or what the query wants it to be.
fn health(context: &Context, query: &str) -> Answer {
    let status = status(context);
    let wanted: BTreeMap<String, String> = form(query).take(WORDS_MAX).collect();
    let code = |name: &str, usual: u16| {
        wanted
            .get(name)
            .and_then(|code| code.parse().ok())
            .filter(|code| (200..600).contains(code))
            .unwrap_or(usual)
    };
    let code = match (status["initialized"] == true, status["sealed"] == true) {
        (false, _) => code("uninitcode", 501),
        (true, true) => code("sealedcode", 503),
        (true, false) => code("activecode", 200),
    };
    let told = json!({
        "initialized": status["initialized"],
        "sealed": status["sealed"],
        "standby": false,
        "replication_performance_mode": "disabled",
        "replication_dr_mode": "disabled",
        "server_time_utc": Timestamp::now().as_second(),
        "version": VERSION,
        "cluster_name": status["cluster_name"],
        "cluster_id": status["cluster_id"],
    });
    Answer::Bare(code, told)
}

impl Vault {
    pub(super) fn v1_sys(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        match (path, ask.call.op) {
            (["mounts", rest @ ..], _) => self.v1_mounts(ask, rest, false),
            (["auth", rest @ ..], _) => self.v1_mounts(ask, rest, true),
            (["policy", rest @ ..], _) => self.v1_policy(ask, rest, true),
            (["policies", "acl", rest @ ..], _) => self.v1_policy(ask, rest, false),
            (["capabilities-self"], Op::Write) => self.v1_capabilities(ask, &ask.who),
            (["capabilities"], Op::Write) => {
                let token = ask.call.fields.needed("token")?;
                self.v1_capabilities_of(ask, self.api_keys.digest("token", &token))
            }
            (["capabilities-accessor"], Op::Write) => {
                let accessor = ask.call.fields.needed("accessor")?;
                let id = token::by_accessor(&self.store.snapshot()?, &accessor)?;
                self.v1_capabilities_of(ask, id.ok_or_else(|| fault(400, "invalid accessor"))?)
            }
            (["internal", "ui", "resultant-acl"], Op::Read) => {
                let root = ask.who.is_root();
                self.read(ask.entry(), || Answer::data(&json!({ "root": root })))
            }
            (["key-status"], Op::Read) => self.v1_key_status(ask),
            // The handler takes the step once this has said, and recorded, that the caller may.
            _ if Step::is_one(&ask.call.path, ask.call.op) => self.read(ask.entry(), || Ok(Answer::Nothing)),
            (["wrapping", "wrap"], Op::Write) => self.v1_wrap_body(ask),
            (["leases", "lookup" | "renew" | "revoke"], Op::Write) => {
                Err(self.refuse(ask.entry(), fault(400, "invalid lease")))
            }
            (["capabilities-self" | "capabilities" | "capabilities-accessor"], _) => {
                Err(unsupported_operation())
            }
            _ => Err(unsupported_path()),
        }
    }

    /// The newest key-encryption key. How often it was used is not counted: each record has a key of its own.
    fn v1_key_status(&self, ask: &Ask) -> Result<Answer, VaultError> {
        self.read(ask.entry(), || {
            let view = self.store.snapshot()?;
            let since = rotate::since(&view)?.unwrap_or(self.authority.load().root.not_before);
            let term = view.keyring().newest();
            Answer::flat(&json!({ "term": term, "install_time": since.to_string(), "encryptions": 0 }))
        })
    }

    fn v1_capabilities_of(&self, ask: &Ask, id: String) -> Result<Answer, VaultError> {
        let held = who::held(&self.store.snapshot()?, &self.api_keys.acls, id, ask.call.act.now)?;
        match held {
            Some(held) => self.v1_capabilities(ask, &Who::Token(Box::new(held))),
            None => Err(self.refuse(ask.entry(), fault(400, "invalid token"))),
        }
    }

    fn v1_capabilities(&self, ask: &Ask, of: &Who) -> Result<Answer, VaultError> {
        let fields: &Fields = &ask.call.fields;
        let paths = match fields.words("paths")? {
            Some(paths) => paths,
            None => fields.words("path")?.ok_or_else(|| fault(400, "paths must be supplied"))?,
        };
        let mut told: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for path in &paths {
            told.insert(path.clone(), of.caps(path.trim_start_matches('/')));
        }
        if let ([_], Some(only)) = (paths.as_slice(), told.values().next().cloned()) {
            told.insert("capabilities".to_owned(), only);
        }
        self.read(ask.entry(), || Answer::flat(&told))
    }

    /// Puts the body itself aside.
    fn v1_wrap_body(&self, ask: &Ask) -> Result<Answer, VaultError> {
        if ask.call.wrap_s.is_none() {
            return Err(
                self.refuse(ask.entry(), fault(400, "endpoint requires response wrapping to be used"))
            );
        }
        Answer::data(ask.call.fields.whole())
    }
}
