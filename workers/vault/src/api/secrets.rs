//! Secrets over HTTP.
//!
//! `PUT|POST /secrets/{path}` writes; `POST …?undelete=1,2` and `POST …?destroy=1,2` change versions.
//! `GET` reads (`?version=`), lists (`?list=true`) or tells the history (`?metadata`); `LIST` lists.
//! `DELETE` deletes the current version or `?versions=1,2`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{Method, Uri};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_http::{BodyBytes, Reject, StrictJson, StrictQuery};
use sluice_wire::code::Code;

use super::{answer, raw_rest};
use crate::context::Context;
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::request::{Act, SecretAct};
use crate::secret::{Fate, NewValue, VersionList, parse_body};

/// Everything a query on a secret may say; each method takes its own part.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretQuery {
    version: Option<String>,
    versions: Option<String>,
    undelete: Option<String>,
    destroy: Option<String>,
    list: Option<bool>,
    metadata: Option<String>,
    cursor: Option<String>,
}

/// What a method and query ask for.
enum Wanted {
    Read(Option<u64>),
    History,
    List(Option<String>),
    Write,
    Change(Fate, Option<VersionList>),
}

#[derive(Serialize)]
struct Changed {
    status: &'static str,
    path: String,
    versions: Vec<u64>,
}

/// `/secrets` itself can only be listed.
pub(super) async fn root(
    State(context): State<Arc<Context>>,
    method: Method,
    SecretAct(act): SecretAct,
    StrictQuery(query): StrictQuery<SecretQuery>,
) -> Result<Response, Reject> {
    let Wanted::List(cursor) = wanted(&method, query)? else {
        return Err(Reject::new(Code::BadPath, "name a secret below /secrets, or list with ?list=true"));
    };
    let listing = context.run(move |vault| vault.list_secrets(&act, None, cursor.as_deref())).await?;
    Ok(answer(&listing))
}

pub(super) async fn at(
    State(context): State<Arc<Context>>,
    method: Method,
    uri: Uri,
    SecretAct(act): SecretAct,
    StrictQuery(query): StrictQuery<SecretQuery>,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let wanted = wanted(&method, query)?;
    let mut raw = raw_rest(&uri, "/secrets/");
    if matches!(wanted, Wanted::List(_)) {
        // Listing clients write folders with a slash at the end.
        raw = raw.strip_suffix('/').unwrap_or(raw);
    }
    let path = SecretPath::from_target(raw)?;
    match wanted {
        Wanted::Read(version) => read(&context, act, path, version).await,
        Wanted::History => {
            let history = context.run(move |vault| vault.secret_history(&act, &path)).await?;
            Ok(answer(&history))
        }
        Wanted::List(cursor) => {
            let listing =
                context.run(move |vault| vault.list_secrets(&act, Some(&path), cursor.as_deref())).await?;
            Ok(answer(&listing))
        }
        Wanted::Write => write(&context, act, path, parse_body(&body)?).await,
        Wanted::Change(fate, versions) => change(&context, act, path, fate, versions).await,
    }
}

