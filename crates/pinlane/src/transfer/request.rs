//! From a tree and a destination to jobs: which tensors move at all, between which devices, into what memory.
//!
//! Everything that can be refused is refused before anything moves: all jobs are prepared, then all are started.

use std::{any::Any, collections::HashMap, ptr::NonNull};

use pinlane_driver::{DeviceId, DeviceMemory, DevicePtr, ErrorKind, sync::Arc};

use super::{
    Placement, Transfer, TransferOptions,
    engine::Engine,
    file,
    job::{End, Job},
    plan::{self, Direction, Kind, Leaf, Means, Plan, Region, Regions},
};
use crate::{
    Device, Error, Layout, Result, Tensor, Tree,
    memory::{
        buffer::{self, Buffer},
        storage::{DeviceBlock, Place, Storage},
    },
    tree::{landing, rebuild_from, span_bytes},
};

/// Prepares and starts a transfer. With `blocking`, the caller is about to wait for it.
pub(crate) fn start<T: Tree>(
    tree: &T,
    to: &Device,
    options: &TransferOptions,
    blocking: bool,
) -> Result<Transfer<T>> {
    let (groups, mut outputs) = sort(tree, to)?;
    let mut ready = Vec::with_capacity(groups.len());
    for group in &groups {
        let mut prepared = group.prepare(tree, to, options)?;
        let bases = prepared.allocate(options, &mut outputs)?;
        ready.push((prepared, bases));
    }
    // From here on nothing is refused. There are no jobs before, because one that is dropped unfinished leaks what it
    // keeps.
    let jobs: Vec<_> = ready
        .into_iter()
        .map(|(prepared, bases)| prepared.into_job(bases, options, &outputs))
        .collect();
    let outputs = outputs
        .into_iter()
        .map(|output| output.expect("every group gives its tensors' outputs"));
    let output = rebuild_from(tree, outputs.collect());
    for (device, job) in &jobs {
        let started = device
            .require_accelerator("moving tensors")
            .and_then(|accelerator| accelerator.running.start(job, blocking));
        if let Err(error) = started {
            job.abort(error);
        }
    }
    Ok(Transfer::new(jobs, output))
}

/// The plans of a transfer that is not started.
pub(crate) fn plan<T: Tree>(tree: &T, to: &Device, options: &TransferOptions) -> Result<Vec<Plan>> {
    let (groups, _) = sort(tree, to)?;
    groups
        .iter()
        .map(|group| Ok(group.prepare(tree, to, options)?.plan))
        .collect()
}

/// Tensors that move between the same two places.
struct Group<'a> {
    way: Way,
    /// Each with its number in the tree.
    members: Vec<(usize, &'a Tensor)>,
}

#[derive(Clone, PartialEq, Eq)]
enum Way {
    Upload,
    Download(Device),
    Between(Device),
}

/// Sorts the leaves by the way they go; those that need no copy are outputs already.
fn sort<'a, T: Tree>(tree: &'a T, to: &Device) -> Result<(Vec<Group<'a>>, Vec<Option<Tensor>>)> {
    let mut leaves = Vec::new();
    tree.visit(&mut |tensor| leaves.push(tensor));
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut outputs = vec![None; leaves.len()];
    for (index, &tensor) in leaves.iter().enumerate() {
        let way = match (tensor.storage().place(), to.is_host()) {
            (Place::Host(_), true) => {
                outputs[index] = Some(tensor.clone());
                continue;
            }
            (Place::File(_), true) => {
                outputs[index] = Some(file::read(tensor).map_err(|error| at(tree, index, error))?);
                continue;
            }
            (Place::Device(from), _) if from.device == *to => {
                outputs[index] = Some(tensor.clone());
                continue;
            }
            (Place::Host(_) | Place::File(_), false) => Way::Upload,
            (Place::Device(from), true) => Way::Download(from.device.clone()),
            (Place::Device(from), false) => Way::Between(from.device.clone()),
        };
        // Trees come from one place mostly, so the last group is the one.
        match groups.iter_mut().rev().find(|group| group.way == way) {
            Some(group) => group.members.push((index, tensor)),
            None => groups.push(Group {
                way,
                members: vec![(index, tensor)],
            }),
        }
    }
    Ok((groups, outputs))
}

