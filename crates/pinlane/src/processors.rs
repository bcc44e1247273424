//! The processors that a thread may run on, one after the other: for who measures.
//!
//! Half of a core of a server often works for somebody else: a virtual machine's neighbour on the other hardware thread makes
//! what this one does take a third longer, for seconds or minutes, and nothing tells. Who measures on one processor alone
//! measures the neighbour.

use std::marker::PhantomData;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Sends the thread that it was made on from processor to processor.
///
/// ```
/// use std::time::Instant;
/// use pinlane::Processors;
///
/// let mut processors = Processors::of_this_thread(3);
/// let least = (0..3).map(|_| {
///     processors.visit_next();
///     let began = Instant::now();
///     // ... what is measured ...
///     began.elapsed()
/// }).min();
/// # assert!(least.is_some());
/// ```
#[derive(Debug)]
pub struct Processors {
    /// Where the thread may run; `None` where the system does not say.
    allowed: Option<CpuSet>,
    /// The processors to visit, the next one last.
    to_visit: Vec<usize>,
    /// Whether the thread is bound to one.
    is_bound: bool,
    /// It goes where its thread goes.
    stays: PhantomData<*const ()>,
}

impl Processors {
    /// So many of those that the calling thread may run on now, at even distances; fewer where there are fewer.
    #[must_use]
    pub fn of_this_thread(visits: usize) -> Self {
        let allowed = sched_getaffinity(None).ok();
        let numbers: Vec<usize> = match &allowed {
            Some(allowed) => (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect(),
            None => Vec::new(),
        };
        Self {
            allowed,
            to_visit: spread(&numbers, visits),
            is_bound: false,
            stays: PhantomData,
        }
    }

    /// Moves the thread to the next processor; after the last it stays where it is. It may run wherever it could before: the
    /// system may move it on, and threads that it starts run anywhere.
    pub fn visit_next(&mut self) {
        if let Some(next) = self.to_visit.pop() {
            self.bind(next);
        }
        self.free();
    }

    /// A system that refuses has it measured where it is.
    fn bind(&mut self, processor: usize) {
        let mut only = CpuSet::new();
        only.set(processor);
        self.is_bound |= sched_setaffinity(None, &only).is_ok();
    }

    fn free(&mut self) {
        if let Some(allowed) = self.allowed.as_ref().filter(|_| self.is_bound) {
            self.is_bound = sched_setaffinity(None, allowed).is_err();
        }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.free();
        if self.is_bound {
            tracing::warn!(
                "a thread that measured stays bound to a processor: the system does not let it go"
            );
        }
    }
}

/// So many of `numbers` at even distances, the last first.
fn spread(numbers: &[usize], wanted: usize) -> Vec<usize> {
    let wanted = wanted.min(numbers.len());
    (0..wanted)
        .rev()
        .map(|visit| numbers[visit * numbers.len() / wanted])
        .collect()
}

#[cfg(test)]
mod tests {
    use rustix::thread::sched_getcpu;

    use super::*;

    #[test]
    fn visits_are_spread_over_the_processors() {
        let numbers: Vec<usize> = (0..16).collect();
        assert_eq!(spread(&numbers, 5), [12, 9, 6, 3, 0]);
        assert_eq!(spread(&[2, 3], 5), [3, 2]);
        assert!(spread(&[], 5).is_empty());
        assert!(spread(&numbers, 0).is_empty());
    }

    #[test]
    fn a_thread_visits_and_may_run_where_it_could_before() {
        let before = sched_getaffinity(None).unwrap();
        let mut processors = Processors::of_this_thread(usize::MAX);
        assert!(!processors.to_visit.is_empty());
        while let Some(&next) = processors.to_visit.last() {
            processors.bind(next);
            assert_eq!(sched_getcpu(), next);
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
            processors.visit_next();
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        }
        processors.visit_next();
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        processors.bind((0..CpuSet::MAX_CPU).find(|&cpu| before.is_set(cpu)).unwrap());
        drop(processors);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
