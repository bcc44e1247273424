//! An iterator that stays ahead of its consumer.

use std::{collections::VecDeque, iter::FusedIterator};

use crate::{Device, Error, Result, Transfer, Tree};

/// What a prefetched source yields: a tree, or a result with a tree in it.
pub trait Fetch {
    /// The tree that moves.
    type Batch: Tree;

    /// The tree, or why there is none.
    ///
    /// # Errors
    ///
    /// The source's own error as [`Error::Source`].
    fn fetch(self) -> Result<Self::Batch>;
}

impl<T: Tree> Fetch for T {
    type Batch = T;

    fn fetch(self) -> Result<T> {
        Ok(self)
    }
}

impl<T: Tree, E: Into<Box<dyn std::error::Error + Send + Sync>>> Fetch for Result<T, E> {
    type Batch = T;

    fn fetch(self) -> Result<T> {
        self.map_err(|error| Error::Source(error.into()))
    }
}

/// Moves what `source` yields to `device`, `depth` batches (at least one) ahead of who consumes them.
///
/// Each call of `next` waits for the oldest batch, starts moving as many new ones, and returns: they move while the
/// consumer works. The source is asked on the consumer's thread. Its errors, and those of transfers, come in the order
/// of the batches. Dropping the iterator early leaves nothing behind.
///
/// ```
/// use pinlane::{DType, Device, Tensor, prefetch};
///
/// let device = Device::open("sim:0")?;
/// let batches = (0..4).map(|seed| Tensor::rand(DType::F32, &[64, 64], seed));
/// for batch in prefetch(batches, &device, 2) {
///     let batch = batch?;
///     assert_eq!(batch.device(), device);
/// }
/// # Ok::<(), pinlane::Error>(())
/// ```
pub fn prefetch<I>(source: I, device: &Device, depth: usize) -> Prefetch<I::IntoIter>
where
    I: IntoIterator,
    I::Item: Fetch,
{
    Prefetch {
        source: source.into_iter().fuse(),
        device: device.clone(),
        depth: depth.max(1),
        ahead: VecDeque::new(),
    }
}

/// The iterator that [`prefetch`] makes.
#[derive(Debug)]
pub struct Prefetch<I: Iterator>
where
    I::Item: Fetch,
{
    source: std::iter::Fuse<I>,
    device: Device,
    depth: usize,
    ahead: VecDeque<Result<Transfer<<I::Item as Fetch>::Batch>>>,
}

impl<I: Iterator> Prefetch<I>
where
    I::Item: Fetch,
{
    /// Has as many batches on their way as there may be.
    pub(crate) fn top_up(&mut self) {
        while self.ahead.len() < self.depth
            && let Some(item) = self.source.next()
        {
            self.ahead
                .push_back(item.fetch().and_then(|batch| batch.transfer(&self.device)));
        }
    }
}

impl<I: Iterator> Iterator for Prefetch<I>
where
    I::Item: Fetch,
{
    type Item = Result<<I::Item as Fetch>::Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.top_up();
        let landed = self.ahead.pop_front()?.and_then(Transfer::wait);
        self.top_up();
        Some(landed)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (low, high) = self.source.size_hint();
        let ahead = self.ahead.len();
        (
            low.saturating_add(ahead),
            high.and_then(|high| high.checked_add(ahead)),
        )
    }
}

impl<I: ExactSizeIterator> ExactSizeIterator for Prefetch<I> where I::Item: Fetch {}
impl<I: Iterator> FusedIterator for Prefetch<I> where I::Item: Fetch {}