fn at<T: Tree>(tree: &T, index: usize, error: Error) -> Error {
    Error::Leaf {
        path: tree.path(index),
        source: Box::new(error),
    }
}

/// A planned group, before any memory is taken.
struct Prepared<'a> {
    group: &'a Group<'a>,
    /// The device whose engine moves the bytes, and that engine.
    device: Device,
    engine: Arc<Engine>,
    plan: Plan,
    layouts: Vec<Layout>,
    /// What is moved from the host or a peer; for bytes to the host, filled in when their memory is taken.
    ends: Vec<End>,
    /// The device memory that bytes to the host come from.
    blocks: Vec<Arc<DeviceBlock>>,
}

impl<'a> Group<'a> {
    fn prepare<T: Tree>(&'a self, tree: &T, to: &Device, options: &TransferOptions) -> Result<Prepared<'a>> {
        let device = match &self.way {
            Way::Download(from) => from.clone(),
            Way::Upload | Way::Between(_) => to.clone(),
        };
        let engine = Arc::clone(device.require_accelerator("moving tensors")?.running.engine());
        let _span = tracing::debug_span!("plan", tensors = self.members.len()).entered();
        let id = engine.driver.properties().id;
        let mut sources = Sources::with_capacity(self.members.len());
        for &(index, tensor) in &self.members {
            let taken = match &self.way {
                Way::Upload => sources.take_from_host(tensor, id),
                Way::Download(_) => sources.take_from_device(tensor, options.pinned_result),
                Way::Between(from) => sources.take_from_peer(tensor, from.id(), id),
            };
            taken.map_err(|error| at(tree, index, error))?;
        }
        if let Some(route) = options.route {
            for (&(index, _), leaf) in self.members.iter().zip(&sources.leaves) {
                leaf.kind
                    .check_route(route)
                    .map_err(|error| at(tree, index, error))?;
            }
        }
        let (direction, regions) = match self.way {
            Way::Upload => (Direction::ToDevice, Regions::Lay(options.placement)),
            Way::Between(_) => (Direction::OnDevice, Regions::Lay(options.placement)),
            Way::Download(_) => (Direction::ToHost, Regions::Given(sources.regions)),
        };
        if direction != Direction::ToHost {
            check_fits(&sources.leaves, &engine)?;
        }
        let plan = plan::plan(direction, &sources.leaves, regions, options.route, means(&engine))?;
        let Sources {
            layouts,
            ends,
            blocks,
            ..
        } = sources;
        Ok(Prepared {
            group: self,
            device,
            engine,
            plan,
            layouts,
            ends,
            blocks,
        })
    }
}

/// Refuses what the device could never hold, because its plan might be more than the host can hold.
fn check_fits(leaves: &[Leaf], engine: &Engine) -> Result<()> {
    let device = engine.driver.properties();
    let total = leaves
        .iter()
        .try_fold(0u64, |total, leaf| total.checked_add(leaf.bytes));
    if total.is_some_and(|total| total <= device.memory_bytes) {
        return Ok(());
    }
    let message = format!(
        "{} tensors are larger together than the device's {} bytes; move some of them, or parts",
        leaves.len(),
        device.memory_bytes
    );
    let source = pinlane_driver::Error::new(ErrorKind::OutOfMemory, device.id, message);
    Err(Error::driver("making room for tensors on the device", source))
}

fn means(engine: &Engine) -> Means<'_> {
    Means {
        profile: &engine.profile,
        lanes: engine.profile.lanes,
        slot_bytes: engine.slots.slot_bytes(),
    }
}

/// What the planner and the lanes need to know of a group's sources.
#[derive(Default)]
struct Sources {
    leaves: Vec<Leaf>,
    layouts: Vec<Layout>,
    ends: Vec<End>,
    regions: Vec<Region>,
    blocks: Vec<Arc<DeviceBlock>>,
    /// The number of each block, by its address in memory.
    numbers: HashMap<*const DeviceBlock, u32>,
}

impl Sources {
    fn with_capacity(tensors: usize) -> Self {
        Self {
            leaves: Vec::with_capacity(tensors),
            layouts: Vec::with_capacity(tensors),
            ends: Vec::with_capacity(tensors),
            ..Self::default()
        }
    }

    fn push(&mut self, bytes: usize, kind: Kind, layout: Layout) {
        self.leaves.push(Leaf {
            bytes: bytes as u64,
            kind,
        });
        self.layouts.push(layout);
    }

