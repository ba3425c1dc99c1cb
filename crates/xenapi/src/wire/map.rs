//! A map that is small in memory and quick to fill, as records hold dozens of them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::{fmt, slice, vec};

/// A map in the order of its keys, kept in one piece of memory.
///
/// Looking up takes a bisection, and inserting out of order moves what comes after: it is made for
/// what a server sends, which is read far more often than changed. It turns into a
/// [`BTreeMap`] and back with [`From`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Map<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Map<K, V> {
    /// A map with nothing in it.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.entries.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// The values in the order of their keys, to be changed.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.entries.binary_search_by(|(entry, _)| entry.borrow().cmp(key))
    }

    /// What the key stands for.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|place| &self.entries[place].1)
    }

    /// What the key stands for, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|place| &mut self.entries[place].1)
    }

    /// Whether the key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_ok()
    }

    /// Lets the key stand for the value, and returns what it stood for.
    pub fn insert(&mut self, key: K, value: V) -> Option<V>
    where
        K: Ord,
    {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.entries[place].1, value)),
            Err(place) => {
                self.entries.insert(place, (key, value));
                None
            }
        }
    }

    /// Takes the key out, and returns what it stood for.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|place| self.entries.remove(place).1)
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The entries as a map; of those with the same key the last one counts.
    pub(super) fn from_entries(mut entries: Vec<(K, V)>) -> Self {
        if !entries.is_sorted_by(|(one, _), (next, _)| one < next) {
            arrange(&mut entries);
            // Equal keys now stand in their order of arrival, and the first of each is kept.
            entries.reverse();
            entries.dedup_by(|(one, _), (kept, _)| one == kept);
            entries.reverse();
        }
        entries.shrink_to_fit();
        Self { entries }
    }
}

/// Sorts by key and keeps the order of equal ones. Entries can be records of some kilobytes, so each
/// is moved to its place at once instead of at every step of a sort.
fn arrange<K: Ord, V>(entries: &mut [(K, V)]) {
    let mut source = order(entries.len(), &|one, other| entries[one].0.cmp(&entries[other].0));
    for place in 0..source.len() {
        // An earlier swap may have moved what belongs here: follow it.
        let mut from = source[place];
        while from < place {
            from = source[from];
        }
        source[place] = from;
        entries.swap(place, from);
    }
}

/// The numbers up to `length` in this order. It is one sort for all types of maps, of which there are
/// hundreds, and most of which arrive in order.
fn order(length: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..length).collect();
    numbers.sort_by(|&one, &other| compare(one, other));
    numbers
}

type Iter<'a, K, V> = std::iter::Map<slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self::from_entries(entries.into_iter().collect())
    }
}

impl<K: Ord, V> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        let mut all = std::mem::take(&mut self.entries);
        all.extend(entries);
        *self = Self::from_entries(all);
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord, V> From<BTreeMap<K, V>> for Map<K, V> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord, V> From<Map<K, V>> for BTreeMap<K, V> {
    fn from(map: Map<K, V>) -> Self {
        map.into_iter().collect()
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_btreemap_would(entries: Vec<(u8, u16)>) {
            let map: Map<u8, u16> = entries.iter().copied().collect();
            let model: BTreeMap<u8, u16> = entries.into_iter().collect();
            prop_assert_eq!(BTreeMap::from(map.clone()), model.clone());
            for key in 0..=255 {
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
        }

        #[test]
        fn it_changes_as_a_btreemap_would(steps: Vec<(u8, Option<u16>)>) {
            let (mut map, mut model) = (Map::new(), BTreeMap::new());
            for (key, value) in steps {
                let (ours, theirs) = match value {
                    Some(value) => (map.insert(key, value), model.insert(key, value)),
                    None => (map.remove(&key), model.remove(&key)),
                };
                prop_assert_eq!(ours, theirs);
            }
            prop_assert!(map.iter().eq(model.iter()));
        }
    }
}
