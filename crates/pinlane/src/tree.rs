//! Trees: whatever holds tensors and moves as one.

use crate::{
    Device, Error, FileSink, Plan, Result, Tensor, Transfer, TransferOptions,
    error::Failure,
    memory::list::{self, List},
    transfer::{
        flights::Flights,
        into::{Destinations, Seized},
        outputs::Outputs,
        pin::pin,
        request::Request,
        short,
        write::write,
    },
};

/// A tensor, or something that holds tensors in a fixed order, and that moves as one transfer.
///
/// Implemented for [`Tensor`], [`TensorMap`](crate::TensorMap), vectors, arrays, options and tuples of trees; implement
/// it for a batch of your own with the two required methods.
///
/// What moves keeps dtype, shape and, where its elements fill their memory without gaps, strides. Other strided tensors
/// of the host arrive contiguous; those of a device arrive with their strides, and what lies between their elements comes
/// along. Tensors that are where they should be already are shared, not copied.
///
/// ```
/// use pinlane::{DType, Device, Tensor, Tree};
///
/// struct Batch { images: Tensor, labels: Tensor }
///
/// impl Tree for Batch {
///     fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
///         visit(&self.images);
///         visit(&self.labels);
///     }
///     fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
///         Self { images: next(), labels: next() }
///     }
/// }
///
/// let device = Device::open("sim:0")?;
/// let batch = Batch {
///     images: Tensor::rand(DType::F32, &[8, 3, 32, 32], 1)?,
///     labels: Tensor::zeros(DType::I64, &[8])?,
/// };
/// let there = batch.to(&device)?;
/// assert_eq!(there.images.device(), device);
/// # Ok::<(), pinlane::Error>(())
/// ```
pub trait Tree: Sized {
    /// Calls `visit` with each tensor, always in the same order.
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor));

    /// The same tree with other tensors: calls `next` once for each tensor, in the order of [`visit`](Self::visit).
    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self;

    /// Calls `visit` with each tensor to be changed, in the order of [`visit`](Self::visit), and says whether the tree does so
    /// at all: what is moved [into](Self::copy_into) a tree has to reach its tensors. By default it does not.
    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        let _ = visit;
        false
    }

    /// Whether [`path`](Self::path) gives the names that tensors have in the tree. When a tree is moved
    /// [into](Self::copy_into) another, the names have to be the same.
    fn has_names(&self) -> bool {
        false
    }

    /// What to call the tensor that is visited as number `index`, in errors.
    fn path(&self, index: usize) -> String {
        format!("#{index}")
    }

    /// Moves the tree to `device` and waits until it is there.
    ///
    /// A tree of many small tensors that comes to the host may stay in pinned memory, the slot that it lands in, as long as a
    /// tensor of it is kept; a quarter of the slots are lent like this, and the rest goes on to pageable memory.
    ///
    /// # Errors
    ///
    /// As for [`transfer_with`](Self::transfer_with), and what fails while the bytes move.
    fn to(&self, device: &Device) -> Result<Self> {
        self.to_with(device, &TransferOptions::default())
    }

    /// [`to`](Self::to) with a choice of route, placement and order.
    ///
    /// # Errors
    ///
    /// As for [`to`](Self::to).
    fn to_with(&self, device: &Device, options: &TransferOptions) -> Result<Self> {
        if let Some(tensor) = only_leaf(self)
            && let Some(moved) = short::move_to(tensor, device, options)
        {
            return moved.map(|moved| rebuild_around(self, moved));
        }
        move_now(self, device, options)
    }

    /// Starts moving the tree to `device`. The result is had from the [`Transfer`] when it has landed. Tensors that go from
    /// files to the host are read before this returns: there is no device that could do it meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`transfer_with`](Self::transfer_with).
    fn transfer(&self, device: &Device) -> Result<Transfer<Self>> {
        self.transfer_with(device, &TransferOptions::default())
    }

    /// [`transfer`](Self::transfer) with a choice of route, placement and order.
    ///
    /// # Errors
    ///
    /// [`Error::Leaf`] names a tensor that can't be moved, and why; [`Error::Driver`] where the destination has no
    /// room, for one. Nothing has moved then, and nothing is held.
    fn transfer_with(&self, device: &Device, options: &TransferOptions) -> Result<Transfer<Self>> {
        start(self, device, options)
    }

    /// Moves the tree's bytes into the tensors of `into`, which exist already, and waits until they are there. The tensors
    /// of both go pairwise, in order, and must have the same dtype and shape; those of `into` must be contiguous, on one
    /// device or the host, and nobody else's.
    ///
    /// ```
    /// use pinlane::{DType, Device, Tensor, Tree};
    ///
    /// let device = Device::open("sim:0")?;
    /// let weights = Tensor::randn(DType::F32, &[64, 64], 1)?;
    /// let mut there = Tensor::zeros(DType::F32, &[64, 64])?.to(&device)?;
    /// weights.copy_into(&mut there)?; // nothing is allocated
    /// let mut back = Tensor::zeros(DType::F32, &[64, 64])?;
    /// there.copy_into(&mut back)?;
    /// assert_eq!(back.as_slice::<f32>()?, weights.as_slice::<f32>()?);
    /// # Ok::<(), pinlane::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Leaf`] names a tensor that does not fit its place ([`Error::Unsupported`], [`Error::NotContiguous`]), or
    /// whose place someone else could read ([`Error::Shared`]): nothing has moved then. After any other error the tensors
    /// of `into` hold neither the old bytes nor the new, and can't be read ([`Error::NotLanded`]).
    fn copy_into(&self, into: &mut Self) -> Result<()> {
        if let Some(tensor) = only_leaf(self)
            && only_leaf(into).is_some()
        {
            let mut copied = None;
            into.visit_mut(&mut |place| copied = short::copy_into(tensor, place));
            if let Some(copied) = copied {
                return copied;
            }
        }
        self.copy_into_with(into, &TransferOptions::default())
    }

    /// [`copy_into`](Self::copy_into) with a choice of route and order.
    ///
    /// # Errors
    ///
    /// As for [`copy_into`](Self::copy_into).
    fn copy_into_with(&self, into: &mut Self, options: &TransferOptions) -> Result<()> {
        copy_now(self, into, options)
    }

    /// Starts moving the tree's bytes into the tensors of `into`, and gives `into` back when they have landed.
    ///
    /// # Errors
    ///
    /// As for [`copy_into`](Self::copy_into); `into` is dropped then.
    fn transfer_into(&self, mut into: Self, options: &TransferOptions) -> Result<Transfer<Self>> {
        let leaves = leaves(self);
        let flights = start_into(self, &leaves, &mut into, options, |request| request.start())?;
        Ok(Transfer::new(flights, into))
    }

    /// Writes the tree's tensors to files, wherever they are: each its elements in row-major order, from an offset of a file
    /// on. Returns when all is written, which is not yet to say that it is on the disk: [`FileSink::sync`] sees to that.
    /// Those of devices go through slots, so that no more host memory is used however many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Leaf`] names a tensor that could not be written, around [`Error::File`] with the file and the offset, or that
    /// reaches behind the end of its file ([`Error::Unsupported`]). What the files hold then is undefined.
    fn write_to(&self, places: &[(FileSink, u64)]) -> Result<()> {
        self.write_to_with(places, &TransferOptions::default())
    }

    /// [`write_to`](Self::write_to) with a choice of route and order.
    ///
    /// # Errors
    ///
    /// As for [`write_to`](Self::write_to).
    fn write_to_with(&self, places: &[(FileSink, u64)], options: &TransferOptions) -> Result<()> {
        write(&leaves(self), &|index| self.path(index), places, options)
    }

    /// How the tree would be moved, and why: one plan for each pair of devices that bytes move between.
    ///
    /// # Errors
    ///
    /// [`Error::Leaf`] as for [`transfer_with`](Self::transfer_with).
    fn plan(&self, device: &Device, options: &TransferOptions) -> Result<Vec<Plan>> {
        let request = Request {
            leaves: &leaves(self),
            path: &|index| self.path(index),
            to: device,
            into: None,
            options,
        };
        request.plan()
    }

    /// The tree in host memory that `device` reaches by itself. Blocks while the bytes are copied, by several threads where they
    /// are many.
    ///
    /// # Errors
    ///
    /// [`Error::Leaf`] around [`Error::PinnedBudget`] or, for a tensor on a device, [`Error::NotOnHost`].
    fn pin_memory(&self, device: &Device) -> Result<Self> {
        let named = |failure: Failure| -> Error { failure.named(|index| self.path(index)) };
        let pinned = pin(&leaves(self), device).map_err(named)?;
        Ok(rebuild_from(self, pinned))
    }

    /// Whether every tensor lies in pinned host memory.
    fn is_pinned(&self) -> bool {
        let mut all = true;
        self.visit(&mut |tensor| all &= tensor.is_pinned());
        all
    }
}

