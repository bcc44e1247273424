//! What a caller may choose of a transfer.

use pinlane_driver::{Event, sync::Arc};

use super::{Placement, Route};

/// How a tree is to be moved, where the planner's choice is not wanted.
///
/// ```
/// use pinlane::{DType, Device, Placement, Route, Tensor, TransferOptions, Tree};
///
/// let device = Device::open("sim:0")?;
/// let tensors = vec![Tensor::zeros(DType::F32, &[1000])?; 10];
/// let plainly = TransferOptions::new().route(Route::Plain).placement(Placement::Separate);
/// let there = tensors.to_with(&device, &plainly)?;
/// assert_eq!(there.len(), 10);
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TransferOptions {
    pub(crate) route: Option<Route>,
    pub(crate) placement: Placement,
    pub(crate) pinned_result: bool,
    pub(crate) after: Option<Arc<Event>>,
}

impl TransferOptions {
    /// The planner's choice of everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every byte by this route.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.route = Some(route);
        self
    }

    /// Where the results lie: all in one allocation, or each in its own.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Results on the host lie in pinned memory, out of the source device's budget.
    #[must_use]
    pub fn pinned_result(mut self) -> Self {
        self.pinned_result = true;
        self
    }

    /// No copy starts before this event has fired: an event of the caller's stream that still works on memory of a device.
    /// What lies on the host may be read before.
    #[must_use]
    pub fn after(mut self, event: Arc<Event>) -> Self {
        self.after = Some(event);
        self
    }
}
