//! Why a plan is what it is: the ways that were not taken, and the profile that it was chosen by.

use std::{fmt, time::Duration};

use super::Plan;
use crate::{Device, Error, Profile, ProfileOrigin, Result, Route};

/// A plan, the time of every route beside it, and the profile that they were predicted by. Prints itself.
#[derive(Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The plan.
    pub plan: Plan,
    /// Every route, if all bytes went by it.
    pub routes: Vec<Alternative>,
    /// The profile.
    pub profile: Profile,
    /// Where the profile comes from.
    pub origin: ProfileOrigin,
    /// The device and its link, for people.
    device: String,
}

/// A route, if all bytes went by it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Alternative {
    /// The route.
    pub route: Route,
    /// Whether the plan sends any tensor by it.
    pub chosen: bool,
    /// The time it should take, by the profile, or why it can't be.
    pub predicted: Result<Duration>,
}

impl Explanation {
    /// Explains `plan` of `device`, with what `plan_by` plans for each route.
    pub(super) fn new(
        device: &Device,
        plan: Plan,
        mut plan_by: impl FnMut(Route) -> Result<Plan>,
    ) -> Result<Self> {
        let accelerator = device.require_accelerator("explaining a plan")?;
        let engine = accelerator.running.engine();
        let properties = engine.driver.properties();
        let routes = Route::ALL.into_iter().map(|route| Alternative {
            route,
            chosen: plan.tallies.iter().any(|tally| tally.route == route),
            predicted: plan_by(route).map(|plan| plan.predicted),
        });
        Ok(Self {
            routes: routes.collect(),
            profile: engine.profile.clone(),
            origin: accelerator.origin.clone(),
            device: format!("{device} ({}, {})", properties.name, properties.link.name),
            plan,
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\nif all went by one route", self.plan)?;
        if self.plan.simulated {
            f.write_str(", and the device were no simulated one")?;
        }
        for Alternative {
            route,
            chosen,
            predicted,
        } in &self.routes
        {
            write!(f, "\n  {route:<8} ")?;
            match predicted {
                Ok(time) => write!(f, "about {time:.1?}")?,
                Err(error) => write!(f, "not possible: {}", reason(error))?,
            }
            if *chosen {
                f.write_str(" (chosen)")?;
            }
        }
        write!(f, "\n\nprofile of {}: ", self.device)?;
        match (&self.origin, self.plan.simulated) {
            (ProfileOrigin::Assumed, true) => f.write_str("assumed, as all of a simulated device is")?,
            (origin, _) => origin.fmt(f)?,
        }
        for quantity in self.profile.quantities() {
            write!(f, "\n  {:<33} {}", quantity.name, quantity.amount)?;
        }
        Ok(())
    }
}

/// Why a route can't be, without the route and the first tensor that it is so for.
fn reason(error: &Error) -> String {
    match error {
        Error::Leaf { source, .. } => reason(source),
        Error::Route { reason, .. } => (*reason).to_owned(),
        other => other.to_string(),
    }
}
