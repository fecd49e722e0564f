//! Keys of the contract that this version does not implement: named as such, so that nobody takes
//! them for a misspelling, and refused, so that nobody believes they work.

/// Every planned key. `service.` stands for each `[[service]]`.
const PLANNED: &[&str] = &["auth.issuers", "auth.user", "identity", "profile", "roles"];

/// True where the contract names the key, or a table above it. Indexes (`service[3]`) do not matter.
pub(crate) fn is_planned(path: &str) -> bool {
    let path = without_indexes(path);
    PLANNED.iter().any(|planned| {
        path.strip_prefix(planned).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Planned keys directly below a table, by their last word.
pub(crate) fn below(table: &str) -> impl Iterator<Item = &'static str> {
    let table = without_indexes(table);
    PLANNED.iter().filter_map(move |planned| match planned.rsplit_once('.') {
        Some((above, word)) => (above == table).then_some(word),
        None => table.is_empty().then_some(*planned),
    })
}

/// `service[3].tls` as `service.tls`.
pub(crate) fn without_indexes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_keys_are_sorted_and_unknown_to_this_version() {
        assert!(PLANNED.is_sorted());
        let known = crate::show::key_paths();
        for planned in PLANNED {
            assert!(!known.contains(*planned), "{planned} is implemented: take it off the list");
        }
    }

    #[test]
    fn a_key_below_a_planned_table_is_planned() {
        assert!(is_planned("identity.enrol"));
        assert!(is_planned("auth.user[12].name"));
        assert!(!is_planned("identityx"));
        assert!(below("auth").any(|word| word == "user"));
        assert!(below("").any(|word| word == "identity"));
    }
}
