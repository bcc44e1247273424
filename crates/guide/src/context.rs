//! What an experiment works with: the device both ways, the tensors, the time it may take.

use pinlane::{Device, Plan, Tensor, TransferOptions, Tree};
use pinlane_driver::{Driver, sync::Arc};

use crate::{
    error::Result,
    outcome::{Figure, Landed, Owner, Row},
    plain::{DeviceBlock, Plain},
    run::{Guide, Observer},
    timer::{self, Budget, Measurement},
    workload::Workload,
};

/// What an experiment works with. Each experiment gets a new one, with empty caches of its plain ways.
pub struct Context<'a> {
    /// The device, for pinlane's way.
    pub device: &'a Device,
    /// The device, for the guide's ways.
    pub plain: Plain,
    /// The tensors to move.
    pub workload: &'a Workload,
    driver: &'a Arc<dyn Driver>,
    quick: bool,
    observer: &'a dyn Observer,
}

impl<'a> Context<'a> {
    /// A fresh start for one experiment of `guide`.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn new(guide: &'a Guide, observer: &'a dyn Observer) -> Result<Self> {
        Ok(Self {
            device: &guide.accelerator.device,
            driver: &guide.accelerator.driver,
            plain: Plain::new(&guide.accelerator.driver)?,
            workload: &guide.workload,
            quick: guide.quick,
            observer,
        })
    }

    /// The device's driver.
    #[must_use]
    pub fn driver(&self) -> &'a Arc<dyn Driver> {
        self.driver
    }

    /// The first for a quick run, the second for a full one.
    #[must_use]
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Starts the rows of an experiment.
    #[must_use]
    pub fn ways(&self) -> Ways<'_> {
        Ways {
            context: self,
            group: String::new(),
            rows: Vec::new(),
        }
    }

    /// Whether the guide's way has landed every byte of `sources`.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn plain_holds(&self, landed: &[DeviceBlock], sources: &[&[u8]]) -> Result<bool> {
        let mut holds = landed.len() == sources.len();
        for (block, source) in landed.iter().zip(sources) {
            holds &= self.plain.holds(block, source)?;
        }
        Ok(holds)
    }

    /// Whether pinlane's way has landed every byte of `sources`.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn engine_holds(&self, landed: &[Tensor], sources: &[&[u8]]) -> Result<bool> {
        let mut holds = landed.len() == sources.len();
        for (tensor, source) in landed.iter().zip(sources) {
            holds &= tensor.to(&Device::host())?.as_bytes()? == *source;
        }
        Ok(holds)
    }
}

/// The rows of an experiment while it runs.
pub struct Ways<'a> {
    context: &'a Context<'a>,
    group: String,
    rows: Vec<Row>,
}

impl Ways<'_> {
    /// The rows from here on do the same work.
    pub fn group(&mut self, group: impl Into<String>) {
        self.group = group.into();
    }

    /// Times a way. Its first run is not timed: `check` says whether that run's result holds the right bytes.
    ///
    /// # Errors
    ///
    /// The first error of either.
    pub fn time<T>(
        &mut self,
        owner: Owner,
        way: &str,
        mut run: impl FnMut() -> Result<T>,
        check: impl FnOnce(&T) -> Result<bool>,
    ) -> Result<Measurement> {
        self.begin(way);
        let landed = Landed::of_check(check(&run()?)?);
        self.measure(owner, way, run, landed)
    }

    /// Times pinlane's way of moving `tree` to a device, as [`time`](Self::time) does, beside what its plan foresees.
    ///
    /// # Errors
    ///
    /// What the engine says, and what `check` does.
    pub fn time_moving<T: Tree>(
        &mut self,
        way: &str,
        tree: &T,
        to: &Device,
        check: impl FnOnce(&T) -> Result<bool>,
    ) -> Result<Measurement> {
        let plans = tree.plan(to, &TransferOptions::new())?;
        let measured = self.time(Owner::Pinlane, way, || Ok(tree.to(to)?), check)?;
        let predicted = Plan::predicted_together(&plans).as_secs_f64();
        if let Some(row) = self.rows.last_mut() {
            row.predicted_seconds = Some(predicted);
        }
        Ok(measured)
    }

    /// Times a way that moves no bytes, so that there is nothing to check.
    ///
    /// # Errors
    ///
    /// The first error of `run`.
    pub fn time_unchecked<T>(
        &mut self,
        owner: Owner,
        way: &str,
        run: impl FnMut() -> Result<T>,
    ) -> Result<Measurement> {
        self.begin(way);
        self.measure(owner, way, run, Landed::Nothing)
    }

    fn measure<T>(
        &mut self,
        owner: Owner,
        way: &str,
        run: impl FnMut() -> Result<T>,
        landed: Landed,
    ) -> Result<Measurement> {
        let budget = self.context.pick(Budget::QUICK, Budget::FULL);
        let measurement = timer::measure(budget, run)?;
        self.add(owner, way, Figure::Time(measurement.clone()), landed);
        Ok(measurement)
    }

    /// Tells the observer that a way begins that is not timed by [`time`](Self::time).
    pub fn begin(&self, way: &str) {
        self.context.observer.way(&format!("{}: {way}", self.group));
    }

    /// Adds a row.
    pub fn add(&mut self, owner: Owner, way: &str, figure: Figure, landed: Landed) {
        self.rows.push(Row {
            group: self.group.clone(),
            way: way.to_owned(),
            owner,
            figure,
            landed,
            predicted_seconds: None,
        });
    }

    /// The rows so far.
    #[must_use]
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}