fn wanted(method: &Method, query: SecretQuery) -> Result<Wanted, Reject> {
    let SecretQuery { version, versions, undelete, destroy, list, metadata, cursor } = query;
    let list = list.unwrap_or(false);
    let history = match metadata.as_deref() {
        None | Some("false" | "0") => false,
        Some("" | "true" | "1") => true,
        Some(_) => return Err(Reject::new(Code::BadQuery, "metadata is true or false")),
    };
    let given = [
        version.is_some(),
        versions.is_some(),
        undelete.is_some(),
        destroy.is_some(),
        list || cursor.is_some(),
        history,
    ];
    let only = |place: usize| given.iter().enumerate().all(|(at, given)| !given || at == place);
    let numbers = |text: &Option<String>| text.as_deref().map(VersionList::parse).transpose();
    match method.as_str() {
        "LIST" if only(4) => Ok(Wanted::List(cursor)),
        "GET" | "HEAD" if list && only(4) => Ok(Wanted::List(cursor)),
        "GET" | "HEAD" if history && only(5) => Ok(Wanted::History),
        "GET" | "HEAD" if only(0) => Ok(Wanted::Read(version.as_deref().map(VersionList::one).transpose()?)),
        "PUT" | "POST" if !given.contains(&true) => Ok(Wanted::Write),
        "PUT" | "POST" if undelete.is_some() && only(2) => {
            Ok(Wanted::Change(Fate::Undelete, numbers(&undelete)?))
        }
        "PUT" | "POST" if destroy.is_some() && only(3) => {
            Ok(Wanted::Change(Fate::Destroy, numbers(&destroy)?))
        }
        "DELETE" if only(1) => Ok(Wanted::Change(Fate::Delete, numbers(&versions)?)),
        "LIST" | "GET" | "HEAD" | "PUT" | "POST" | "DELETE" => {
            Err(Reject::new(Code::BadQuery, "these query parameters do not go with this method"))
        }
        _ => Err(Reject::new(Code::MethodNotAllowed, "this path does not take this method")),
    }
}

async fn read(
    context: &Context,
    act: Act,
    path: SecretPath,
    version: Option<u64>,
) -> Result<Response, Reject> {
    let shown = match context.external()? {
        Some(external) => {
            context.run(move |vault| vault.read_secret_abroad(&external, &act, &path, version)).await?
        }
        None => context.run_here(|vault| vault.read_secret(&act, &path, version)).await?,
    };
    Ok(answer(&shown))
}

async fn write(context: &Context, act: Act, path: SecretPath, value: NewValue) -> Result<Response, Reject> {
    let stored = match context.external()? {
        Some(external) => {
            context.run(move |vault| vault.store_secret_abroad(&external, &act, &path, &value)).await?
        }
        None => context.run_here(|vault| vault.store_secret(&act, &path, value)).await?,
    };
    // 200 for a first version too: the platforms' clients compare with 200.
    Ok(answer(&stored))
}

async fn change(
    context: &Context,
    act: Act,
    path: SecretPath,
    fate: Fate,
    versions: Option<VersionList>,
) -> Result<Response, Reject> {
    let status = match fate {
        Fate::Delete => "deleted",
        Fate::Undelete => "undeleted",
        Fate::Destroy => "destroyed",
    };
    let text = path.to_string();
    let versions = context.run(move |vault| vault.change_versions(&act, &path, versions, fate)).await?;
    Ok(answer(&Changed { status, path: text, versions }))
}

/// The body of the older call that names the path beside the data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreBody {
    path: String,
    data: Box<RawValue>,
    cas: Option<u64>,
}

pub(super) async fn store(
    State(context): State<Arc<Context>>,
    SecretAct(act): SecretAct,
    StrictJson(body): StrictJson<StoreBody>,
) -> Result<Response, Reject> {
    let path = SecretPath::parse(&body.path)?;
    write(&context, act, path, NewValue::of_object(&body.data, body.cas)?).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetrieveQuery {
    path: Option<String>,
    version: Option<String>,
}

pub(super) async fn retrieve(
    State(context): State<Arc<Context>>,
    SecretAct(act): SecretAct,
    StrictQuery(query): StrictQuery<RetrieveQuery>,
) -> Result<Response, Reject> {
    let path = query.path.ok_or_else(|| VaultError::invalid(Code::BadQuery, "path is missing"))?;
    let version = query.version.as_deref().map(VersionList::one).transpose()?;
    read(&context, act, SecretPath::parse(&path)?, version).await
}

pub(super) async fn retrieve_path(
    State(context): State<Arc<Context>>,
    uri: Uri,
    SecretAct(act): SecretAct,
    StrictQuery(query): StrictQuery<RetrieveQuery>,
) -> Result<Response, Reject> {
    if query.path.is_some() {
        return Err(Reject::new(Code::BadQuery, "name the path once"));
    }
    let version = query.version.as_deref().map(VersionList::one).transpose()?;
    let path = SecretPath::from_target(raw_rest(&uri, "/security/secrets/retrieve/"))?;
    read(&context, act, path, version).await
}
