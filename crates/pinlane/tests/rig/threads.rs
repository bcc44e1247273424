//! What the threads of an engine do: those of an idle one sleep.

use std::{collections::BTreeMap, fs, sync::Arc, thread, time::Duration};

use pinlane::{
    Device, Tensor, Transfer, TransferOptions, Tree,
    driver::{Stream, Timing},
};

/// What each thread has had of the processor: how often it was given a core, and its time there in ticks of the kernel.
///
/// A thread that polls is given one again and again, however little it does each time; one that spins spends time. One that
/// sleeps does neither.
type Activity = BTreeMap<(String, String), (u64, u64)>;

/// The activity of each thread whose name begins with `prefix`, by its name and number.
fn activity(prefix: &str) -> Activity {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let threads = threads.filter_map(|thread| {
        // A thread may end while its files are read.
        let thread = thread.ok()?;
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        let fields = |key: &'static str| {
            status
                .lines()
                .filter_map(move |line| line.strip_prefix(key)?.split_once(':'))
        };
        let (_, name) = fields("Name").next()?;
        let switches = fields("voluntary_ctxt_switches").chain(fields("nonvoluntary_ctxt_switches"));
        let switches = switches.map(|(_, count)| count.trim().parse::<u64>().unwrap());
        // Behind the name, which may have spaces, time in user mode and in the kernel are the 12th and 13th.
        let (_, behind) = stat.rsplit_once(')')?;
        let ticks = behind.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|ticks| ticks.parse::<u64>().unwrap());
        let number = thread.file_name().to_string_lossy().into_owned();
        Some(((name.trim().to_owned(), number), (switches.sum(), ticks.sum())))
    });
    threads
        .filter(|((name, _), _)| name.starts_with(prefix))
        .collect()
}

/// Waits until there are threads of the names `roles`, and until all whose names begin with `prefix` sleep. What they have
/// still to do may take a while on a busy machine; threads that poll or spin never come to rest.
pub(crate) fn assert_come_to_rest(prefix: &str, roles: &[String]) {
    for role in roles {
        // A thread gives itself its name.
        super::eventually(&format!("there is a thread {role}"), || {
            activity(prefix).keys().any(|(name, _)| name == role)
        });
    }
    let mut before = activity(prefix);
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(100));
        let after = activity(prefix);
        if after == before {
            return;
        }
        before = after;
    }
    panic!("threads of an idle device go on running: {before:?}");
}

/// A transfer to `device` that is in flight for a while, however fast that is.
pub(crate) fn held_back(tensor: &Tensor, device: &Device) -> Transfer<Tensor> {
    let driver = device.driver().unwrap();
    let stream = Stream::new(driver).unwrap();
    driver.busy(Duration::from_millis(20), stream.raw()).unwrap();
    let event = Arc::new(stream.record(Timing::Disabled).unwrap());
    let after = TransferOptions::new().after(event);
    tensor.transfer_with(device, &after).unwrap()
}
