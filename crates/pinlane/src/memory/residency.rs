//! Whether memory has pages yet. Memory that nobody has written has none: the kernel finds and clears one at each first write,
//! which takes longer than a copy into it.

use rustix::param::page_size;

/// Whether the page in the middle of `bytes` bytes from `ptr` on is there. What the kernel does not tell counts as there.
pub(crate) fn has_pages(ptr: *const u8, bytes: usize) -> bool {
    let middle = ptr.addr() + bytes / 2;
    let page = ptr.with_addr(middle / page_size() * page_size());
    let mut resident = 1_u8;
    // SAFETY: asks about one page, of which there is a byte to write to; the memory itself is not accessed.
    let told = unsafe { libc::mincore(page.cast_mut().cast(), page_size(), (&raw mut resident).cast()) };
    told != 0 || resident & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::{super::mapping::Mapping, *};

    #[test]
    fn pages_are_there_once_they_were_written_and_unknown_memory_counts_as_there() {
        let bytes = 64 << 10;
        let mapping = Mapping::reserve(bytes).unwrap();
        let first = mapping.ptr().as_ptr();
        assert!(!has_pages(first, bytes));
        // SAFETY: inside the mapping, which nobody else knows.
        unsafe { first.add(bytes / 2).write(1) };
        assert!(has_pages(first, bytes));
        assert!(has_pages(std::ptr::without_provenance(1 << 12), 1));
    }
}
