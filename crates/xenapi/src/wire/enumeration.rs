//! Enumerations: what the generated tables of their values expand to.

/// Makes an open enumeration of the values that the model has.
macro_rules! wire_enum {
    ($(#[$about:meta])* $name:ident { $($variant:ident $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(
                #[doc = concat!("`", $text, "`.")]
                $variant,
            )*
            /// A value that the model does not have, or nothing.
            Unknown(String),
        }

        impl $name {
            /// The exact spelling.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Unknown(text.to_owned()),
                }
            }
        }

        $crate::wire::wire_enum!(@traits $name);
    };
    (@traits $name:ident) => {
        impl Default for $name {
            fn default() -> Self {
                Self::Unknown(String::new())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl $crate::wire::FromWire for $name {
            fn from_wire<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::wire::text_from_wire(deserializer, |text| Self::from(text))
            }
        }

        impl $crate::wire::ToWire for $name {
            fn to_wire(&self) -> $crate::wire::Value {
                $crate::wire::Value::String(self.as_str().to_owned())
            }
        }

        impl $crate::wire::MapKey for $name {
            fn from_key(text: &str) -> Result<Self, String> {
                Ok(text.into())
            }

            fn to_key(&self) -> std::borrow::Cow<'_, str> {
                self.as_str().into()
            }
        }
    };
}

/// Makes the enumeration of all classes.
macro_rules! class_enum {
    ($($variant:ident $text:literal $events:literal,)*) => {
        /// A class of the data model.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Class {
            $(
                #[doc = concat!("`", $text, "`.")]
                $variant,
            )*
        }

        impl Class {
            /// Every class, by name.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name as in method names and errors: `VM`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Whether changes of its objects show up in `event.from`.
            pub const fn has_events(self) -> bool {
                match self {
                    $(Self::$variant => $events,)*
                }
            }

            /// The class with this name in any case: events write it in lower case.
            pub fn find(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|class| class.name().eq_ignore_ascii_case(name))
            }
        }

        impl std::fmt::Display for Class {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

pub(crate) use {class_enum, wire_enum};

#[cfg(test)]
mod tests {
    use crate::class::Class;
    use crate::enums::{PifIgmpStatus, VmPowerState};

    #[test]
    fn a_value_that_is_not_in_the_model_is_kept() {
        let state = VmPowerState::from("Hibernated");
        assert_eq!(state, VmPowerState::Unknown("Hibernated".into()));
        assert_eq!(state.as_str(), "Hibernated");
        assert_eq!(VmPowerState::from("Running"), VmPowerState::Running);
    }

    #[test]
    fn the_value_unknown_is_not_an_unknown_value() {
        assert_eq!(PifIgmpStatus::from("unknown"), PifIgmpStatus::Undetermined);
    }

    #[test]
    fn classes_are_found_as_events_name_them() {
        assert_eq!(Class::find("vm_guest_metrics"), Some(Class::VmGuestMetrics));
        assert_eq!(Class::Vm.to_string(), "VM");
        assert!(Class::Vm.has_events() && !Class::Session.has_events());
    }
}
