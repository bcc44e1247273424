//! A run: the link's limit, the figures, the grid, and the figures that follow from it.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use pinlane::ProfileOrigin;
use pinlane_guide::device::Accelerator;

use crate::{
    cell::{Axes, Cell},
    document::{Document, Failure, SCHEMA},
    error::{Error, Result},
    figures::{self, Context, Figure, Scale},
    grid, link,
    machine::Machine,
    peers::Peers,
    rig::Rig,
    rounds::Effort,
    select::Selection,
};

/// Told how the run goes along.
pub trait Observer {
    /// A cell or figure begins, `done` of `all` are behind.
    fn started(&self, id: &str, done: usize, all: usize);
}

/// What was asked for. What is not said follows from the device and from `quick`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Content with rough figures of less.
    pub quick: bool,
    /// Only what these words name; see [`Selection::of`].
    pub only: Vec<String>,
    /// Only these parts of the grid.
    pub axes: AxesOptions,
    /// No cell begins after this time, counted from the first.
    pub grid_time: Option<Duration>,
    /// The bytes that `pinned-peak` moves.
    pub peak_bytes: Option<u64>,
    /// Peers that were measured elsewhere.
    pub peers: Peers,
    /// Which commit is measured.
    pub commit: Option<String>,
    /// What the sizes of the figures are divided by on a simulated device.
    pub scale: Option<Scale>,
}

/// Parts of the grid; all of it where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct AxesOptions {
    /// The cells of these directions.
    pub directions: Vec<crate::cell::Direction>,
    /// The cells of these kinds of memory.
    pub memory: Vec<crate::cell::Memory>,
    /// The cells with tensors of so many bytes.
    pub sizes: Vec<usize>,
    /// The cells with so many tensors.
    pub counts: Vec<usize>,
    /// The cells of at most so many bytes in all.
    pub max_bytes: Option<usize>,
}

/// A run, checked: what it names exists.
#[derive(Debug)]
pub struct Bench {
    accelerator: Accelerator,
    selection: Selection,
    options: Options,
    scale: Scale,
}

impl Bench {
    /// Checks what was asked for against the device.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`], [`Error::Word`] for sizes and counts that can't be, and [`Error::NoCells`].
    pub fn new(accelerator: Accelerator, options: Options) -> Result<Self> {
        let simulated = accelerator.driver.properties().simulated;
        let axes = options.axes.settle(simulated, options.quick);
        axes.check()?;
        let cells = axes.cells();
        if cells.is_empty() {
            return Err(Error::NoCells {
                max_bytes: axes.max_bytes,
            });
        }
        let scale = match (simulated, options.scale) {
            (false, _) => Scale(1),
            (true, scale) => scale.unwrap_or(Scale(if options.quick { 1024 } else { 64 })),
        };
        Ok(Self {
            selection: Selection::of(&options.only, &cells)?,
            accelerator,
            options,
            scale,
        })
    }

    /// What is to run.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The device.
    #[must_use]
    pub fn accelerator(&self) -> &Accelerator {
        &self.accelerator
    }

