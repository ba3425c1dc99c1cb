//! Looking at a mirror.

use std::sync::{Arc, RwLockReadGuard};

use super::tables::{Table, Tables};
use crate::any::{AnyRecord, AnyRef, Watched};
use crate::wire::Ref;

/// A mirror at one moment. Changes wait until it is dropped.
#[derive(Debug)]
pub struct View<'m> {
    tables: RwLockReadGuard<'m, Tables>,
}

impl<'m> View<'m> {
    pub(super) fn new(tables: RwLockReadGuard<'m, Tables>) -> Self {
        Self { tables }
    }
}

impl View<'_> {
    fn table<T: Watched>(&self) -> Option<&Table> {
        self.tables.table(T::CLASS)
    }

    /// The record of an object; none if it is not there, or its class is not mirrored.
    pub fn get<T: Watched>(&self, reference: &Ref<T>) -> Option<&Arc<T::Record>> {
        self.any(&AnyRef::from(reference))?.of::<T>()
    }

    /// The record of an object of whichever class.
    pub fn any(&self, object: &AnyRef) -> Option<&AnyRecord> {
        self.tables.get(object)
    }

    /// The object with this UUID.
    pub fn by_uuid<T: Watched>(&self, uuid: &str) -> Option<(Ref<T>, &Arc<T::Record>)> {
        typed::<T>(self.table::<T>()?.by_uuid(uuid)?)
    }

    /// All objects with this name: names are not unique.
    pub fn by_name<T: Watched>(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (Ref<T>, &Arc<T::Record>)> {
        self.table::<T>()
            .into_iter()
            .flat_map(move |table| table.by_name(name))
            .filter_map(typed::<T>)
    }

    /// All objects of a class, in no order.
    pub fn iter<T: Watched>(&self) -> impl Iterator<Item = (Ref<T>, &Arc<T::Record>)> {
        self.table::<T>().into_iter().flat_map(Table::iter).filter_map(typed::<T>)
    }

    /// How many objects of a class there are.
    pub fn count<T: Watched>(&self) -> usize {
        self.table::<T>().map_or(0, Table::len)
    }
}

fn typed<'r, T: Watched>(
    (reference, record): (&Ref<()>, &'r AnyRecord),
) -> Option<(Ref<T>, &'r Arc<T::Record>)> {
    Some((reference.clone().cast(), record.of::<T>()?))
}
