//! `pinlane plan`

use pinlane::{Checkpoint, Placement, Workload};

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
        })
    }

    /// Plans, and prints the plan.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for tensors that the device could not hold, [`Failure::Run`] when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let device = &self.accelerator.device;
        if self.explain {
            print(&self.workload.explain(device).map_err(Failure::usage)?.to_string())?;
        } else {
            print(
                &self
                    .workload
                    .plan(device, None)
                    .map_err(Failure::usage)?
                    .to_string(),
            )?;
        }
        Ok(true)
    }
}
