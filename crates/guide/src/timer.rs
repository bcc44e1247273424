//! The guide's way of timing: let a measurement grow until it is long enough, then measure until the figures agree.
//!
//! A *run* is one call of the code under test; a *measurement* is the mean time of one run over a fixed number of
//! them, timed as a whole so that reading the clock costs nothing. The result is the median of the measurements with
//! the range between their quartiles, which one slow outlier does not move.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::units;

/// How long to measure, and how well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// A measurement is at least this long; runs are added until it is.
    pub shortest_measurement: Duration,
    /// No new measurement starts after this much time.
    pub longest_total: Duration,
    /// Enough when the interquartile range is below this share of the median.
    pub spread: f64,
}

impl Budget {
    /// For figures worth keeping.
    pub const FULL: Self = Self {
        shortest_measurement: Duration::from_millis(10),
        longest_total: Duration::from_millis(1000),
        spread: 0.1,
    };

    /// For seeing the picture in seconds.
    pub const QUICK: Self = Self {
        shortest_measurement: Duration::from_millis(1),
        longest_total: Duration::from_millis(80),
        spread: 0.1,
    };

    /// Fewer measurements than this say nothing of their spread.
    const LEAST_MEASUREMENTS: usize = 4;
}

/// What a timing found: seconds for one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The middle measurement.
    pub median_seconds: f64,
    /// A quarter of the measurements are below this.
    pub first_quartile_seconds: f64,
    /// A quarter of the measurements are above this.
    pub third_quartile_seconds: f64,
    /// How many measurements were made.
    pub measurements: usize,
    /// How many runs each of them timed.
    pub runs_per_measurement: u64,
    /// How many threads of the code under test called: always 1 here, ways that start threads do so themselves.
    pub threads: usize,
}

impl Measurement {
    /// Sums up `samples`, the seconds of one run in each measurement.
    ///
    /// # Panics
    ///
    /// When `samples` is empty.
    #[must_use]
    pub fn of_samples(mut samples: Vec<f64>, runs_per_measurement: u64) -> Self {
        assert!(!samples.is_empty(), "a measurement needs at least one sample");
        samples.sort_by(f64::total_cmp);
        Self {
            median_seconds: quantile(&samples, 0.5),
            first_quartile_seconds: quantile(&samples, 0.25),
            third_quartile_seconds: quantile(&samples, 0.75),
            measurements: samples.len(),
            runs_per_measurement,
            threads: 1,
        }
    }

    /// The interquartile range in seconds.
    #[must_use]
    pub fn iqr_seconds(&self) -> f64 {
        self.third_quartile_seconds - self.first_quartile_seconds
    }
}

impl Serialize for Measurement {
    /// With the interquartile range, which readers of the figures should not have to compute.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Measurement", 7)?;
        fields.serialize_field("median_seconds", &self.median_seconds)?;
        fields.serialize_field("iqr_seconds", &self.iqr_seconds())?;
        fields.serialize_field("first_quartile_seconds", &self.first_quartile_seconds)?;
        fields.serialize_field("third_quartile_seconds", &self.third_quartile_seconds)?;
        fields.serialize_field("measurements", &self.measurements)?;
        fields.serialize_field("runs_per_measurement", &self.runs_per_measurement)?;
        fields.serialize_field("threads", &self.threads)?;
        fields.end()
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = units::time_unit(self.median_seconds);
        let show = |seconds: f64| format!("{:.2}", seconds / unit.seconds);
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        writeln!(f, "Median: {} {}", show(self.median_seconds), unit.name)?;
        writeln!(
            f,
            "IQR:    {} {} ({} to {})",
            show(self.iqr_seconds()),
            unit.name,
            show(self.first_quartile_seconds),
            show(self.third_quartile_seconds),
        )?;
        write!(
            f,
            "{} measurement{}, {} run{} per measurement, {} thread{}",
            self.measurements,
            plural(self.measurements as u64),
            self.runs_per_measurement,
            plural(self.runs_per_measurement),
            self.threads,
            plural(self.threads as u64),
        )
    }
}

