//! The guide's document, as far as the page shows it.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Document {
    pub(super) pinlane: String,
    pub(super) device: Device,
    /// Documents of older versions have none.
    #[serde(default)]
    pub(super) host: Option<Host>,
    pub(super) quick: bool,
    pub(super) workload: String,
    pub(super) experiments: Vec<Experiment>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Device {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) simulated: bool,
    pub(super) memory_bytes: u64,
    pub(super) copy_engines: u32,
    pub(super) link: String,
    pub(super) link_bytes_per_second: Option<f64>,
    pub(super) numa_node: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Host {
    pub(super) processor: Option<String>,
    pub(super) cores: u64,
    pub(super) kernel: Option<String>,
    pub(super) driver: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Experiment {
    pub(super) id: String,
    pub(super) claim: String,
    pub(super) shows: String,
    pub(super) seconds: f64,
    pub(super) ways: Vec<Way>,
    pub(super) tables: Vec<Operations>,
    pub(super) timelines: Vec<Timeline>,
    pub(super) memory_curves: Vec<MemoryCurve>,
    pub(super) notes: Vec<String>,
    pub(super) verdict: Option<String>,
    pub(super) reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Way {
    pub(super) group: String,
    pub(super) way: String,
    pub(super) owner: String,
    #[serde(flatten)]
    pub(super) figure: Figure,
    pub(super) landed: String,
    /// Documents of older versions have none.
    #[serde(default)]
    pub(super) predicted_seconds: Option<f64>,
}

/// What was found of a way. Which of these it is can be told by the names of the fields.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Figure {
    Time {
        median_seconds: f64,
        first_quartile_seconds: f64,
        third_quartile_seconds: f64,
        measurements: u64,
        runs_per_measurement: u64,
    },
    Count {
        count: u64,
        of: u64,
        counted: String,
    },
    Overlap {
        overlap: f64,
    },
    Memory {
        peak_pinned_bytes: u64,
        peak_growth_bytes: Option<u64>,
    },
}

#[derive(Debug, Deserialize)]
pub(super) struct Operations {
    pub(super) title: String,
    pub(super) operations: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) self_seconds: f64,
    pub(super) total_seconds: f64,
    pub(super) calls: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Timeline {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) start_seconds: f64,
    pub(super) end_seconds: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct MemoryCurve {
    pub(super) way: String,
    pub(super) owner: String,
    pub(super) budget_bytes: Option<u64>,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Point {
    pub(super) seconds: f64,
    pub(super) bytes: u64,
}
