//! References and records whose class is known only at run time.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess};

use crate::generated::class::{self, Class};
use crate::wire::{Fields, FromWire, Object, Recorded, Ref, Value};

/// A reference together with the class it is of.
///
/// ```
/// use xenapi::{AnyRef, Ref, class};
///
/// let vm: Ref<class::Vm> = "OpaqueRef:1".into();
/// let any = AnyRef::from(&vm);
/// assert_eq!(any.of::<class::Vm>(), Some(vm));
/// assert_eq!(any.of::<class::Host>(), None);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnyRef {
    class: Class,
    reference: Ref<()>,
}

impl AnyRef {
    pub(crate) fn new(class: Class, reference: Ref<()>) -> Self {
        Self { class, reference }
    }

    /// The class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The reference, if it is one of this class.
    pub fn of<T: Object>(&self) -> Option<Ref<T>> {
        (self.class == T::CLASS).then(|| self.reference.clone().cast())
    }

    pub(crate) fn untyped(&self) -> &Ref<()> {
        &self.reference
    }
}

impl<T: Object> From<&Ref<T>> for AnyRef {
    fn from(reference: &Ref<T>) -> Self {
        Self::new(T::CLASS, reference.clone().cast())
    }
}

impl fmt::Display for AnyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

impl fmt::Debug for AnyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.class, self.reference)
    }
}

/// A class that this build has records of and that the server tells the changes of.
pub trait Watched: Recorded {
    /// The record, if it is one of this class.
    fn of(any: &AnyRecord) -> Option<&Arc<Self::Record>>;
}

