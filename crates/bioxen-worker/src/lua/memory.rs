//! Lua's allocator: the C library's, with a count, a peak and a bound.

use std::cell::Cell;
use std::ffi::c_void;

/// What all Lua states of a worker hold together.
///
/// Shared with C as a plain pointer; a worker has one thread.
#[derive(Default)]
pub(crate) struct Memory {
    used: Cell<usize>,
    peak: Cell<usize>,
    /// What a full collection has left.
    kept: Cell<usize>,
    limit: Cell<Option<usize>>,
}

impl Memory {
    /// A count that lives as long as the process, because Lua states refer to it.
    pub(crate) fn leak() -> &'static Self {
        Box::leak(Box::default())
    }

    pub(super) fn as_data(&'static self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Bounds what may be held; what is held already stays.
    pub(crate) fn set_limit(&self, limit: Option<u64>) {
        self.limit.set(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    }

    /// Forgets the peak so far.
    pub(crate) fn restart_peak(&self) {
        self.peak.set(self.used.get());
    }

    /// The most bytes held at once since the last restart.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.get() as u64
    }

    /// Whether so much is held, and so much of it was taken since the last full collection, that
    /// another one is worth its time before a fresh state asks for memory.
    pub(crate) fn wants_collection(&self) -> bool {
        let (used, kept) = (self.used.get(), self.kept.get());
        self.limit.get().is_some_and(|limit| used > limit / 2 && used > kept + limit / 8)
    }

    /// Notes that no garbage is left.
    pub(super) fn note_collection(&self) {
        self.kept.set(self.used.get());
    }

    /// Counts a change of size, unless that is too much.
    fn change(&self, old: usize, new: usize) -> bool {
        let used = self.used.get() - old + new;
        if new > old && self.limit.get().is_some_and(|limit| used > limit) {
            return false;
        }
        self.used.set(used);
        self.peak.set(self.peak.get().max(used));
        true
    }
}

/// `lua_Alloc`: see the reference manual of Lua 5.4, section 4.6.
pub(super) unsafe extern "C" fn allocate(
    data: *mut c_void,
    block: *mut c_void,
    old_size: usize,
    new_size: usize,
) -> *mut c_void {
    // SAFETY: `data` is the `Memory` that the state was made with, which is never freed.
    let memory = unsafe { &*data.cast::<Memory>() };
    // Without a block the old size tells what kind of object is wanted.
    let old_size = if block.is_null() { 0 } else { old_size };
    if new_size == 0 {
        memory.change(old_size, 0);
        // SAFETY: the block came from `realloc` below, or is null.
        unsafe { libc::free(block) };
        return std::ptr::null_mut();
    }
    if !memory.change(old_size, new_size) {
        return std::ptr::null_mut();
    }
    // SAFETY: as above.
    let moved = unsafe { libc::realloc(block, new_size) };
    if moved.is_null() {
        memory.change(new_size, old_size);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_beyond_the_limit_is_refused_and_counts_nothing() {
        let memory = Memory::default();
        memory.set_limit(Some(100));
        assert!(memory.change(0, 80));
        assert!(!memory.change(80, 120));
        assert!(memory.change(80, 60), "shrinking is always possible");
        assert_eq!((memory.used.get(), memory.peak()), (60, 80));
    }

    #[test]
    fn a_collection_is_not_wanted_again_while_little_was_added() {
        let memory = Memory::default();
        memory.set_limit(Some(800));
        assert!(memory.change(0, 400) && !memory.wants_collection());
        assert!(memory.change(400, 600) && memory.wants_collection());
        memory.note_collection();
        assert!(memory.change(600, 700) && !memory.wants_collection());
        assert!(memory.change(700, 720) && memory.wants_collection());
    }
}
