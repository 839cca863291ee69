//! Reads lists in JSON only up to a limit: the builder of an image chooses the data that docker reports about it.
//! `null`, which docker writes instead of an empty list, is an empty list.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Maximum number of texts that are searched in one image, and of entries in each list of docker's data. A few hundred
/// are usual; an image that has more was made to exhaust memory, of which the pod of a deploy Job has little.
pub(crate) const MOST_TEXTS: usize = 20_000;

/// The error text for a list that is too long.
const TOO_MANY: &str = "too many entries";

/// True if a document was rejected because one of its lists is too long.
pub(crate) fn is_too_many(error: &serde_json::Error) -> bool {
    error.to_string().starts_with(TOO_MANY)
}

/// Reads a list.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_any(List { or_one_text: false, of: PhantomData })
}

/// Reads the words of a command, or one text in their place, as older versions of docker wrote it.
pub(crate) fn words<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_any(List { or_one_text: true, of: PhantomData })
}

/// Reads a document that is a list.
pub(crate) fn document<T: serde::de::DeserializeOwned>(text: &str) -> serde_json::Result<Vec<T>> {
    let mut document = serde_json::Deserializer::from_str(text);
    let entries = list(&mut document)?;
    document.end().map(|()| entries)
}

/// Reads an object of names with values.
pub(crate) fn map<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    from.deserialize_any(Map(PhantomData))
}

struct List<T> {
    or_one_text: bool,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        if !self.or_one_text {
            return Err(E::custom("a text in the place of a list"));
        }
        T::deserialize(serde::de::value::StringDeserializer::new(text)).map(|entry| vec![entry])
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == MOST_TEXTS {
                return Err(A::Error::custom(TOO_MANY));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

struct Map<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry()? {
            if map.len() == MOST_TEXTS {
                return Err(A::Error::custom(TOO_MANY));
            }
            map.insert(name, value);
        }
        Ok(map)
    }
}