/// The value below which `share` of the sorted samples lie, interpolated between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Times one run of `run` within `budget`.
///
/// What `run` returns is dropped inside the time taken, as a loop over the same statement would.
///
/// # Errors
///
/// The first error of `run`, which ends the timing.
pub fn measure<T, E>(budget: Budget, mut run: impl FnMut() -> Result<T, E>) -> Result<Measurement, E> {
    let mut time_runs = |runs: u64| -> Result<Duration, E> {
        let start = Instant::now();
        for _ in 0..runs {
            std::hint::black_box(run()?);
        }
        Ok(start.elapsed())
    };
    let began = Instant::now();
    let mut runs = 1;
    // The measurements that grow the count also warm caches, pools and allocators up; none of them is kept.
    while time_runs(runs)? < budget.shortest_measurement {
        runs *= 10;
    }
    let mut samples = Vec::new();
    loop {
        samples.push(time_runs(runs)?.as_secs_f64() / runs as f64);
        let so_far = Measurement::of_samples(samples.clone(), runs);
        let agree = so_far.measurements >= Budget::LEAST_MEASUREMENTS
            && so_far.iqr_seconds() < budget.spread * so_far.median_seconds;
        if agree || began.elapsed() >= budget.longest_total {
            return Ok(so_far);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_median_and_quartiles_interpolate_between_neighbours() {
        let measurement = Measurement::of_samples(vec![4.0, 1.0, 3.0, 2.0], 10);
        assert_eq!(measurement.median_seconds, 2.5);
        assert_eq!(measurement.first_quartile_seconds, 1.75);
        assert_eq!(measurement.third_quartile_seconds, 3.25);
        assert_eq!(measurement.iqr_seconds(), 1.5);
        assert_eq!(measurement.measurements, 4);
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        let calm = Measurement::of_samples(vec![1.0, 1.0, 1.0, 1.0, 1.0], 1);
        let disturbed = Measurement::of_samples(vec![1.0, 1.0, 1.0, 1.0, 99.0], 1);
        assert_eq!(calm.median_seconds, disturbed.median_seconds);
        assert_eq!(calm.iqr_seconds(), disturbed.iqr_seconds());
    }

    #[test]
    fn a_measurement_prints_in_the_form_of_the_guide() {
        let measurement = Measurement {
            median_seconds: 35.26e-6,
            first_quartile_seconds: 35.23e-6,
            third_quartile_seconds: 35.28e-6,
            measurements: 4,
            runs_per_measurement: 10_000,
            threads: 1,
        };
        assert_eq!(
            measurement.to_string(),
            "Median: 35.26 us\n\
             IQR:    0.05 us (35.23 to 35.28)\n\
             4 measurements, 10000 runs per measurement, 1 thread"
        );
    }

    #[test]
    fn runs_grow_until_one_measurement_is_long_enough() {
        let budget = Budget {
            shortest_measurement: Duration::from_millis(2),
            longest_total: Duration::from_millis(50),
            spread: 0.5,
        };
        let measurement = measure::<_, ()>(budget, || {
            std::thread::sleep(Duration::from_micros(400));
            Ok(())
        })
        .unwrap();
        assert_eq!(measurement.runs_per_measurement, 10);
        assert!(measurement.median_seconds >= 400e-6);
    }

    #[test]
    fn a_long_run_is_measured_at_least_once_whatever_the_budget() {
        let budget = Budget {
            shortest_measurement: Duration::ZERO,
            longest_total: Duration::ZERO,
            spread: 0.1,
        };
        let measurement = measure::<_, ()>(budget, || Ok(())).unwrap();
        assert_eq!(
            (measurement.measurements, measurement.runs_per_measurement),
            (1, 1)
        );
    }

    #[test]
    fn an_error_of_the_code_under_test_ends_the_timing() {
        let calls = Cell::new(0);
        let result = measure(Budget::QUICK, || {
            calls.set(calls.get() + 1);
            if calls.get() == 3 {
                Err("third call")
            } else {
                Ok(())
            }
        });
        assert_eq!(result, Err("third call"));
        assert_eq!(calls.get(), 3);
    }
}