    fn take_from_host(&mut self, tensor: &Tensor, to: DeviceId) -> Result<()> {
        let (layout, copy) = landing(tensor)?;
        let span = span_bytes(tensor)?;
        match (tensor.storage().place(), copy) {
            (Place::Host(host), Some(copy)) => {
                self.push(copy.bytes(), Kind::Strided, layout);
                self.ends.push(End::Strided(host.ptr().as_ptr(), Box::new(copy)));
            }
            (Place::Host(host), None) => {
                let kind = if host.pinned() == Some(to.backend) {
                    Kind::Pinned
                } else {
                    Kind::Pageable
                };
                self.push(span.len(), kind, layout);
                // SAFETY: the layout was checked against the storage.
                self.ends
                    .push(End::Memory(unsafe { host.ptr().as_ptr().add(span.start) }));
            }
            (Place::File(_), Some(_)) => return Err(file::gaps()),
            (Place::File(source), None) => {
                self.push(span.len(), Kind::File, layout);
                let offset = source.offset + span.start as u64;
                self.ends.push(End::File(Arc::clone(tensor.storage()), offset));
            }
            (Place::Device(_), _) => unreachable!("sorted as coming from the host"),
        }
        Ok(())
    }

    /// A strided view on a device is moved as the span it covers, with its strides.
    fn take_from_device(&mut self, tensor: &Tensor, pinned_result: bool) -> Result<()> {
        let Place::Device(source) = tensor.storage().place() else {
            unreachable!("sorted as on a device")
        };
        let span = span_bytes(tensor)?;
        let kind = if pinned_result {
            Kind::Pinned
        } else {
            Kind::Pageable
        };
        self.push(span.len(), kind, spanning(tensor)?);
        let blocks = &mut self.blocks;
        let allocation = *self
            .numbers
            .entry(Arc::as_ptr(&source.memory))
            .or_insert_with(|| {
                blocks.push(Arc::clone(&source.memory));
                (blocks.len() - 1) as u32
            });
        self.regions.push(Region {
            allocation,
            offset: (source.offset + span.start) as u64,
        });
        Ok(())
    }

    fn take_from_peer(&mut self, tensor: &Tensor, from: Option<DeviceId>, to: DeviceId) -> Result<()> {
        let Place::Device(source) = tensor.storage().place() else {
            unreachable!("sorted as on a device")
        };
        let from = from.unwrap_or(to);
        if from.backend != to.backend {
            return Err(Error::NoPath { from, to });
        }
        let span = span_bytes(tensor)?;
        self.push(span.len(), Kind::Device, spanning(tensor)?);
        let ptr = source.ptr().offset(span.start);
        self.ends.push(if from == to {
            End::Device(ptr)
        } else {
            End::Peer(from, ptr)
        });
        Ok(())
    }
}

/// The tensor's layout, from offset 0 on.
fn spanning(tensor: &Tensor) -> Result<Layout> {
    let layout = tensor.layout();
    Ok(Layout::with_strides(
        layout.shape(),
        layout.strides(),
        0,
        usize::MAX,
    )?)
}

