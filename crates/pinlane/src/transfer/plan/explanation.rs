//! Why a plan is what it is: the ways that were not taken, and the profile that it was chosen by.

use std::{fmt, time::Duration};

use super::{Direction, Plan};
use crate::{Device, Error, Profile, ProfileOrigin, Result, Route, units};

/// By so much a route has to be faster than the plan to be worth a word.
const VISIBLY: f64 = 1.01;

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
    /// Why it is not taken although it should take less time than the plan. The planner goes by the profile's limits,
    /// which are measured as a whole, and not by these times, which leave out what they can't know.
    pub passed_over: Option<String>,
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
        let routes = Route::ALL.into_iter().map(|route| {
            let chosen = plan.tallies.iter().any(|tally| tally.route == route);
            let predicted = plan_by(route).map(|plan| plan.predicted);
            let is_faster = predicted
                .as_ref()
                .is_ok_and(|time| time.as_secs_f64() * VISIBLY < plan.predicted.as_secs_f64());
            Alternative {
                route,
                chosen,
                predicted,
                passed_over: (is_faster && !chosen).then(|| passed_over(route, &plan, &engine.profile)),
            }
        });
        Ok(Self {
            routes: routes.collect(),
            profile: engine.profile.clone(),
            origin: accelerator.origin.clone(),
            device: if properties.simulated {
                // So is its link.
                format!("{device} ({})", properties.name)
            } else {
                format!("{device} ({}, {})", properties.name, properties.link.name)
            },
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
            passed_over,
        } in &self.routes
        {
            write!(f, "\n  {route:<8} ")?;
            match predicted {
                Ok(time) => write!(f, "about {}", units::time(time.as_secs_f64()))?,
                Err(error) => write!(f, "not possible: {}", reason(error))?,
            }
            if *chosen {
                f.write_str(" (chosen)")?;
            }
            if let Some(why) = passed_over {
                write!(f, " (not taken: {why})")?;
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

/// Why a route is left alone that should be faster than the plan.
fn passed_over(route: Route, plan: &Plan, profile: &Profile) -> String {
    match (route, plan.direction) {
        (Route::Plain, Direction::ToDevice) => format!(
            "the driver is left only a tensor that is alone and has up to {} bytes",
            profile.plain_bytes
        ),
        (Route::Plain, _) => {
            "the driver's calls wait for the device, and for the pages of fresh memory".to_owned()
        }
        (Route::Gathered, _) => {
            "the pieces are too few, too short or too long to be worth a kernel".to_owned()
        }
        (Route::Staged, _) => {
            "short tensors share slots, so that the link has fewer calls to carry out".to_owned()
        }
        (Route::Direct, _) => {
            "a call for each takes the processor longer than copying them together".to_owned()
        }
        (Route::Packed, _) => "what can be copied as it lies takes no processor time".to_owned(),
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
