//! The memory of the copies of this process in which runs branch off ([`crate::branches`]).
//!
//! A copy shares every page with the original until one of them writes to it, and each first write to a page costs
//! microseconds. Memory that is freed into the original's heap, and allocated from its gaps, is spread over the whole
//! heap: hundreds of pages in a run, which took half of its time. So a copy allocates from its own region, keeps what
//! it frees there by size, and does not touch what existed before: it lives for milliseconds.

#![expect(unsafe_code, reason = "memory is given out by unsafe functions")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of a copy's region. A run needs a few mebibytes; allocations beyond the region come from the heap.
const SIZE: usize = 256 << 20;
/// Unit of sizes and alignments in the region.
const GRAIN: usize = 16;
/// Largest size that is reused; larger ones are used once.
const LARGEST_KEPT: usize = 8 << 10;

/// The heap of the process, and in a copy its own region. A copy has a single thread.
pub(crate) struct Memory {
    /// The start of the region; 0 in a process that is not a copy.
    start: AtomicUsize,
    /// The start of the memory that was never used.
    unused: AtomicUsize,
    /// By number of grains: the first freed block, which begins with the address of the next one.
    freed: [AtomicUsize; LARGEST_KEPT / GRAIN + 1],
}

impl Memory {
    pub(crate) const fn new() -> Self {
        let freed = [const { AtomicUsize::new(0) }; LARGEST_KEPT / GRAIN + 1];
        Self { start: AtomicUsize::new(0), unused: AtomicUsize::new(0), freed }
    }

    /// Prepares the region. A copy calls this right after the fork.
    pub(crate) fn of_a_copy(&self) {
        // Copies branch off only from the original; a copy of a copy would not share this region either.
        // SAFETY: nobody else uses this region.
        let place = unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(null_mut(), SIZE, access, kind | libc::MAP_NORESERVE, -1, 0)
        };
        assert_ne!(place, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        self.unused.store(place.expose_provenance(), Relaxed);
        self.start.store(place.addr(), Relaxed);
    }

    fn is_a_copy(&self) -> bool {
        self.start.load(Relaxed) != 0
    }

    fn holds(&self, address: *mut u8) -> bool {
        address.addr().wrapping_sub(self.start.load(Relaxed)) < SIZE
    }

    /// Returns a freed block of this size; null if there is none.
    fn take_freed(&self, grains: usize) -> *mut u8 {
        let Some(first) = self.freed.get(grains) else { return null_mut() };
        let place = std::ptr::with_exposed_provenance_mut::<u8>(first.load(Relaxed));
        if !place.is_null() {
            // SAFETY: it begins with the address of the next block, which `keep` wrote there.
            first.store(unsafe { place.cast::<usize>().read() }, Relaxed);
        }
        place
    }

    fn keep(&self, place: *mut u8, grains: usize) {
        let Some(first) = self.freed.get(grains) else { return };
        // SAFETY: it has at least the size and the alignment of a grain, and nobody uses it any more.
        unsafe { place.cast::<usize>().write(first.load(Relaxed)) };
        first.store(place.expose_provenance(), Relaxed);
    }

    /// Returns memory that was never used; null if there is not enough of it.
    fn take_unused(&self, size: usize, align: usize) -> *mut u8 {
        let begin = self.unused.load(Relaxed).next_multiple_of(align);
        if begin + size > self.start.load(Relaxed) + SIZE {
            return null_mut();
        }
        self.unused.store(begin + size, Relaxed);
        std::ptr::with_exposed_provenance_mut(begin)
    }
}

fn grains(layout: Layout) -> usize {
    layout.size().div_ceil(GRAIN).max(1)
}

// SAFETY: the returned memory has the requested size and alignment, and is given to nobody else before it is freed.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.is_a_copy() {
            let (grains, align) = (grains(layout), layout.align().max(GRAIN));
            let freed = if align == GRAIN { self.take_freed(grains) } else { null_mut() };
            let place = if freed.is_null() { self.take_unused(grains * GRAIN, align) } else { freed };
            if !place.is_null() {
                return place;
            }
        }
        // SAFETY: the layout is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if !self.is_a_copy() {
            // SAFETY: in the original all memory comes from there.
            unsafe { System.dealloc(place, layout) }
        } else if self.holds(place) {
            self.keep(place, grains(layout));
        }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.is_a_copy() {
            // SAFETY: in the original all memory comes from there.
            return unsafe { System.realloc(place, layout, size) };
        }
        // SAFETY: the caller gives a size that is valid for a layout with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if self.holds(place) && grains(wanted) == grains(layout) {
            return place;
        }
        // SAFETY: both blocks have these layouts and do not overlap.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(place, layout.size().min(size));
                self.dealloc(place, layout);
            }
            moved
        }
    }
}
