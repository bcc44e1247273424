//! Pool, lanes and transfers under every order of threads that shuttle comes up with.
//!
//! Each test is one execution of a small program with many threads; its choices (how many lanes and slots, who drops
//! what when, which call goes wrong) are drawn from the schedule's own seed. After each, whatever its order, all that
//! landed has the right bytes, and once everything is dropped nothing is left on the simulated device. Time does not
//! pass, so nothing can wait its way out of a lost wake-up: that is a deadlock, and shuttle reports it. So does it
//! report threads that only take turns.

#![cfg(shuttle)]

mod failing;
mod giving_way;
mod in_place;
mod lending;
mod rig;
mod sound;

/// Executions of each test: so many with a random scheduler, and a fifth of that with PCT, which finds bugs that need
/// few but unlikely preemptions.
const RANDOM: usize = 5000;
const PCT: usize = RANDOM / 5;
const DEPTH: usize = 3;
/// Enough for the deepest call, which is formatting an error.
const STACK_BYTES: usize = 128 << 10;

/// Tries `program` under many schedules.
fn explore(program: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = STACK_BYTES;
    let random = shuttle::scheduler::RandomScheduler::new(RANDOM);
    assert_eq!(shuttle::Runner::new(random, config.clone()).run(program), RANDOM);
    let pct = shuttle::scheduler::PctScheduler::new(DEPTH, PCT);
    assert_eq!(shuttle::Runner::new(pct, config).run(program), PCT);
}
