//! What a mirror needs to know before it starts.

use std::sync::Arc;

use super::inner::Inner;
use super::tables::Tables;
use super::{Driver, Mirror};
use crate::any::{Unwatchable, Watched, watchable};
use crate::client::Client;
use crate::events::Feed;
use crate::generated::class::Class;
use crate::wire::Fields;

/// Makes a [`Mirror`].
#[derive(Debug)]
#[must_use = "nothing is mirrored until it is started"]
pub struct MirrorBuilder {
    client: Client,
    classes: Vec<Class>,
    /// The numbers of fields that are left out.
    without: Vec<(Class, usize)>,
}

impl MirrorBuilder {
    pub(super) fn new(
        client: &Client,
        classes: impl IntoIterator<Item = Class>,
    ) -> Result<Self, Unwatchable> {
        let classes = watchable(classes.into_iter().chain([Class::Pool]))?;
        Ok(Self { client: client.clone(), classes, without: Vec::new() })
    }

    /// Leaves these fields of a class empty, to save memory. Names are those of the data model; those that it
    /// does not have are passed over.
    ///
    /// ```no_run
    /// # use xenapi::{Client, Mirror, Unwatchable, class::{self, Class}};
    /// # fn example(client: &Client) -> Result<(), Unwatchable> {
    /// let mirror = Mirror::builder(client, [Class::Vm])?
    ///     .without::<class::Vm>(&["recommendations", "last_booted_record", "snapshot_metadata"])
    ///     .start();
    /// # Ok(())
    /// # }
    /// ```
    pub fn without<T: Watched<Record: Fields>>(mut self, fields: &[&str]) -> Self {
        let numbers = fields.iter().filter_map(|field| T::Record::NAMES.binary_search(field).ok());
        self.without.extend(numbers.map(|number| (T::CLASS, number)));
        self
    }

    /// Starts to follow the pool.
    ///
    /// # Panics
    ///
    /// If called outside a Tokio runtime.
    pub fn start(self) -> Mirror {
        let feed = Feed::new(&self.client, &self.classes);
        let inner = Arc::new(Inner::new(Tables::new(&self.classes, &self.without), self.classes));
        let driver = tokio::spawn(super::inner::drive(Arc::clone(&inner), feed));
        Mirror { client: self.client, inner, _driver: Arc::new(Driver(driver)) }
    }
}