/// Visits the tensors of all trees, to be changed; says whether every tree lets them be.
fn visit_all<T: Tree>(trees: &mut [T], visit: &mut dyn FnMut(&mut Tensor)) -> bool {
    trees.iter_mut().all(|tree| tree.visit_mut(visit))
}

/// The tensor of a tree that has no other.
fn only_leaf<T: Tree>(tree: &T) -> Option<&Tensor> {
    let (mut only, mut count) = (None, 0);
    tree.visit(&mut |tensor| {
        only = Some(tensor);
        count += 1;
    });
    only.filter(|_| count == 1)
}

/// The tensors of a tree, in order.
fn leaves<T: Tree>(tree: &T) -> List<&Tensor> {
    let mut leaves = list::empty();
    tree.visit(&mut |tensor| leaves.push(tensor));
    leaves
}

/// `tree` with `tensor` in place of the only one that it has.
fn rebuild_around<T: Tree>(tree: &T, tensor: Tensor) -> T {
    let mut tensor = Some(tensor);
    tree.rebuild(&mut || {
        tensor
            .take()
            .expect("`rebuild` asks once for each tensor that `visit` visits, and there is one")
    })
}

/// `tree` with `tensors` in place of its own, one for each.
fn rebuild_from<T: Tree>(tree: &T, tensors: impl IntoIterator<Item = Tensor>) -> T {
    let mut tensors = tensors.into_iter();
    tree.rebuild(&mut || {
        tensors
            .next()
            .expect("`rebuild` asks once for each tensor that `visit` visits")
    })
}

