//! The rows of a pool, by class and reference, and what changed when.
//!
//! Rows are immutable and shared: who reads one keeps it for as long as it likes, and a change puts a
//! new row in its place. So a lock on the database is held for look-ups only, never while answers are
//! written out.

mod links;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::{ApiError, error, handle_invalid};
use crate::random::Random;
use crate::schema::{ClassInfo, Schema};
use crate::value::{Ref, Text, Value};

/// How many deletions of each class are remembered for `event.from`.
const DELETIONS: usize = 512;

/// An object with all its fields, as it was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its class's place in the schema.
    pub(crate) class: usize,
    /// Its reference.
    pub(crate) reference: Ref,
    /// The generation that brought it.
    pub(crate) created: u64,
    /// The generation of its latest change.
    pub(crate) modified: u64,
    /// Its fields, in the order of the schema.
    pub(crate) values: Box<[Value]>,
}

impl Row {
    /// What the schema says of its class.
    pub(crate) fn info(&self) -> &'static ClassInfo {
        &Schema::get().classes[self.class]
    }

    /// The field with this name.
    pub(crate) fn get(&self, field: &str) -> &Value {
        &self.values[self.info().field(field)]
    }

    /// A field that holds text.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.get(field).as_str().unwrap_or_default()
    }

    /// A field that holds a whole number.
    pub(crate) fn int(&self, field: &str) -> i64 {
        self.get(field).as_int()
    }

    /// A field that holds a point in time.
    pub(crate) fn int_time(&self, field: &str) -> i64 {
        if let Value::Time(seconds) = self.get(field) { *seconds } else { 0 }
    }

    /// A field that holds a truth value.
    pub(crate) fn flag(&self, field: &str) -> bool {
        self.get(field).as_bool()
    }

    /// A field that holds a reference.
    pub(crate) fn reference(&self, field: &str) -> Ref {
        self.get(field).as_ref()
    }

    /// A field that holds a set of references.
    pub(crate) fn refs(&self, field: &str) -> Vec<Ref> {
        self.get(field).ref_items().collect()
    }

    /// The object's uuid.
    pub(crate) fn uuid(&self) -> Uuid {
        if let Value::Uuid(uuid) = self.get("uuid") { *uuid } else { Uuid::nil() }
    }

    /// The object's fields as a struct's members, to make another of.
    pub(crate) fn members(&self) -> Vec<(&'static str, Value)> {
        let fields = self.info().fields.iter();
        fields.zip(&self.values).map(|(field, value)| (field.name, value.clone())).collect()
    }
}

/// An object that is gone.
struct Deletion {
    reference: Ref,
    created: u64,
    deleted: u64,
}

/// All objects of one class.
#[derive(Default)]
struct Table {
    rows: BTreeMap<Ref, Arc<Row>>,
    by_uuid: HashMap<Uuid, Ref>,
    by_name: HashMap<Text, BTreeSet<Ref>>,
    /// Where the name stands in a row, where the class has names.
    name: Option<usize>,
    /// The generation of each object's latest change.
    changes: BTreeMap<u64, Ref>,
    deletions: VecDeque<Deletion>,
}

impl Table {
    fn note_name(&mut self, values: &[Value], reference: Ref) {
        if let Some(Value::String(name)) = self.name.map(|place| &values[place]) {
            self.by_name.entry(name.clone()).or_default().insert(reference);
        }
    }

    fn drop_name(&mut self, values: &[Value], reference: Ref) {
        let Some(Value::String(name)) = self.name.map(|place| &values[place]) else { return };
        let Some(named) = self.by_name.get_mut(name) else { return };
        named.remove(&reference);
        if named.is_empty() {
            self.by_name.remove(name);
        }
    }
}

/// What became of an object since some generation.
pub(crate) enum Change {
    /// It is new.
    Added(Arc<Row>),
    /// It is another than it was.
    Modified(Arc<Row>),
    /// It is gone.
    Deleted { reference: Ref, at: u64 },
}

/// All objects of a pool.
pub(crate) struct Database {
    schema: &'static Schema,
    tables: Vec<Table>,
    message_class: usize,
    generation: u64,
    message_generation: u64,
    links: links::Links,
    /// Rows that changed since the journal was last written, where one is kept.
    pub(crate) touched: Option<Vec<(usize, Ref)>>,
    /// Where uuids and references come from.
    pub(crate) random: Random,
    domains: i64,
    /// VMs that are about to be on a host.
    scheduled: BTreeSet<Ref>,
    scheduled_field: (usize, usize),
}

fn table(info: &ClassInfo) -> Table {
    Table { name: info.find_field("name_label"), ..Table::default() }
}

