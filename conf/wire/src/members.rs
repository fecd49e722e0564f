//! Objects are objects: reads JSON as serde does, but a struct from its members alone.
//!
//! serde takes `["a", 1]` for `{"name": "a", "n": 1}` wherever a derived struct is expected: a second spelling of each
//! body, without names, that no document mentions and that changes its meaning when a member is added. Here a list in
//! the place of a struct is refused, at any depth. Not seen: what serde buffers first (flattened and untagged members).

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// A deserializer, a visitor, a seed or an access inside which structs are objects.
pub(crate) struct Members<T>(pub(crate) T);

macro_rules! ask {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* Members(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Members<D> {
    type Error = D::Error;

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Members(visitor))
    }

    ask! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

macro_rules! tell {
    ($($method:ident($type:ty);)*) => {$(
        #[inline]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Members<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    tell! {
        visit_bool(bool);
        visit_i64(i64);
        visit_i128(i128);
        visit_u64(u64);
        visit_u128(u128);
        visit_f64(f64);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Members(deserializer))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Members(deserializer))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Members(items))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Members(members))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Members(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Members<S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Members(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Members<A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Members(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Members(seed))
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Members(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Members<A> {
    type Error = A::Error;
    type Variant = Members<A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(Members(seed)).map(|(value, variant)| (value, Members(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Members<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Members(seed))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Members(visitor))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.newtype_variant_seed(Object(visitor))
    }
}

/// What stands here is an object, for this visitor.
struct Object<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Object<V> {
    type Value = V::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_map(Members(self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use crate::json::{JsonError, from_slice};

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Order {
        symbol: String,
        lots: Option<Vec<Lot>>,
        pair: Option<(u8, Lot)>,
        by_desk: Option<BTreeMap<String, Lot>>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Lot {
        size: f64,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Market,
        Limit { price: f64 },
        Of(Box<Lot>),
    }

    fn read(value: &Value) -> Result<Order, JsonError> {
        from_slice(value.to_string().as_bytes())
    }

    #[test]
    fn a_list_is_no_struct_at_any_depth() {
        for bad in [
            json!(["BTC", null, null, null, null]),
            json!([]),
            json!({"symbol": "BTC", "lots": [[1.0]]}),
            json!({"symbol": "BTC", "pair": [1, [1.0]]}),
            json!({"symbol": "BTC", "by_desk": {"fx": [1.0]}}),
            json!({"symbol": "BTC", "kind": {"of": [1.0]}}),
            json!({"symbol": "BTC", "kind": {"limit": [1.0]}}),
        ] {
            let error = read(&bad).unwrap_err();
            assert!(error.shape && error.message.contains("sequence"), "{bad}: {error}");
        }
        assert!(from_slice::<Vec<Order>>(b"[[\"BTC\"]]").is_err());
    }

    #[test]
    fn everything_else_is_read_as_serde_reads_it() {
        let all = json!({
            "symbol": "BTC", "lots": [{"size": 1}, {"size": -2.5}], "pair": [7, {"size": 0}],
            "by_desk": {"fx": {"size": 1e9}}, "kind": {"limit": {"price": 3}},
        });
        for value in [all, json!({"symbol": "é"}), json!({"symbol": "BTC", "kind": "market", "lots": null})]
        {
            assert_eq!(read(&value).unwrap(), serde_json::from_value::<Order>(value).unwrap());
        }
        let error = read(&json!({"symbol": "BTC", "lost": 1})).unwrap_err();
        assert!(error.message.contains("unknown field `lost`"), "{error}");
        let raw: Box<serde_json::value::RawValue> = from_slice(b" {\"a\": [1 , 2]} ").unwrap();
        assert_eq!(raw.get(), "{\"a\": [1 , 2]}");
    }

    proptest! {
        #[test]
        fn untyped_values_are_the_same(text in "[\\[\\]{}:,\"a0-9.eE+ -]{0,40}") {
            let plain = crate::json::check(text.as_bytes()).is_ok();
            let read = from_slice::<Value>(text.as_bytes()).ok();
            prop_assert_eq!(read, plain.then(|| serde_json::from_str(&text).unwrap()));
        }
    }
}
