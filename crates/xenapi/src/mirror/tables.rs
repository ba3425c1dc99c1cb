//! The records of a mirror and how they are found. No I/O, no locks.

use std::collections::HashMap;
use std::fmt;

use crate::any::{AnyRecord, AnyRef};
use crate::events::Change;
use crate::generated::class::Class;
use crate::wire::Ref;

/// All tables of a mirror.
#[derive(Debug)]
pub(super) struct Tables {
    tables: Vec<Table>,
}

/// The objects of one class.
pub(super) struct Table {
    class: Class,
    /// Numbers of fields that are not kept.
    without: Vec<usize>,
    rows: HashMap<Ref<()>, AnyRecord>,
    uuids: HashMap<Box<str>, Ref<()>>,
    names: HashMap<Box<str>, Vec<Ref<()>>>,
}

impl Tables {
    /// Tables of these classes, which are sorted, without these fields.
    pub(super) fn new(classes: &[Class], without: &[(Class, usize)]) -> Self {
        let tables = classes.iter().map(|&class| Table {
            class,
            without: without
                .iter()
                .filter_map(|(of, number)| (*of == class).then_some(*number))
                .collect(),
            rows: HashMap::new(),
            uuids: HashMap::new(),
            names: HashMap::new(),
        });
        Self { tables: tables.collect() }
    }

    pub(super) fn table(&self, class: Class) -> Option<&Table> {
        self.place(class).map(|place| &self.tables[place])
    }

    pub(super) fn get(&self, object: &AnyRef) -> Option<&AnyRecord> {
        self.table(object.class())?.rows.get(object.untyped())
    }

    fn place(&self, class: Class) -> Option<usize> {
        self.tables.binary_search_by_key(&class, |table| table.class).ok()
    }

    /// Takes in a change, and says which object it changed. Servers also tell of records that are as they
    /// were.
    pub(super) fn apply(&mut self, change: Change) -> Option<AnyRef> {
        let object = change.object()?.clone();
        let place = self.place(object.class())?;
        let table = &mut self.tables[place];
        let changed = match change {
            Change::Added(_, record) | Change::Changed(_, record) => {
                table.set(object.untyped(), record)
            }
            Change::Removed(_) => table.remove(object.untyped()),
            Change::Replayed => false,
        };
        changed.then_some(object)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("class", &self.class)
            .field("rows", &self.rows.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Ref<()>, &AnyRecord)> {
        self.rows.iter()
    }

    pub(super) fn by_uuid(&self, uuid: &str) -> Option<(&Ref<()>, &AnyRecord)> {
        self.rows.get_key_value(self.uuids.get(uuid)?)
    }

    pub(super) fn by_name(&self, name: &str) -> impl Iterator<Item = (&Ref<()>, &AnyRecord)> {
        let references = self.names.get(name).map_or(&[][..], Vec::as_slice);
        references.iter().filter_map(|reference| self.rows.get_key_value(reference))
    }

    fn set(&mut self, reference: &Ref<()>, mut record: AnyRecord) -> bool {
        record.clear(&self.without);
        let uuid = record.text("uuid");
        let name = record.text("name_label");
        if let Some(before) = self.rows.get(reference) {
            if *before == record {
                return false;
            }
            if before.text("uuid") == uuid && before.text("name_label") == name {
                self.rows.insert(reference.clone(), record);
                return true;
            }
            self.remove(reference);
        }
        if let Some(uuid) = uuid {
            self.uuids.insert(uuid.into(), reference.clone());
        }
        if let Some(name) = name {
            let same = self.names.entry(name.into()).or_insert_with(|| Vec::with_capacity(1));
            same.push(reference.clone());
        }
        self.rows.insert(reference.clone(), record);
        true
    }

    fn remove(&mut self, reference: &Ref<()>) -> bool {
        let Some(record) = self.rows.remove(reference) else { return false };
        if let Some(uuid) = record.text("uuid")
            && self.uuids.get(uuid.as_str()) == Some(reference)
        {
            self.uuids.remove(uuid.as_str());
        }
        if let Some(name) = record.text("name_label")
            && let Some(same) = self.names.get_mut(name.as_str())
        {
            same.retain(|other| other != reference);
            if same.is_empty() {
                self.names.remove(name.as_str());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{class, vm};

    fn record(uuid: &str, name: &str) -> AnyRecord {
        AnyRecord::Vm(Arc::new(vm::Record {
            uuid: uuid.into(),
            name_label: name.into(),
            recommendations: "long".into(),
            ..Default::default()
        }))
    }

    fn object(number: u8) -> AnyRef {
        AnyRef::from(&Ref::<class::Vm>::from(format!("OpaqueRef:{number}").as_str()))
    }

    #[test]
    fn fields_that_are_left_out_are_empty() {
        let number =
            <vm::Record as crate::wire::Fields>::NAMES.binary_search(&"recommendations").unwrap();
        let mut tables = Tables::new(&[Class::Vm], &[(Class::Vm, number)]);
        tables.apply(Change::Added(object(1), record("u", "web")));
        let kept = tables.get(&object(1)).unwrap().of::<class::Vm>().unwrap();
        assert_eq!((kept.recommendations.as_str(), kept.name_label.as_str()), ("", "web"));
    }

    #[test]
    fn records_that_are_as_they_were_change_nothing() {
        let mut tables = Tables::new(&[Class::Vm], &[]);
        assert_eq!(tables.apply(Change::Added(object(1), record("u", "web"))), Some(object(1)));
        assert_eq!(tables.apply(Change::Changed(object(1), record("u", "web"))), None);
        assert_eq!(tables.apply(Change::Removed(object(2))), None);
        assert_eq!(tables.apply(Change::Replayed), None);
    }

    proptest! {
        #[test]
        fn objects_are_found_by_uuid_and_name_whatever_happened_to_them(
            steps in prop::collection::vec((0_u8..6, prop::option::of((0_u8..4, 0_u8..3))), 0..40),
        ) {
            let mut tables = Tables::new(&[Class::Vm], &[]);
            let mut model = BTreeMap::new();
            for (number, step) in steps {
                if let Some((generation, name)) = step {
                    // UUIDs are of one object only.
                    let uuid = format!("{number}-{generation}");
                    let name = if name == 0 { String::new() } else { format!("name {name}") };
                    tables.apply(Change::Changed(object(number), record(&uuid, &name)));
                    model.insert(number, (uuid, name));
                } else {
                    tables.apply(Change::Removed(object(number)));
                    model.remove(&number);
                }
                let table = tables.table(Class::Vm).unwrap();
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.uuids.len(), model.len());
                for (number, (uuid, name)) in &model {
                    let (found, _) = table.by_uuid(uuid).unwrap();
                    prop_assert!(found == object(*number).untyped());
                    let same = model.values().filter(|(_, other)| other == name).count();
                    let expected = if name.is_empty() { 0 } else { same };
                    prop_assert_eq!(table.by_name(name).count(), expected);
                }
            }
        }
    }
}