    /// Runs it and tells `observer` of each step. A cell or a figure that fails is told in the document and does not
    /// stop the others.
    ///
    /// # Errors
    ///
    /// Where nothing can be measured at all: there is no room, or the link does not work.
    pub fn run(&self, observer: &dyn Observer) -> Result<Document> {
        let properties = self.accelerator.driver.properties();
        let began = Timestamp::now();
        let alone: Vec<_> = figures::ALL
            .iter()
            .filter(|spec| self.selection.has(spec) && !spec.needs_grid())
            .collect();
        let steps = alone.len() + self.selection.cells.len();

        let rig = self.rig()?;
        observer.started("link", 0, steps);
        let link = link::measure(rig.roomy(), self.scale.bytes(256 << 20))?;
        let context = Context {
            rig: &rig,
            link: &link,
            peers: &self.options.peers,
            effort: self.figure_effort(),
            scale: self.scale,
            peak_bytes: self.peak_bytes(),
        };
        let mut failures = Vec::new();
        let mut found: Vec<Figure> = Vec::new();
        for (done, spec) in alone.into_iter().enumerate() {
            observer.started(spec.id, done, steps);
            match spec.measure(&context) {
                Ok(figure) => found.extend(figure),
                Err(error) => failures.push(Failure::of(spec.id, &error)),
            }
        }
        let before = steps - self.selection.cells.len();
        let grid::Outcome {
            reports: cells,
            failures: failed,
            left: cells_left,
        } = grid::measure_all(
            &rig,
            &self.selection.cells,
            self.cell_effort(),
            self.grid_time(),
            |cell, done| observer.started(&cell.to_string(), before + done, steps),
        );
        failures.extend(failed);
        let planned = self.selection.cells.len() + self.left_out();
        let over = figures::ALL.iter().filter(|spec| self.selection.has(spec));
        found.extend(over.filter_map(|spec| spec.over(&cells, planned)));
        let order = |figure: &Figure| figures::ALL.iter().position(|spec| spec.id == figure.id);
        found.sort_by_key(order);
        if properties.simulated {
            // What is asked is asked of hardware.
            found.iter_mut().for_each(|figure| figure.holds = None);
        }
        Ok(Document {
            schema: SCHEMA,
            pinlane: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::this(properties),
            profile: match rig.profile().origin {
                ProfileOrigin::Stored(_) => "measured".to_owned(),
                _ => "assumed".to_owned(),
            },
            simulated: properties.simulated,
            quick: self.options.quick,
            date: began.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            commit: self.options.commit.clone(),
            link,
            cells,
            foreseen: Vec::new(),
            cells_left,
            figures: found,
            failures,
        })
    }

    /// Room for whatever is to run.
    fn rig(&self) -> Result<Rig> {
        let mut largest: Vec<Cell> = self.selection.cells.clone();
        if !self.selection.figures.is_empty() {
            largest.extend(figures::work::all(self.scale));
        }
        Rig::new(&self.accelerator, &largest)
    }

    /// How many cells of the whole grid were not asked for: what follows from all of them does not follow from a part.
    fn left_out(&self) -> usize {
        let simulated = self.accelerator.driver.properties().simulated;
        let whole = AxesOptions::default()
            .settle(simulated, self.options.quick)
            .cells();
        let chosen: HashSet<Cell> = self.selection.cells.iter().copied().collect();
        whole.iter().filter(|cell| !chosen.contains(cell)).count()
    }

    fn cell_effort(&self) -> Effort {
        Effort {
            budget: Duration::from_millis(if self.options.quick { 30 } else { 200 }),
            least: 3,
            most: 500,
            hopeless: Some(3.0),
        }
    }

    fn figure_effort(&self) -> Effort {
        Effort {
            budget: Duration::from_millis(if self.options.quick { 300 } else { 1500 }),
            least: if self.options.quick { 3 } else { 5 },
            most: 2000,
            hopeless: None,
        }
    }

    fn grid_time(&self) -> Duration {
        let usual = Duration::from_secs(if self.options.quick { 40 } else { 240 });
        self.options.grid_time.unwrap_or(usual)
    }

    fn peak_bytes(&self) -> u64 {
        let usual = match (self.scale, self.options.quick) {
            (Scale(1), false) => 1_000_000_000_000,
            (Scale(1), true) => 100_000_000_000,
            (scale, _) => 4 * scale.bytes(1 << 30) as u64,
        };
        self.options.peak_bytes.unwrap_or(usual)
    }
}

impl AxesOptions {
    /// What was asked for, and for the rest what fits the device: a simulated one shows no more by moving more.
    fn settle(&self, simulated: bool, quick: bool) -> Axes {
        let usual = match (simulated, quick) {
            (false, false) => 4 << 30,
            (false, true) => 256 << 20,
            (true, false) => 16 << 20,
            (true, true) => 256 << 10,
        };
        let most_tensors = match (simulated, quick) {
            (false, false) => 100_000,
            (false, true) => 10_000,
            (true, false) => 1000,
            (true, true) => 100,
        };
        let mut axes = Axes::all(self.max_bytes.unwrap_or(usual));
        axes.counts.retain(|count| *count <= most_tensors);
        let choose = |asked: &[usize], all: &mut Vec<usize>| {
            if !asked.is_empty() {
                *all = asked.to_vec();
            }
        };
        choose(&self.sizes, &mut axes.sizes);
        choose(&self.counts, &mut axes.counts);
        if !self.directions.is_empty() {
            axes.directions.clone_from(&self.directions);
        }
        if !self.memory.is_empty() {
            axes.memory.clone_from(&self.memory);
        }
        axes
    }
}
