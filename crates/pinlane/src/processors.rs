//! The processors that a thread may run on, one after the other: for who measures.
//!
//! Half of a core of a server often works for somebody else: a virtual machine's neighbour on the other hardware thread makes
//! what this one does take a third longer, for seconds or minutes, and nothing tells. Who measures on one processor alone
//! measures the neighbour.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Sends the thread that it belongs to from processor to processor.
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
}

impl Processors {
    /// So many of those that the calling thread may run on, as far apart as can be; fewer where there are fewer.
    #[must_use]
    pub fn of_this_thread(visits: usize) -> Self {
        let allowed = sched_getaffinity(None).ok();
        let numbers: Vec<usize> = match &allowed {
            Some(allowed) => (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect(),
            None => Vec::new(),
        };
        let to_visit = spread(&numbers, visits);
        Self { allowed, to_visit }
    }

    /// Moves the calling thread, which must be the one that this was made for, to the next processor; after the last it stays
    /// where it is. It is not bound there: the system may move it on, and threads that it starts run wherever it may.
    pub fn visit_next(&mut self) {
        let Some((allowed, next)) = self.allowed.as_ref().zip(self.to_visit.pop()) else {
            return;
        };
        let mut only = CpuSet::new();
        only.set(next);
        // A system that refuses measures where it is.
        if sched_setaffinity(None, &only).is_ok()
            && let Err(error) = sched_setaffinity(None, allowed)
        {
            tracing::warn!(%error, processor = next, "a thread that measures stays bound to a processor");
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
        while !processors.to_visit.is_empty() {
            processors.visit_next();
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        }
        processors.visit_next();
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
