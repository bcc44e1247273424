//! A step of a thread, from when it is made until it is dropped.
//!
//! The engine's steps are told in two ways: to sessions, and as spans of `tracing` to whoever listens there. The macro of
//! this module does both.

use std::marker::PhantomData;

use pinlane_driver::{fork, sync::Instant};

use super::log::{self, Record, Step};
use crate::Route;

/// A step of this thread, from when it is made until it is dropped. Steps lie within each other, as the blocks of code do.
#[must_use = "a span lasts until it is dropped"]
#[derive(Debug)]
pub struct Span {
    /// There while a session is open.
    step: Option<Step>,
    /// It ends on the thread that it began on.
    stays: PhantomData<*const ()>,
}

/// Begins a step of the program's own. It stands in traces and tables under `name`, around the engine's steps in it.
pub fn span(name: &'static str) -> Span {
    Span::begin(name, None)
}

impl Span {
    #[inline]
    pub(crate) fn begin(name: &'static str, bytes: Option<u64>) -> Self {
        let is_wanted = super::steps_are_wanted() && !fork::is_child();
        Self {
            step: is_wanted.then(|| Step::new(name, bytes, Instant::now())),
            stays: PhantomData,
        }
    }

    /// Says how many bytes the step moves, and by which route: one of the engine's, or the program's own word.
    pub fn moving(mut self, bytes: u64, route: &'static str) -> Self {
        if let Some(step) = &mut self.step {
            step.bytes = Some(bytes);
            step.route = Some(route);
        }
        self
    }

    #[inline]
    pub(crate) fn on_lane(mut self, route: Route, lane: usize) -> Self {
        if let Some(step) = &mut self.step {
            step.route = Some(route.name());
            step.lane = u32::try_from(lane).ok();
        }
        self
    }

    /// Says how many bytes the step moves, where it is known only now.
    pub fn set_bytes(&mut self, bytes: u64) {
        if let Some(step) = &mut self.step {
            step.bytes = Some(bytes);
        }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut step) = self.step.take() {
            step.end = Instant::now();
            log::write(Record::Step(step));
        }
    }
}

/// A step of the engine, told to sessions and to `tracing`.
pub(crate) struct Told {
    span: Span,
    entered: tracing::span::EnteredSpan,
}

impl Told {
    pub(crate) fn new(entered: tracing::span::EnteredSpan, span: Span) -> Self {
        Self { span, entered }
    }

    pub(crate) fn set_bytes(&mut self, bytes: u64) {
        self.span.set_bytes(bytes);
        self.entered.record("bytes", bytes);
    }
}

/// Begins a step of the engine: `span!("wait", bytes)`, `span!("fill", bytes, route, lane)`, or, where the bytes are known later
/// only, `span!("plan", tensors: count)`.
macro_rules! engine_span {
    ($name:literal, tensors: $tensors:expr) => {
        $crate::trace::span::Told::new(
            tracing::debug_span!($name, tensors = $tensors, bytes = tracing::field::Empty).entered(),
            $crate::trace::span::Span::begin($name, None),
        )
    };
    ($name:literal, $bytes:expr) => {{
        let bytes = $bytes as u64;
        $crate::trace::span::Told::new(
            tracing::debug_span!($name, bytes).entered(),
            $crate::trace::span::Span::begin($name, Some(bytes)),
        )
    }};
    ($name:literal, $bytes:expr, $route:expr, $lane:expr) => {{
        let (bytes, route, lane) = ($bytes as u64, $route, $lane);
        $crate::trace::span::Told::new(
            tracing::debug_span!($name, bytes, %route, lane).entered(),
            $crate::trace::span::Span::begin($name, Some(bytes)).on_lane(route, lane),
        )
    }};
}

pub(crate) use engine_span;
