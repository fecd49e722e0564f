//! Header fields a route asks for.

use std::cmp::Reverse;

/// Header fields a route asks for at most.
pub const FIELDS_MAX: usize = sluice_schema::HEADER_MATCHES_MAX;

/// Says whether a request has a field of this lower-case name: with exactly this value, or with any.
pub type HasField<'a> = dyn Fn(&str, Option<&str>) -> bool + 'a;

/// Header fields a request must have, all of them; none of them: every request has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fields(Vec<(String, Option<String>)>);

impl Fields {
    /// Fields by name and exact value; the value `*` stands for any.
    pub fn new<'a>(wanted: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut fields: Vec<_> = wanted
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), (value != "*").then(|| value.clone())))
            .collect();
        fields.sort_unstable();
        fields.dedup();
        Self(fields)
    }

    /// Whether a request has them all.
    pub fn hold(&self, has: &HasField<'_>) -> bool {
        self.0.iter().all(|(name, value)| has(name, value.as_deref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The order in which routes are tried: more fields first, then more exact values.
    pub(super) fn rank(&self) -> (Reverse<usize>, Reverse<usize>) {
        let exact = self.0.iter().filter(|(_, value)| value.is_some()).count();
        (Reverse(self.0.len()), Reverse(exact))
    }
}