impl Database {
    /// An empty database whose uuids and references the seed decides.
    pub(crate) fn new(seed: u64) -> Self {
        let schema = Schema::get();
        let vm = schema.class("VM");
        Self {
            schema,
            tables: schema.classes.iter().map(table).collect(),
            message_class: schema.class("message"),
            generation: 1,
            message_generation: 1,
            links: links::Links::new(schema),
            touched: None,
            random: Random::new(seed),
            domains: 0,
            scheduled: BTreeSet::new(),
            scheduled_field: (vm, schema.classes[vm].field("scheduled_to_be_resident_on")),
        }
    }

    /// The number of the next domain.
    pub(crate) fn next_domain(&mut self) -> i64 {
        self.domains += 1;
        self.domains
    }

    /// The generation of the latest change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The generation of the latest change of messages, which are counted apart.
    pub(crate) fn message_generation(&self) -> u64 {
        self.message_generation
    }

    /// Makes all later changes count from this generation on.
    pub(crate) fn start_at(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
        self.message_generation = self.message_generation.max(generation);
    }

    /// The object with this reference.
    pub(crate) fn find(&self, class: &str, reference: Ref) -> Option<&Arc<Row>> {
        self.tables[self.schema.class(class)].rows.get(&reference)
    }

    /// Like `find`, with the error that callers get when there is none.
    pub(crate) fn row(&self, class: &str, reference: Ref) -> Result<&Arc<Row>, ApiError> {
        self.find(class, reference).ok_or_else(|| handle_invalid(class, reference))
    }

    /// Like `row`, for a class by its place in the schema.
    pub(crate) fn row_at(&self, class: usize, reference: Ref) -> Result<&Arc<Row>, ApiError> {
        let row = self.tables[class].rows.get(&reference);
        row.ok_or_else(|| handle_invalid(self.schema.classes[class].name, reference))
    }

    /// The object with this uuid.
    pub(crate) fn by_uuid(&self, class: usize, text: &str) -> Result<Ref, ApiError> {
        let uuid = Uuid::try_parse(text).ok();
        let found = uuid.and_then(|uuid| self.tables[class].by_uuid.get(&uuid)).copied();
        let name = self.schema.classes[class].name;
        found.ok_or_else(|| error("UUID_INVALID", [name, text]))
    }

    /// The objects of a class that have this name.
    pub(crate) fn by_name(&self, class: usize, name: &str) -> Vec<Ref> {
        let named = self.tables[class].by_name.get(name);
        named.map(|named| named.iter().copied().collect()).unwrap_or_default()
    }

    /// The VMs that are about to be on a host.
    pub(crate) fn scheduled(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.scheduled.iter().filter_map(|vm| self.find("VM", *vm))
    }

    /// All objects of a class.
    pub(crate) fn rows(&self, class: &str) -> impl Iterator<Item = &Arc<Row>> {
        self.rows_at(self.schema.class(class))
    }

    /// All objects of a class by its place in the schema.
    pub(crate) fn rows_at(&self, class: usize) -> impl Iterator<Item = &Arc<Row>> {
        self.tables[class].rows.values()
    }

    /// How many objects a class has.
    pub(crate) fn count(&self, class: usize) -> usize {
        self.tables[class].rows.len()
    }

    /// A reference that nothing has yet.
    pub(crate) fn new_ref(&mut self) -> Ref {
        Ref(self.random.uuid())
    }

