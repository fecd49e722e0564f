//! The rules of callers, put together once for as long as their policies stay what they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::policy::Acl;
use super::sys::policies;
use crate::error::VaultError;
use crate::store::View;

/// LIMIT: sets of policies that are remembered, when there are more it begins anew; bytes of the rows of one.
const SETS_MAX: usize = 128;
const SET_BYTES_MAX: usize = 64 * 1024;

/// A policy's row as it lies in the store. Each writing seals it anew, so the same bytes are the same rules.
type Sealed = Option<Vec<u8>>;

/// The rows of several policies, and what they allow together.
type Kept = (Vec<Sealed>, Arc<Acl>);

/// Rules by the names of their policies.
#[derive(Default)]
pub(super) struct Acls(Mutex<HashMap<Vec<String>, Kept>>);

impl Acls {
    /// What the policies of these names allow together, as the view has them.
    pub(super) fn of(&self, view: &impl View, names: &[String]) -> Result<Arc<Acl>, VaultError> {
        let rows = names.iter().map(|name| policies::sealed(view, name)).collect::<Result<Vec<_>, _>>()?;
        if let Some((known, acl)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(names)
            && *known == rows
        {
            return Ok(Arc::clone(acl));
        }
        let mut rules = Vec::new();
        for name in names {
            rules.extend(policies::rules(view, name)?);
        }
        let acl = Arc::new(Acl::of(rules));
        if rows.iter().flatten().map(Vec::len).sum::<usize>() > SET_BYTES_MAX {
            return Ok(acl);
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= SETS_MAX {
            kept.clear();
        }
        kept.insert(names.to_vec(), (rows, Arc::clone(&acl)));
        Ok(acl)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::seal::{Keyring, RootKey, Shape};
    use crate::store::{KeyBytes, Range, Table};
    use crate::v1::policy::{Caps, parse};

    struct Rows(Keyring, BTreeMap<KeyBytes, Vec<u8>>);

    impl Rows {
        fn write(&mut self, name: &str, text: &str) {
            let rules = parse(text).unwrap();
            let row = serde_json::json!({ "text": text, "rules": rules, "modified": "1970-01-01T00:00:00Z", "version": 1 });
            let key = format!("policy/{name}").into_bytes();
            let sealed = self.0.seal(Table::Logical.place(&key), 0, row.to_string().as_bytes());
            self.1.insert(key, sealed);
        }
    }

    impl View for Rows {
        fn keyring(&self) -> &Keyring {
            &self.0
        }
        fn raw(&self, _: Table, key: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
            Ok(self.1.get(key).cloned())
        }
        fn keys(&self, _: Table, _: &Range) -> Result<Vec<KeyBytes>, VaultError> {
            Ok(Vec::new())
        }
        fn last_key(&self, _: Table, _: &Range) -> Result<Option<KeyBytes>, VaultError> {
            Ok(None)
        }
        fn count(&self, _: Table) -> Result<u64, VaultError> {
            Ok(0)
        }
    }

    #[test]
    fn rules_are_those_of_the_rows_as_they_are() {
        let (acls, names) = (Acls::default(), ["default".to_owned(), "own".to_owned()]);
        let mut rows = Rows(Keyring::create(RootKey::random(), Shape::File), BTreeMap::new());
        let may = |rows: &Rows| acls.of(rows, &names).unwrap().caps("a").has(Caps::READ);
        assert!(!may(&rows), "a policy that is not there allows nothing");
        rows.write("own", r#"path "a" { capabilities = ["read"] }"#);
        assert!(may(&rows));
        assert!(Arc::ptr_eq(&acls.of(&rows, &names).unwrap(), &acls.of(&rows, &names).unwrap()));
        rows.write("own", r#"path "a" { capabilities = ["deny"] }"#);
        assert!(!may(&rows));
        rows.write("own", r#"path "a" { capabilities = ["read"] }"#);
        assert!(may(&rows));
        let row = rows.1.values_mut().next().unwrap();
        *row.last_mut().unwrap() ^= 1;
        assert!(acls.of(&rows, &names).is_err(), "a changed row is not taken for the one that was known");
        rows.1.clear();
        assert!(!may(&rows));
    }
}
