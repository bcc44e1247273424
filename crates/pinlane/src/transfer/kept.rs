//! The sources of a job, which have to live until the copies from them are done.
//!
//! A job that goes on by itself shares them. One that its caller waits for, whatever happens meanwhile, borrows them as the
//! caller does: to count a thousand references up and down again would take as long as to copy what they refer to.

use std::ptr::NonNull;

use crate::memory::{
    list::{self, List},
    shared::Shared,
    storage::Storage,
};

/// Storages of sources.
#[derive(Debug)]
pub(crate) enum Kept {
    Shared(List<Shared<Storage>>),
    /// Each is alive until the job has landed.
    Borrowed(List<NonNull<Storage>>),
}

// SAFETY: storages are shared between threads, by whoever holds them; these are held until the job has landed.
unsafe impl Send for Kept {}

impl Kept {
    /// Room for the storages of so many sources.
    pub(crate) fn shared(sources: usize) -> Self {
        Self::Shared(list::with_capacity(sources))
    }

    /// The same, which are not kept.
    ///
    /// # Safety
    ///
    /// What is [pushed](Self::push) stays alive until the job that it is a source of has landed.
    pub(crate) unsafe fn borrowed(sources: usize) -> Self {
        Self::Borrowed(list::with_capacity(sources))
    }

    #[inline]
    pub(crate) fn push(&mut self, storage: &Shared<Storage>) {
        match self {
            Self::Shared(storages) => storages.push(storage.clone()),
            Self::Borrowed(storages) => storages.push(NonNull::from(&**storage)),
        }
    }

    /// Never lets go of the memory.
    pub(crate) fn leak(&self) {
        match self {
            Self::Shared(storages) => storages.iter().for_each(|storage| storage.leak()),
            Self::Borrowed(storages) => storages.iter().for_each(|storage| {
                // SAFETY: alive until the job has landed, and it lands only after this.
                unsafe { storage.as_ref() }.leak();
            }),
        }
    }
}
