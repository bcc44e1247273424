//! `pinlane plan`

use pinlane::{Checkpoint, Explanation, Placement, Plan, Route, Workload};
use serde_json::{Value, json};

use crate::{
    args::{PlacementArg, PlanArgs},
    device::{self, Accelerator},
    output::{Failure, print},
};

/// What to plan, checked: the device is open, the tensors are described.
pub(crate) struct Config {
    accelerator: Accelerator,
    workload: Workload,
    explain: bool,
    json: bool,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for an unknown device, a file that is no checkpoint, and tensors that can't be.
    pub(crate) fn check(args: &PlanArgs) -> Result<Self, Failure> {
        let (direction, memory) = (args.direction.direction(), args.memory.host_end());
        let placement = match args.placement {
            PlacementArg::Slab => Placement::Slab,
            PlacementArg::Separate => Placement::Separate,
        };
        let mut workload = Workload::new(direction).placement(placement);
        match &args.tensors {
            Some(path) => {
                let checkpoint = Checkpoint::open(path).map_err(Failure::usage)?;
                for entry in checkpoint.entries() {
                    workload = workload
                        .tensors(1, entry.bytes(), memory)
                        .map_err(Failure::usage)?;
                }
            }
            None => {
                workload = workload
                    .tensors(args.count, args.size, memory)
                    .map_err(Failure::usage)?;
            }
        }
        let mut accelerator = device::open(args.device.as_deref())?;
        if accelerator.properties.simulated {
            // The one that the guide, the benchmark and advice run on, so that all of them foresee the same.
            let name = accelerator.properties.id.to_string();
            let shared = pinlane_guide::device::Accelerator::open(Some(&name)).map_err(Failure::usage)?;
            accelerator.device = shared.device;
        }
        Ok(Self {
            accelerator,
            workload,
            explain: args.explain,
            json: args.json,
        })
    }

    /// Plans, and prints the plan.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for tensors that the device could not hold, [`Failure::Run`] when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let device = &self.accelerator.device;
        let simulated = self.accelerator.properties.simulated;
        let shown = if self.explain {
            let explanation = self.workload.explain(device).map_err(Failure::usage)?;
            if self.json {
                indented(&explained(&explanation, simulated))?
            } else {
                explanation.to_string()
            }
        } else {
            let plan = self.workload.plan(device, None).map_err(Failure::usage)?;
            if self.json {
                indented(&planned(&plan, simulated))?
            } else {
                plan.to_string()
            }
        };
        print(&shown)?;
        Ok(true)
    }
}

fn indented(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::Run(error.into()))
}

/// A plan for programs. Bytes and seconds.
fn planned(plan: &Plan, simulated: bool) -> Value {
    let chunks_by: serde_json::Map<String, Value> = Route::ALL
        .into_iter()
        .map(|route| (route.to_string(), plan.chunks_by(route).into()))
        .collect();
    json!({
        "direction": plan.direction().to_string(),
        "bytes": plan.bytes(),
        "chunks": plan.chunks(),
        "chunks_by": chunks_by,
        "by_the_caller": plan.is_inline(),
        "short_way": plan.is_short(),
        "predicted_seconds": plan.predicted().as_secs_f64(),
        "simulated": simulated,
        "text": plan.to_string(),
    })
}

/// The same with what every route would take, and the profile.
fn explained(explanation: &Explanation, simulated: bool) -> Value {
    let routes = explanation.routes.iter().map(|route| {
        let (predicted, refused) = match &route.predicted {
            Ok(time) => (Some(time.as_secs_f64()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        json!({
            "route": route.route.to_string(),
            "chosen": route.chosen,
            "predicted_seconds": predicted,
            "not_possible": refused,
            "passed_over": route.passed_over,
        })
    });
    let mut value = planned(&explanation.plan, simulated);
    value["routes"] = routes.collect();
    value["profile"] = json!(explanation.profile);
    value["profile_origin"] = explanation.origin.to_string().into();
    value
}