fn start<T: Tree>(tree: &T, device: &Device, options: &TransferOptions) -> Result<Transfer<T>> {
    let leaves = leaves(tree);
    let request = Request {
        leaves: &leaves,
        path: &|index| tree.path(index),
        to: device,
        into: None,
        options,
    };
    let (flights, outputs) = request.start()?;
    Ok(Transfer::new(flights, rebuild_from(tree, outputs.in_order())))
}

/// Moves `tree`; nobody but this sees the result before it has landed.
fn move_now<T: Tree>(tree: &T, device: &Device, options: &TransferOptions) -> Result<T> {
    let leaves = leaves(tree);
    let request = Request {
        leaves: &leaves,
        path: &|index| tree.path(index),
        to: device,
        into: None,
        options,
    };
    let (mut flights, outputs) = request.start_waited()?;
    let landed = flights.land();
    landed.map_err(|failure| failure.named(|leaf| tree.path(leaf)))?;
    Ok(rebuild_from(tree, outputs.in_order()))
}

fn copy_now<T: Tree>(tree: &T, into: &mut T, options: &TransferOptions) -> Result<()> {
    let leaves = leaves(tree);
    let mut flights = start_into(tree, &leaves, into, options, |request| request.start_waited())?;
    let landed = flights.land();
    landed.map_err(|failure| failure.named(|leaf| tree.path(leaf)))
}

/// Starts, by `start`, to move the `leaves` of `tree` into those of `into`.
fn start_into<'a, 'f, T: Tree>(
    tree: &T,
    leaves: &'a [&'a Tensor],
    into: &mut T,
    options: &TransferOptions,
    start: impl FnOnce(&Request<'a, '_>) -> Result<(Flights<'f>, Outputs)>,
) -> Result<Flights<'f>> {
    let seized = Seized::of(into, leaves.len())?;
    let started = {
        let path = |index| into.path(index);
        let path: Option<&dyn Fn(usize) -> String> = if into.has_names() { Some(&path) } else { None };
        Destinations::new(leaves, seized.places(), path).and_then(|destinations| {
            let request = Request {
                leaves,
                path: &|index| tree.path(index),
                to: &destinations.device()?,
                into: Some(destinations),
                options,
            };
            Ok(start(&request)?.0)
        })
    };
    match started {
        Ok(mut flights) => {
            flights.then_set(seized.landing());
            Ok(flights)
        }
        Err(error) => {
            seized.give_back(into);
            Err(error)
        }
    }
}

impl Tree for Tensor {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        visit(self);
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        next()
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        visit(self);
        true
    }

    fn path(&self, _index: usize) -> String {
        format!("{} {:?}", self.dtype(), self.shape())
    }
}

impl<T: Tree> Tree for Vec<T> {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        self.iter().for_each(|tree| tree.visit(visit));
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        self.iter().map(|tree| tree.rebuild(next)).collect()
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        visit_all(self, visit)
    }
}

impl<T: Tree, const N: usize> Tree for [T; N] {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        self.iter().for_each(|tree| tree.visit(visit));
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        self.each_ref().map(|tree| tree.rebuild(next))
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        visit_all(self, visit)
    }
}

impl<T: Tree> Tree for Option<T> {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        self.iter().for_each(|tree| tree.visit(visit));
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        self.as_ref().map(|tree| tree.rebuild(next))
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        self.as_mut().is_none_or(|tree| tree.visit_mut(visit))
    }
}

impl Tree for () {
    fn visit<'a>(&'a self, _visit: &mut dyn FnMut(&'a Tensor)) {}

    fn rebuild(&self, _next: &mut dyn FnMut() -> Tensor) -> Self {}

    fn visit_mut(&mut self, _visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        true
    }
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))*) => {$(
        impl<$($name: Tree),+> Tree for ($($name,)+) {
            fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
                $(self.$index.visit(visit);)+
            }

            fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
                ($(self.$index.rebuild(next),)+)
            }

            fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
                // Each is visited, whatever the others say.
                [$(self.$index.visit_mut(visit)),+].iter().all(|&visited| visited)
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
}
