//! Header fields of a head, however it is kept: in the framework's maps or in a plain list. What is decided about
//! fields is written once, for both. A list of a dozen is searched faster than it is hashed.

pub(crate) mod name;

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

/// Fields of a head.
pub(crate) trait Fields {
    /// Every field.
    fn each(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)>;

    /// The first value of a field.
    fn first(&self, name: &HeaderName) -> Option<&HeaderValue>;

    /// Sets a field in place of all of its name.
    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;

    /// Adds a field behind those of its name.
    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;

    /// Removes the fields whose names are unwanted.
    fn drop_where(&mut self, unwanted: impl FnMut(&HeaderName) -> bool);

    /// Whether there is such a field.
    fn has(&self, name: &HeaderName) -> bool {
        self.first(name).is_some()
    }

    /// Every value of a field.
    fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.each().filter(move |(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Removes all fields of a name.
    fn drop_all(&mut self, name: &HeaderName) {
        self.drop_where(|other| other == name);
    }
}

/// A head of the framework: its map of names in their own case has to follow, so it is changed by its own functions.
macro_rules! framework_head {
    ($head:ty) => {
        impl Fields for $head {
            fn each(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
                self.headers.iter()
            }

            fn first(&self, name: &HeaderName) -> Option<&HeaderValue> {
                self.headers.get(name)
            }

            fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
                self.insert_header(name, value)
            }

            fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
                self.append_header(name, value).map(|_| ())
            }

            fn drop_where(&mut self, mut unwanted: impl FnMut(&HeaderName) -> bool) {
                let names: Vec<HeaderName> =
                    self.headers.keys().filter(|name| unwanted(name)).cloned().collect();
                for name in &names {
                    self.remove_header(name);
                }
            }

            fn drop_all(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
        }
    };
}

framework_head!(RequestHeader);
framework_head!(ResponseHeader);

impl Fields for HeaderMap {
    fn each(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.iter()
    }

    fn first(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.get(name)
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert(name, value);
        Ok(())
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append(name, value);
        Ok(())
    }

    fn drop_where(&mut self, mut unwanted: impl FnMut(&HeaderName) -> bool) {
        let names: Vec<HeaderName> = self.keys().filter(|name| unwanted(name)).cloned().collect();
        for name in &names {
            self.remove(name);
        }
    }
}

/// Fields in the order they came; those of another head may stay where they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct List<'a> {
    fields: Vec<(Cow<'a, HeaderName>, Cow<'a, HeaderValue>)>,
    /// A bit for each name that was ever in it: most names that are asked for are not.
    marks: u64,
}

/// The bit of a name; others may share it.
fn mark(name: &HeaderName) -> u64 {
    let text = name.as_str().as_bytes();
    let last = text.last().copied().unwrap_or_default();
    1 << ((text.len() * 7 + usize::from(last)) & 63)
}

impl<'a> List<'a> {
    /// Nothing yet, with room for so many.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self { fields: Vec::with_capacity(count), marks: 0 }
    }

    /// The fields of a map, with room for so many more.
    pub(crate) fn of(map: &'a HeaderMap, more: usize) -> Self {
        let mut list = Self::with_capacity(map.len() + more);
        for (name, value) in map {
            list.marks |= mark(name);
            list.fields.push((Cow::Borrowed(name), Cow::Borrowed(value)));
        }
        list
    }

    /// Adds a field behind all others.
    pub(crate) fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.marks |= mark(&name);
        self.fields.push((Cow::Owned(name), Cow::Owned(value)));
    }

    fn may_have(&self, name: &HeaderName) -> bool {
        self.marks & mark(name) != 0
    }
}

impl Fields for List<'_> {
    fn each(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    fn first(&self, name: &HeaderName) -> Option<&HeaderValue> {
        if !self.may_have(name) {
            return None;
        }
        self.fields.iter().find(|(other, _)| **other == *name).map(|(_, value)| &**value)
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        let known = self.may_have(&name).then(|| self.fields.iter().position(|(other, _)| **other == name));
        let Some(first) = known.flatten() else {
            self.push(name, value);
            return Ok(());
        };
        self.fields[first].1 = Cow::Owned(value);
        let mut at = 0;
        self.fields.retain(|(other, _)| {
            at += 1;
            at <= first + 1 || **other != name
        });
        Ok(())
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.push(name, value);
        Ok(())
    }

    fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        let fields = if self.may_have(name) { &self.fields[..] } else { &[] };
        fields.iter().filter(move |(other, _)| **other == *name).map(|(_, value)| &**value)
    }

    fn drop_where(&mut self, mut unwanted: impl FnMut(&HeaderName) -> bool) {
        self.fields.retain(|(name, _)| !unwanted(name));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(fields: &impl Fields) -> Vec<(String, String)> {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let mut all: Vec<_> = fields.each().map(text).collect();
        // Stable: values of one name stay in their order.
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u8),
        Add(u8, u8),
        Drop(u8),
        DropWhere(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..5_u8, any::<u8>()).prop_map(|(name, value)| Step::Set(name, value)),
            (0..5_u8, any::<u8>()).prop_map(|(name, value)| Step::Add(name, value)),
            (0..5_u8).prop_map(Step::Drop),
            (0..5_u8).prop_map(Step::DropWhere),
        ]
    }

    fn take(fields: &mut impl Fields, step: &Step) {
        const NAMES: [&str; 5] = ["accept", "x-a", "x-b", "host", "cookie"];
        let name = |at: u8| HeaderName::from_static(NAMES[usize::from(at)]);
        match step {
            Step::Set(at, value) => fields.set(name(*at), HeaderValue::from(u16::from(*value))).unwrap(),
            Step::Add(at, value) => fields.add(name(*at), HeaderValue::from(u16::from(*value))).unwrap(),
            Step::Drop(at) => fields.drop_all(&name(*at)),
            Step::DropWhere(at) => fields.drop_where(|other| *other == name(*at) || *other == name(0)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_list_does_what_the_frameworks_map_does(steps in proptest::collection::vec(step(), 0..24)) {
            let mut map = RequestHeader::build("GET", b"/", None).unwrap();
            let mut list = List::default();
            let mut bare = HeaderMap::new();
            for step in &steps {
                take(&mut map, step);
                take(&mut bare, step);
                take(&mut list, step);
                prop_assert_eq!(sorted(&map), sorted(&list));
                prop_assert_eq!(sorted(&bare), sorted(&list));
                for name in [HeaderName::from_static("x-a"), http::header::HOST] {
                    prop_assert_eq!(map.first(&name), list.first(&name));
                    prop_assert_eq!(map.has(&name), list.has(&name));
                    prop_assert!(map.all(&name).eq(list.all(&name)));
                }
            }
            prop_assert_eq!(sorted(&List::of(&map.headers, 3)), sorted(&map));
        }
    }
}
