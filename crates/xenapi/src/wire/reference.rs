//! References to objects, each of the class it refers to.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use super::FromWire;
use crate::class::Class;

/// What a reference can refer to: the marker type of a class.
pub trait Object: Send + Sync + 'static {
    /// The class.
    const CLASS: Class;
}

/// A class whose records this build knows.
pub trait Recorded: Object {
    /// What `get_record` answers.
    type Record: FromWire + Clone + Send + Sync;
}

/// A reference to an object of class `T`, such as `Ref<class::Vm>`.
///
/// It is opaque: servers make them up, and they say nothing about the object. It may refer to nothing
/// ([`Ref::is_null`]), or to something that has gone since. Cloning one is cheap.
///
/// ```
/// use xenapi::{Ref, class};
///
/// let vm: Ref<class::Vm> = "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba".into();
/// assert!(!vm.is_null());
/// assert_eq!(vm.to_string(), "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba");
/// ```
pub struct Ref<T> {
    form: Form,
    class: PhantomData<fn() -> T>,
}

/// Nearly every reference is `OpaqueRef:` and a UUID, which fits in place without an allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    Null,
    Uuid([u8; 16]),
    Other(Box<str>),
}

const PREFIX: &str = "OpaqueRef:";
const NULL: &str = "OpaqueRef:NULL";

impl<T> Ref<T> {
    /// The reference to nothing, `OpaqueRef:NULL`.
    pub const fn null() -> Self {
        Self { form: Form::Null, class: PhantomData }
    }

    /// Whether it refers to nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.form, Form::Null)
    }

    /// This reference, unless it refers to nothing.
    pub fn non_null(self) -> Option<Self> {
        if self.is_null() { None } else { Some(self) }
    }

    /// The same text as a reference to another class, for those who keep the class beside it.
    pub(crate) fn cast<U>(self) -> Ref<U> {
        Ref { form: self.form, class: PhantomData }
    }
}

impl<T> From<&str> for Ref<T> {
    /// Takes any text. Those that stand for nothing in old databases become [`Ref::null`].
    fn from(text: &str) -> Self {
        let form = match text {
            "" | NULL | "NULL" => Form::Null,
            _ => text
                .strip_prefix(PREFIX)
                .and_then(parse_uuid)
                .map_or_else(|| Form::Other(text.into()), Form::Uuid),
        };
        Self { form, class: PhantomData }
    }
}

/// Takes only the spelling that [`Display`](fmt::Display) gives back, so that no reference changes.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    let mut place = 0;
    for byte in &mut bytes {
        if matches!(place, 8 | 13 | 18 | 23) {
            if text[place] != b'-' {
                return None;
            }
            place += 1;
        }
        *byte = digit(text[place])? << 4 | digit(text[place + 1])?;
        place += 2;
    }
    Some(bytes)
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

impl<T> fmt::Display for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = match &self.form {
            Form::Null => return f.write_str(NULL),
            Form::Other(text) => return f.write_str(text),
            Form::Uuid(bytes) => bytes,
        };
        let mut text = String::with_capacity(PREFIX.len() + 36);
        text.push_str(PREFIX);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        f.write_str(&text)
    }
}

impl<T: Object> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({self})", T::CLASS.name())
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self { form: self.form.clone(), class: PhantomData }
    }
}

impl<T> Default for Ref<T> {
    fn default() -> Self {
        Self::null()
    }
}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.form.cmp(&other.form)
    }
}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.form.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::class::Vm;

    #[test]
    fn every_spelling_of_nothing_is_null() {
        for text in ["", "NULL", "OpaqueRef:NULL"] {
            let reference = Ref::<Vm>::from(text);
            assert!(reference.is_null());
            assert_eq!(reference.to_string(), "OpaqueRef:NULL");
        }
    }

    #[test]
    fn a_reference_takes_no_more_room_than_a_string() {
        assert_eq!(size_of::<Ref<Vm>>(), size_of::<String>());
    }

    #[test]
    fn debugging_shows_the_class() {
        assert_eq!(format!("{:?}", Ref::<Vm>::from("Ref:7")), "VM(Ref:7)");
    }

    proptest! {
        #[test]
        fn no_reference_changes_on_its_way(text in "(OpaqueRef:)?[0-9a-fA-F]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[ -~]{1,60}") {
            prop_assume!(text != "NULL" && text != "OpaqueRef:NULL");
            prop_assert_eq!(Ref::<Vm>::from(text.as_str()).to_string(), text);
        }
    }
}
