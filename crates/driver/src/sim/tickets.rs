//! Tickets: one for each time that someone wants to know when a point in a stream's work is reached.
//!
//! ```text
//! pending ──fire──► fired (reached, or why it never will be)
//! ```
//!
//! A ticket is made when an event is recorded (or a thread synchronises), fires once, and is removed when its last
//! holder lets go. Holders are the event whose latest record it is, the record in the stream's queue, every enqueued
//! wait for it, and every thread that waits. Only the code under the machine's lock touches tickets.

use super::arena::{Arena, Key};
use crate::{
    Error,
    sync::{Arc, Condvar, Instant},
};

/// Why work failed: one value for everything that failed for the same reason.
pub(super) type Failure = Arc<Error>;

/// How a ticket fired.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) at: Instant,
    pub(super) result: Result<(), Failure>,
}

/// Who waits for a ticket that has just fired.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) streams: Vec<Key>,
    pub(super) threads: Option<Arc<Condvar>>,
}

#[derive(Debug)]
struct Ticket {
    holders: u32,
    outcome: Option<Outcome>,
    waiting: Waiting,
}

#[derive(Debug)]
pub(super) struct Tickets(Arena<Ticket>);

impl Tickets {
    pub(super) fn new() -> Self {
        Self(Arena::new())
    }

    /// A pending ticket with that many holders.
    pub(super) fn issue(&mut self, holders: u32) -> Key {
        self.0.insert(Ticket {
            holders,
            outcome: None,
            waiting: Waiting::default(),
        })
    }

    /// Adds a holder.
    pub(super) fn hold(&mut self, ticket: Key) {
        self.held(ticket).holders += 1;
    }

    /// Takes a holder away.
    pub(super) fn release(&mut self, ticket: Key) {
        let held = self.held(ticket);
        held.holders -= 1;
        if held.holders == 0 {
            self.0.remove(ticket);
        }
    }

    pub(super) fn outcome(&self, ticket: Key) -> Option<&Outcome> {
        self.0.get(ticket)?.outcome.as_ref()
    }

    /// Fires, and says who is to be told.
    pub(super) fn fire(&mut self, ticket: Key, outcome: Outcome) -> Waiting {
        let held = self.held(ticket);
        held.outcome = Some(outcome);
        std::mem::take(&mut held.waiting)
    }

    /// Has `stream` told when the ticket fires.
    pub(super) fn tell_stream(&mut self, ticket: Key, stream: Key) {
        let streams = &mut self.held(ticket).waiting.streams;
        if !streams.contains(&stream) {
            streams.push(stream);
        }
    }

    /// What a thread waits on until the ticket fires.
    pub(super) fn tell_thread(&mut self, ticket: Key) -> Arc<Condvar> {
        let threads = &mut self.held(ticket).waiting.threads;
        Arc::clone(threads.get_or_insert_with(|| Arc::new(Condvar::new())))
    }

    fn held(&mut self, ticket: Key) -> &mut Ticket {
        self.0
            .get_mut(ticket)
            .expect("a ticket stays while it has a holder")
    }
}
