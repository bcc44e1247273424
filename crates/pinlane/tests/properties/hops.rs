//! One move of a whole tree, with any choice that a caller has, and the rules of what can't be moved so.

use pinlane::{Device, Error, Placement, Route, Tensor, Transfer, TransferOptions, Tree, driver::Stream};
use proptest::{prelude::*, sample::select};

use crate::{
    Batch,
    rig::{self, block_on, is_over_budget},
    tensors,
};

const ROUTES: [Route; 5] = [
    Route::Direct,
    Route::Staged,
    Route::Packed,
    Route::Gathered,
    Route::Plain,
];

/// How a caller gets its result.
#[derive(Clone, Copy, Debug)]
enum Finish {
    Wait,
    AskThenWait,
    Await,
    Fence,
    /// Drops one transfer, which is then on its way or abandoned, and starts another.
    DropAndStartAgain,
}

/// One move of the whole tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    route: Option<Route>,
    placement: Placement,
    pinned: bool,
    finish: Finish,
}

pub(crate) fn hop() -> impl Strategy<Value = Hop> {
    let route = prop_oneof![
        4 => Just(None),
        1 => select(&ROUTES[..]).prop_map(Some),
    ];
    let placement = select(&[Placement::Slab, Placement::Separate][..]);
    let finish = select(
        &[
            Finish::Wait,
            Finish::AskThenWait,
            Finish::Await,
            Finish::Fence,
            Finish::DropAndStartAgain,
        ][..],
    );
    (route, placement, any::<bool>(), finish).prop_map(|(route, placement, pinned, finish)| Hop {
        route,
        placement,
        pinned,
        finish,
    })
}

impl Hop {
    fn options(self) -> TransferOptions {
        let mut options = TransferOptions::new().placement(self.placement);
        if let Some(route) = self.route {
            options = options.route(route);
        }
        if self.pinned {
            options = options.pinned_result();
        }
        options
    }

    /// Moves the tree. What can't be, by the rules of routes and budgets, is refused and then done another way.
    pub(crate) fn run(mut self, tree: &Batch, to: &Device) -> Batch {
        let mut refused = self.start(tree, to);
        if let Some(route) = self.route {
            let carried = tensors(tree)
                .iter()
                .all(|tensor| carries(route, tensor, to, self.pinned));
            let over_budget = refused.as_ref().is_err_and(is_over_budget);
            assert!(over_budget || refused.is_ok() == carried, "{route}: {refused:?}");
            if !carried && !over_budget {
                assert_names_a_leaf(refused.as_ref().unwrap_err());
                self.route = None;
                refused = self.start(tree, to);
            }
        }
        let transfer = refused.or_else(|error| {
            assert!(self.pinned, "{error}");
            assert_over_budget(&error);
            self.pinned = false;
            if self.route == Some(Route::Direct) {
                self.route = None;
            }
            self.start(tree, to)
        });
        let transfer = transfer.unwrap();
        match self.finish {
            Finish::Wait => transfer.wait().unwrap(),
            Finish::AskThenWait => {
                rig::eventually("the transfer is done", || transfer.is_done());
                transfer.wait().unwrap()
            }
            Finish::Await => block_on(transfer).unwrap(),
            Finish::Fence => {
                let driver = tensors(tree)
                    .iter()
                    .map(Tensor::device)
                    .chain([to.clone()])
                    .find_map(|device| device.driver().cloned());
                if let Some(driver) = driver {
                    let stream = Stream::new(&driver).unwrap();
                    transfer.fence(&stream).unwrap();
                    stream.synchronize().unwrap();
                    assert!(
                        transfer.is_done(),
                        "a stream passed the fence of a transfer in flight"
                    );
                }
                transfer.wait().unwrap()
            }
            Finish::DropAndStartAgain => {
                drop(transfer);
                let again = Self {
                    finish: Finish::Wait,
                    // The dropped transfer may still hold its share of the budget.
                    pinned: false,
                    route: None,
                    ..self
                };
                again.run(tree, to)
            }
        }
    }

    fn start(self, tree: &Batch, to: &Device) -> Result<Transfer<Batch>, Error> {
        tree.transfer_with(to, &self.options())
    }
}

/// Whether a route can carry a tensor: the rules of the documentation of [`Route`].
fn carries(route: Route, tensor: &Tensor, to: &Device, pinned_result: bool) -> bool {
    let from = tensor.device();
    if from == *to {
        return true;
    }
    let in_file = from.is_host() && matches!(tensor.as_bytes(), Err(Error::NotOnHost { .. }));
    match (from.is_host(), to.is_host()) {
        (false, false) => route == Route::Direct,
        (false, true) => route != Route::Direct || pinned_result,
        _ => {
            let whole = tensor.layout().is_dense();
            match route {
                Route::Direct => whole && tensor.is_pinned(),
                Route::Plain => whole && !in_file,
                _ => true,
            }
        }
    }
}

fn assert_names_a_leaf(error: &Error) {
    let Error::Leaf { path, source } = error else {
        panic!("no leaf is named: {error}");
    };
    assert!(!path.is_empty());
    assert!(matches!(**source, Error::Route { .. }), "{source}");
}

pub(crate) fn assert_over_budget(error: &Error) {
    assert!(is_over_budget(error), "{error}");
}