    /// Makes an object: fields that are not named hold what the model says.
    pub(crate) fn insert(&mut self, class: &str, fields: Vec<(&'static str, Value)>) -> Ref {
        let reference = self.new_ref();
        self.insert_as(class, reference, fields);
        reference
    }

    /// Like `insert`, with this reference.
    pub(crate) fn insert_as(
        &mut self,
        class: &str,
        reference: Ref,
        fields: Vec<(&'static str, Value)>,
    ) {
        let class = self.schema.class(class);
        let info = &self.schema.classes[class];
        let mut values: Box<[Value]> = info.fields.iter().map(|it| it.default.clone()).collect();
        for (name, value) in fields {
            values[info.field(name)] = value;
        }
        if let Some(place) = info.find_field("uuid")
            && !matches!(values[place], Value::Uuid(_))
        {
            let given = values[place].as_str().and_then(|text| Uuid::try_parse(text).ok());
            values[place] = Value::Uuid(given.unwrap_or_else(|| self.random.uuid()));
        }
        let generation = self.next_generation(class);
        let row = Row { class, reference, created: generation, modified: generation, values };
        let table = &mut self.tables[class];
        if info.find_field("uuid").is_some() {
            table.by_uuid.insert(row.uuid(), reference);
        }
        table.changes.insert(generation, reference);
        table.note_name(&row.values, reference);
        let row = Arc::new(row);
        table.rows.insert(reference, row.clone());
        self.touch(class, reference);
        for (place, link) in self.links.of(class) {
            self.join(link, row.values[place].as_ref(), reference);
        }
    }

    /// Puts back an object that was stored, with all its fields.
    pub(crate) fn restore(&mut self, class: usize, reference: Ref, mut values: Box<[Value]>) {
        let info = &self.schema.classes[class];
        let place = info.find_field("uuid");
        if let Some(place) = place {
            let stored = values[place].as_str().and_then(|text| Uuid::try_parse(text).ok());
            values[place] = Value::Uuid(stored.unwrap_or_default());
        }
        let generation = self.next_generation(class);
        let row = Row { class, reference, created: generation, modified: generation, values };
        let table = &mut self.tables[class];
        if place.is_some() {
            table.by_uuid.insert(row.uuid(), reference);
        }
        table.changes.insert(generation, reference);
        table.note_name(&row.values, reference);
        table.rows.insert(reference, Arc::new(row));
    }

    /// Writes a field. Writing what is there already changes nothing.
    pub(crate) fn set(
        &mut self,
        class: &str,
        reference: Ref,
        field: &str,
        value: impl Into<Value>,
    ) {
        let class = self.schema.class(class);
        let field = self.schema.classes[class].field(field);
        self.set_at(class, reference, field, value.into());
    }

    /// Writes several fields.
    pub(crate) fn update(&mut self, class: &str, reference: Ref, fields: &[(&str, Value)]) {
        for (field, value) in fields {
            self.set(class, reference, field, value.clone());
        }
    }

    /// Like `set`, for a class and field by their places in the schema.
    pub(crate) fn set_at(&mut self, class: usize, reference: Ref, field: usize, value: Value) {
        let Some(row) = self.tables[class].rows.get(&reference) else { return };
        if row.values[field] == value {
            return;
        }
        let row = row.clone();
        let before = row.values[field].as_ref();
        let link = self.links.at(class, field);
        let after = value.as_ref();
        let renamed = self.tables[class].name == Some(field);
        if renamed {
            self.tables[class].drop_name(&row.values, reference);
        }
        // Held no longer, so that the change need not copy the row.
        drop(row);
        if (class, field) == self.scheduled_field {
            if after.is_null() {
                self.scheduled.remove(&reference)
            } else {
                self.scheduled.insert(reference)
            };
        }
        self.change(class, reference, |values| values[field] = value);
        if renamed && let Some(row) = self.tables[class].rows.get(&reference).cloned() {
            self.tables[class].note_name(&row.values, reference);
        }
        if let Some(link) = link {
            self.part(link, before, reference);
            self.join(link, after, reference);
        }
    }

    /// Counts an object as changed though it is not.
    pub(crate) fn touch_row(&mut self, class: usize, reference: Ref) {
        self.change(class, reference, |_| ());
    }

    /// Removes an object. Others that refer to it keep their references.
    pub(crate) fn delete(&mut self, class: &str, reference: Ref) {
        let class = self.schema.class(class);
        let Some(row) = self.tables[class].rows.remove(&reference) else { return };
        let deleted = self.next_generation(class);
        self.scheduled.remove(&reference);
        let table = &mut self.tables[class];
        table.drop_name(&row.values, reference);
        table.changes.remove(&row.modified);
        if row.info().find_field("uuid").is_some() {
            table.by_uuid.remove(&row.uuid());
        }
        if table.deletions.len() == DELETIONS {
            table.deletions.pop_front();
        }
        table.deletions.push_back(Deletion { reference, created: row.created, deleted });
        self.touch(class, reference);
        for (place, link) in self.links.of(class) {
            self.part(link, row.values[place].as_ref(), reference);
        }
    }

    /// What became of a class's objects after this generation, each object once.
    pub(crate) fn changes(&self, class: usize, since: u64) -> Vec<Change> {
        let table = &self.tables[class];
        let changed = table.changes.range(since + 1..).filter_map(|(_, reference)| {
            let row = table.rows.get(reference)?.clone();
            Some(if row.created > since { Change::Added(row) } else { Change::Modified(row) })
        });
        let deleted = table.deletions.iter().rev().take_while(|it| it.deleted > since);
        let deleted = deleted.filter(|it| it.created <= since);
        let deleted = deleted.map(|it| Change::Deleted { reference: it.reference, at: it.deleted });
        changed.chain(deleted).collect()
    }

    /// Forgets all deletions, as a restarted toolstack does.
    pub(crate) fn forget_deletions(&mut self) {
        for table in &mut self.tables {
            table.deletions.clear();
        }
    }

    fn next_generation(&mut self, class: usize) -> u64 {
        let counter = if class == self.message_class {
            &mut self.message_generation
        } else {
            &mut self.generation
        };
        *counter += 1;
        *counter
    }

    fn touch(&mut self, class: usize, reference: Ref) {
        if let Some(touched) = &mut self.touched {
            touched.push((class, reference));
        }
    }

    fn change(&mut self, class: usize, reference: Ref, write: impl FnOnce(&mut [Value])) {
        let generation = self.next_generation(class);
        let table = &mut self.tables[class];
        let Some(row) = table.rows.get_mut(&reference) else { return };
        table.changes.remove(&row.modified);
        table.changes.insert(generation, reference);
        let row = Arc::make_mut(row);
        row.modified = generation;
        write(&mut row.values);
        self.touch(class, reference);
    }

    /// Adds `child` to the set in which `parent` lists its children.
    fn join(&mut self, link: links::Link, parent: Ref, child: Ref) {
        if self.tables[link.parent].rows.contains_key(&parent) {
            self.change(link.parent, parent, |values| {
                if let Value::Set(items) = &mut values[link.field] {
                    Arc::make_mut(items).push(Value::Ref(child));
                }
            });
        }
    }

    /// Removes `child` from the set in which `parent` lists its children.
    fn part(&mut self, link: links::Link, parent: Ref, child: Ref) {
        if self.tables[link.parent].rows.contains_key(&parent) {
            self.change(link.parent, parent, |values| {
                if let Value::Set(items) = &mut values[link.field] {
                    Arc::make_mut(items).retain(|item| item.as_ref() != child);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(db: &mut Database, name: &str) -> Ref {
        db.insert("VM", vec![("name_label", name.into())])
    }

    #[test]
    fn a_set_of_children_follows_their_references_to_the_parent() {
        let mut db = Database::new(1);
        let (one, two) = (vm(&mut db, "one"), vm(&mut db, "two"));
        let vbd = db.insert("VBD", vec![("VM", one.into())]);
        assert_eq!(db.row("VM", one).unwrap().refs("VBDs"), [vbd]);
        db.set("VBD", vbd, "VM", two);
        assert_eq!(db.row("VM", one).unwrap().refs("VBDs"), []);
        assert_eq!(db.row("VM", two).unwrap().refs("VBDs"), [vbd]);
        db.delete("VBD", vbd);
        assert_eq!(db.row("VM", two).unwrap().refs("VBDs"), []);
    }

    #[test]
    fn an_object_changes_once_however_often_it_was_written() {
        let mut db = Database::new(1);
        let class = Schema::get().class("VM");
        let one = vm(&mut db, "one");
        let since = db.generation();
        db.set("VM", one, "name_label", "first");
        db.set("VM", one, "name_label", "second");
        let two = vm(&mut db, "two");
        let three = vm(&mut db, "three");
        db.delete("VM", three);
        let changes = db.changes(class, since);
        assert_eq!(changes.len(), 2);
        assert!(matches!(&changes[0], Change::Modified(row) if row.text("name_label") == "second"));
        assert!(matches!(&changes[1], Change::Added(row) if row.reference == two));
        db.delete("VM", one);
        let changes = db.changes(class, since);
        assert!(matches!(changes[1], Change::Deleted { reference, .. } if reference == one));
        assert!(db.changes(class, db.generation()).is_empty());
    }

    #[test]
    fn names_are_found_whatever_became_of_them() {
        let mut db = Database::new(1);
        let class = Schema::get().class("VM");
        let (one, two) = (vm(&mut db, "a"), vm(&mut db, "a"));
        assert_eq!(db.by_name(class, "a").len(), 2);
        db.set("VM", one, "name_label", "b");
        assert_eq!((db.by_name(class, "a"), db.by_name(class, "b")), (vec![two], vec![one]));
        db.delete("VM", one);
        assert!(db.by_name(class, "b").is_empty());
    }

    #[test]
    fn writing_what_is_there_is_no_change() {
        let mut db = Database::new(1);
        let one = vm(&mut db, "one");
        let before = db.generation();
        db.set("VM", one, "name_label", "one");
        assert_eq!(db.generation(), before);
    }

    #[test]
    fn the_memory_of_deletions_is_bounded() {
        let mut db = Database::new(1);
        let vms: Vec<Ref> = (0..DELETIONS + 50).map(|_| vm(&mut db, "vm")).collect();
        let since = db.generation();
        for vm in vms {
            db.delete("VM", vm);
        }
        assert_eq!(db.changes(Schema::get().class("VM"), since).len(), DELETIONS);
    }
}
