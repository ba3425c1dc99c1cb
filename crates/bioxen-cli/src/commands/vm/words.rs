//! What became of a machine, in words.

use bioxen_xcp::machine::{Size, WhyHard};

use crate::shown;

/// Completes "its power was cut, as …".
pub(super) fn why_hard(why: WhyHard) -> &'static str {
    match why {
        WhyHard::Asked => "that was asked for",
        WhyHard::NoTools => "its guest has no tools that could be told, or they have not started",
        WhyHard::GraceOver => "its guest did not do it within the grace",
        WhyHard::NoAnswer => "its guest did not answer",
        WhyHard::Paused => "it was paused",
        WhyHard::Suspended => "it was suspended; what was in its memory is lost",
    }
}

/// A size with what it is the size of.
pub(super) fn size(size: Size) -> String {
    match size {
        Size::Memory(bytes) => format!("{} of memory", shown::size(bytes)),
        Size::Vcpus(count) => {
            shown::counted(usize::try_from(count).unwrap_or(usize::MAX), "processor")
        }
        Size::Disk(bytes) => format!("a disk of {}", shown::size(bytes)),
    }
}

/// Several sizes in a sentence.
pub(super) fn sizes(sizes: &[Size]) -> String {
    sizes.iter().map(|it| size(*it)).collect::<Vec<_>>().join(", ")
}