impl Prepared<'_> {
    /// Takes the memory for the results; gives the addresses of the plan's allocations.
    fn allocate(
        &mut self,
        options: &TransferOptions,
        outputs: &mut [Option<Tensor>],
    ) -> Result<Vec<DevicePtr>> {
        let _span = tracing::debug_span!("allocate", bytes = self.plan.bytes()).entered();
        match self.plan.direction() {
            Direction::ToHost => {
                self.allocate_on_host(options, outputs)?;
                Ok(self.blocks.iter().map(|block| block.0.ptr()).collect())
            }
            Direction::ToDevice | Direction::OnDevice => self.allocate_on_device(outputs),
        }
    }

    /// Makes the job, which keeps sources and results.
    fn into_job(
        self,
        bases: Vec<DevicePtr>,
        options: &TransferOptions,
        outputs: &[Option<Tensor>],
    ) -> (Device, Arc<Job>) {
        let members = self.group.members.iter();
        let sources: Vec<_> = members
            .clone()
            .map(|(_, tensor)| Arc::clone(tensor.storage()))
            .collect();
        let results: Vec<_> = members
            .filter_map(|&(index, _)| Some(Arc::clone(outputs[index].as_ref()?.storage())))
            .collect();
        let keep: Box<dyn Any + Send> = Box::new((sources, results));
        let after = options.after.clone();
        let job = Job::new(self.plan, self.ends, bases, after, keep, &self.engine.leaks);
        (self.device, job)
    }

    fn allocate_on_device(&mut self, outputs: &mut [Option<Tensor>]) -> Result<Vec<DevicePtr>> {
        let mut blocks = Vec::with_capacity(self.plan.allocations.len());
        for &bytes in &self.plan.allocations {
            let bytes = usize::try_from(bytes).map_err(|_| Error::HostMemory { bytes: usize::MAX })?;
            let memory = DeviceMemory::new(&self.engine.driver, bytes)
                .map_err(|source| Error::driver("making room for tensors on the device", source))?;
            blocks.push(Arc::new(DeviceBlock(memory)));
        }
        let members = self
            .group
            .members
            .iter()
            .zip(self.layouts.drain(..))
            .zip(&self.plan.regions);
        for ((&(index, tensor), layout), region) in members {
            let block = Arc::clone(&blocks[region.allocation as usize]);
            let bytes = tensor.dtype().bytes_for(layout.span().end)?;
            let storage = Storage::device(self.device.clone(), block, region.offset as usize, bytes);
            outputs[index] = Some(Tensor::new(tensor.dtype(), layout, storage));
        }
        Ok(blocks.iter().map(|block| block.0.ptr()).collect())
    }

    fn allocate_on_host(&mut self, options: &TransferOptions, outputs: &mut [Option<Tensor>]) -> Result<()> {
        let sizes = self.group.members.iter().zip(&self.layouts);
        let sizes = sizes.map(|(&(_, tensor), layout)| Ok(tensor.dtype().bytes_for(layout.span().end)?));
        let sizes = sizes.collect::<Result<Vec<_>>>()?;
        let mut memory = match options.placement {
            Placement::Slab => {
                let total = sizes.iter().try_fold(0usize, |end, &bytes| {
                    end.checked_next_multiple_of(buffer::ALIGNMENT)?
                        .checked_add(bytes)
                });
                let total = total.ok_or(Error::HostMemory { bytes: usize::MAX })?;
                Some(HostSlab::new(&self.device, total, options.pinned_result)?)
            }
            Placement::Separate => None,
        };
        let backend = self
            .device
            .id()
            .filter(|_| options.pinned_result)
            .map(|id| id.backend);
        let mut offset = 0usize;
        let members = self.group.members.iter().zip(self.layouts.drain(..)).zip(sizes);
        for ((&(index, tensor), layout), bytes) in members {
            let slab = match &memory {
                Some(slab) => slab.clone(),
                None => HostSlab::new(&self.device, bytes, options.pinned_result)?,
            };
            // SAFETY: inside the slab, whose size is the sum of what is taken from it.
            let ptr = unsafe { slab.ptr.add(offset) };
            // SAFETY: the range is this storage's alone, and lives as long as the slab; it is initialised when the job
            // has landed, and nobody gets the storage before.
            let storage = unsafe { Storage::host(ptr, bytes, backend, true, slab.keep) };
            outputs[index] = Some(Tensor::new(tensor.dtype(), layout, storage));
            self.ends.push(End::Memory(ptr.as_ptr()));
            if memory.is_some() {
                offset = (offset + bytes).next_multiple_of(buffer::ALIGNMENT);
            }
        }
        memory.take();
        Ok(())
    }
}

/// Host memory for one or many results.
#[derive(Clone)]
struct HostSlab {
    ptr: NonNull<u8>,
    keep: Arc<dyn Any + Send + Sync>,
}

impl HostSlab {
    fn new(device: &Device, bytes: usize, pinned: bool) -> Result<Self> {
        if pinned {
            let lease = device
                .require_accelerator("pinning host memory")?
                .running
                .engine()
                .pool
                .lease(bytes)?;
            Ok(Self {
                ptr: lease.ptr(),
                keep: Arc::new(lease),
            })
        } else {
            let buffer = Buffer::uninit(bytes)?;
            Ok(Self {
                ptr: buffer.ptr(),
                keep: Arc::new(buffer),
            })
        }
    }
}