/// Makes the record of any class out of a list of those that have events.
macro_rules! any_record {
    ($($(#[$gate:meta])? $class:ident $module:ident,)*) => {
        /// A record of any class that has events. Cloning one is cheap.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum AnyRecord {
            $(
                $(#[$gate])?
                #[doc = concat!("Of the class that the module [`", stringify!($module), "`](crate::", stringify!($module), ") has.")]
                $class(Arc<crate::generated::$module::Record>),
            )*
        }

        impl AnyRecord {
            /// The class it is of.
            pub fn class(&self) -> Class {
                match self {
                    $($(#[$gate])? Self::$class(_) => Class::$class,)*
                }
            }

            /// The text in the field with this name, if there is one that is not empty.
            pub(crate) fn text(&self, field: &str) -> Option<String> {
                match self {
                    $($(#[$gate])? Self::$class(record) => text(&**record, field),)*
                }
            }

            /// Empties the fields with these numbers, if nobody shares the record yet.
            pub(crate) fn clear(&mut self, fields: &[usize]) {
                match self {
                    $($(#[$gate])? Self::$class(record) => clear(record, fields),)*
                }
            }

            /// Reads a record of this class; there is none of classes that this build does not know.
            pub(crate) fn read<'de, D: Deserializer<'de>>(
                class: Class,
                deserializer: D,
            ) -> Result<Option<Self>, D::Error> {
                match class {
                    $($(#[$gate])? Class::$class => shared(deserializer).map(|record| Some(Self::$class(record))),)*
                    _ => serde::Deserialize::deserialize(deserializer).map(|IgnoredAny| None),
                }
            }
        }

        /// Whether this build has records of a class, and the server tells the changes of it.
        pub(crate) fn is_watched(class: Class) -> bool {
            match class {
                $($(#[$gate])? Class::$class => true,)*
                _ => false,
            }
        }

        $(
            $(#[$gate])?
            impl Watched for class::$class {
                fn of(any: &AnyRecord) -> Option<&Arc<Self::Record>> {
                    if let AnyRecord::$class(record) = any { Some(record) } else { None }
                }
            }
        )*
    };
}

any_record! {
    #[cfg(feature = "full")] Bond bond,
    #[cfg(feature = "full")] Caller caller,
    Certificate certificate,
    #[cfg(feature = "full")] Cluster cluster,
    #[cfg(feature = "full")] ClusterHost cluster_host,
    #[cfg(feature = "full")] DrTask dr_task,
    #[cfg(feature = "full")] DriverVariant driver_variant,
    #[cfg(feature = "full")] Feature feature,
    #[cfg(feature = "full")] GpuGroup gpu_group,
    #[cfg(feature = "full")] HostDriver host_driver,
    #[cfg(feature = "full")] Lvhd lvhd,
    #[cfg(feature = "full")] Observer observer,
    Pbd pbd,
    #[cfg(feature = "full")] Pci pci,
    #[cfg(feature = "full")] Pgpu pgpu,
    Pif pif,
    PifMetrics pif_metrics,
    #[cfg(feature = "full")] Pusb pusb,
    #[cfg(feature = "full")] PvsCacheStorage pvs_cache_storage,
    #[cfg(feature = "full")] PvsProxy pvs_proxy,
    #[cfg(feature = "full")] PvsServer pvs_server,
    #[cfg(feature = "full")] PvsSite pvs_site,
    #[cfg(feature = "full")] RateLimit rate_limit,
    #[cfg(feature = "full")] Repository repository,
    #[cfg(feature = "full")] SdnController sdn_controller,
    Sm sm,
    Sr sr,
    #[cfg(feature = "full")] UsbGroup usb_group,
    Vbd vbd,
    #[cfg(feature = "full")] VbdMetrics vbd_metrics,
    Vdi vdi,
    #[cfg(feature = "full")] Vgpu vgpu,
    #[cfg(feature = "full")] VgpuType vgpu_type,
    Vif vif,
    #[cfg(feature = "full")] VifMetrics vif_metrics,
    Vlan vlan,
    Vm vm,
    #[cfg(feature = "full")] Vmpp vmpp,
    #[cfg(feature = "full")] Vmss vmss,
    #[cfg(feature = "full")] VmAppliance vm_appliance,
    #[cfg(feature = "full")] VmGroup vm_group,
    VmGuestMetrics vm_guest_metrics,
    VmMetrics vm_metrics,
    #[cfg(feature = "full")] Vtpm vtpm,
    #[cfg(feature = "full")] Vusb vusb,
    #[cfg(feature = "full")] Blob blob,
    Console console,
    #[cfg(feature = "full")] Crashdump crashdump,
    Host host,
    #[cfg(feature = "full")] HostCpu host_cpu,
    #[cfg(feature = "full")] HostCrashdump host_crashdump,
    HostMetrics host_metrics,
    #[cfg(feature = "full")] HostPatch host_patch,
    Message message,
    Network network,
    #[cfg(feature = "full")] NetworkSriov network_sriov,
    Pool pool,
    #[cfg(feature = "full")] PoolPatch pool_patch,
    #[cfg(feature = "full")] PoolUpdate pool_update,
    Role role,
    #[cfg(feature = "full")] Subject subject,
    Task task,
    #[cfg(feature = "full")] Tunnel tunnel,
}

impl AnyRecord {
    /// The record, if it is one of this class.
    pub fn of<T: Watched>(&self) -> Option<&Arc<T::Record>> {
        T::of(self)
    }
}

/// Apart from the `match` that calls it, so that not all records have their place on one stack.
#[inline(never)]
fn shared<'de, T: FromWire, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<T>, D::Error> {
    T::from_wire(deserializer).map(Arc::new)
}

fn text<T: Fields>(record: &T, field: &str) -> Option<String> {
    let index = T::NAMES.binary_search(&field).ok()?;
    match record.write(index) {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn clear<T: Fields>(record: &mut Arc<T>, fields: &[usize]) {
    if let (false, Some(record)) = (fields.is_empty(), Arc::get_mut(record)) {
        for &field in fields {
            // Every type takes nothing for its default.
            let _ = record.read(field, &mut Nothing);
        }
    }
}

/// What a field is read from to become empty.
struct Nothing;

impl<'de> MapAccess<'de> for Nothing {
    type Error = serde::de::value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        _: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        seed.deserialize(().into_deserializer())
    }
}

/// Why the changes of a class cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwatchable {
    /// Servers tell no changes of it.
    #[error("the class `{0}` has no events")]
    NoEvents(Class),
    /// This build has no records of it.
    #[error("the class `{0}` needs the feature `full`")]
    NotBuilt(Class),
}

/// The classes, each once, if all of them can be followed.
pub(crate) fn watchable(
    classes: impl IntoIterator<Item = Class>,
) -> Result<Vec<Class>, Unwatchable> {
    let mut found = Vec::new();
    for class in classes {
        match (class.has_events(), is_watched(class)) {
            (true, true) => found.push(class),
            (false, _) => return Err(Unwatchable::NoEvents(class)),
            (true, false) => return Err(Unwatchable::NotBuilt(class)),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm;

    #[test]
    #[cfg(feature = "full")]
    fn every_class_that_has_events_can_be_followed() {
        for &class in Class::ALL {
            assert_eq!(class.has_events(), is_watched(class), "{class}");
        }
    }

    #[test]
    fn classes_that_cannot_be_followed_are_refused() {
        assert_eq!(
            watchable([Class::Vm, Class::Host, Class::Vm]),
            Ok(vec![Class::Vm, Class::Host])
        );
        assert_eq!(watchable([Class::Session]), Err(Unwatchable::NoEvents(Class::Session)));
        #[cfg(not(feature = "full"))]
        assert_eq!(watchable([Class::Bond]), Err(Unwatchable::NotBuilt(Class::Bond)));
    }

    #[test]
    fn a_record_is_only_of_its_own_class() {
        let record = AnyRecord::Vm(Arc::new(vm::Record { uuid: "7".into(), ..Default::default() }));
        assert_eq!(record.of::<class::Vm>().unwrap().uuid, "7");
        assert!(record.of::<class::Host>().is_none());
        assert_eq!(record.text("uuid").as_deref(), Some("7"));
        assert_eq!(record.text("name_label"), None);
        assert_eq!(record.text("no such field"), None);
    }
}
