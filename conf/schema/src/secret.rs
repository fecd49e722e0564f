//! Reads what a reference to a secret points at, and refuses keys that can be guessed.

use std::path::Path;

use crate::code::Code;
use crate::form::SecretRef;
use crate::model::Secret;
use crate::reader::Reader;
use crate::report::{Diagnostic, Place, Severity, quote, quote_path};

/// The variable the legacy key is in by default; unset, there is no legacy key.
pub(crate) const JWT_SECRET_KEY: &str = "JWT_SECRET_KEY";
/// The variable the token for an external vault is in.
pub(crate) const VAULT_TOKEN: &str = "VAULT_TOKEN";
/// LIMIT: a secret in bytes.
const SECRET_BYTES: usize = 64 << 10;
/// Shortest key of HS256: the size of its hash (RFC 7518, 3.2).
const KEY_BYTES: usize = 32;
/// Keys that stand in documents everybody has read.
const KNOWN_KEYS: [&[u8]; 3] = [b"your-secret-key", b"changeme", b"secret"];

/// The secret behind a reference of a file; reports where there is none.
pub(crate) fn resolve(
    reader: &mut Reader<'_>,
    path: &str,
    reference: &SecretRef,
    place: Option<Place>,
) -> Option<Secret> {
    let fail = |reader: &mut Reader<'_>, why: String| {
        if reader.mode.secrets_required {
            reader.mark_failed(path.to_owned());
            reader.report(Diagnostic::new(Code::UnreadableSecret, why).at(place.clone()));
        }
        None
    };
    match reference {
        SecretRef::Set => None,
        SecretRef::Env(name) => {
            reader.secret_variables.push(name.clone());
            match reader.variable(name) {
                Some(text) => Some(Secret::new(text)),
                None if name == JWT_SECRET_KEY => None,
                None => fail(reader, format!("the variable {} is not set", quote(name))),
            }
        }
        SecretRef::File(file) => {
            // A path in a file is meant from where that file lies.
            let base = place.as_ref().and_then(|place| reader.directory(place));
            let file = base.map_or_else(|| file.clone(), |base| base.join(file));
            match read(reader, &file) {
                Ok(secret) => Some(secret),
                Err(why) => fail(reader, why),
            }
        }
    }
}

/// The secret of a variable or of the file its `_FILE` form names.
pub(crate) fn from_environment(reader: &mut Reader<'_>, name: &str, path: &str) -> Option<Secret> {
    let file_name = format!("{name}_FILE");
    let secret = match (reader.variable(name), reader.variable(&file_name)) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let message = format!("{name} and {file_name} are both set");
            reader.blame_variable(name, Diagnostic::new(Code::TwiceSet, message).help("unset one of them"));
            return None;
        }
        (Some(text), None) => (Secret::new(text), name.to_owned()),
        (None, Some(file)) => match read(reader, Path::new(file)) {
            Ok(secret) => (secret, file_name),
            Err(why) => {
                let unreadable = Diagnostic::new(Code::UnreadableSecret, format!("{file_name}: {why}"));
                reader.blame_variable(&file_name, unreadable);
                return None;
            }
        },
    };
    let (secret, name) = secret;
    reader.set_by_variable(path, &name);
    Some(secret)
}

fn read(reader: &Reader<'_>, file: &Path) -> Result<Secret, String> {
    let shown = quote_path(file);
    let mut bytes = (reader.read_file)(file).map_err(|error| format!("the secret file {shown}: {error}"))?;
    while bytes.last().is_some_and(u8::is_ascii_whitespace) {
        bytes.pop();
    }
    if bytes.is_empty() || bytes.len() > SECRET_BYTES {
        return Err(format!("the secret file {shown} is empty or larger than 64 KiB"));
    }
    Ok(Secret::new(bytes))
}

/// Refuses a key that can be guessed; under `--dev` it warns.
pub(crate) fn check_strength(reader: &mut Reader<'_>, path: &str, secret: &Secret) {
    let known = KNOWN_KEYS.iter().any(|key| key.eq_ignore_ascii_case(secret.expose()));
    if !known && secret.len() >= KEY_BYTES {
        return;
    }
    let why = if known {
        "is one that everybody knows".to_owned()
    } else {
        format!("has {} bytes and needs {KEY_BYTES}", secret.len())
    };
    let variable = reader.set_by(path).map(str::to_owned);
    let name = variable.as_deref().unwrap_or(path);
    let mut weak = Diagnostic::new(Code::WeakSecret, format!("the key in {name} {why}"))
        .help("make one with: head -c 32 /dev/urandom | base64");
    if reader.mode.dev {
        weak.severity = Severity::Warning;
    }
    if let Some(name) = variable {
        reader.blame_variable(&name, weak);
    } else {
        let place = reader.place(path);
        reader.report(weak.at(place));
    }
}
