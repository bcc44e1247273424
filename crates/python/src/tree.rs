//! Nested containers: taken apart into leaves in one pass, and put together again with others.
//!
//! Exact dicts, lists and tuples are known here; what else there is of containers is opened by a function of the package,
//! `pinlane._trees.open`, which says what is in them and how to make another. The same leaf in several places is one leaf,
//! and becomes one result.

mod taking;

use pyo3::{
    exceptions::{PyException, PyMemoryError, PyRecursionError, PyValueError},
    prelude::*,
    types::{PyDict, PyList, PyTuple, PyType},
};

use self::taking::Taking;
use crate::errors;

/// A tree taken apart.
#[pyclass(frozen, module = "pinlane._native")]
pub(crate) struct Tree {
    root: Node,
    leaves: Vec<Py<PyAny>>,
}

enum Node {
    /// The number of a leaf.
    Leaf(usize),
    /// Anything that moving leaves as it is.
    Other(Py<PyAny>),
    List(Vec<Node>),
    Tuple(Vec<Node>),
    Dict(Vec<(Py<PyAny>, Node)>),
    Opened(Opened),
}

/// A container that the package opened.
struct Opened {
    /// How to get from the container to each child, as one would write it: `.field`, `['key']`.
    steps: Vec<String>,
    children: Vec<Node>,
    /// Makes another from its children.
    rebuild: Py<PyAny>,
}

impl Tree {
    /// The different leaves, in order.
    pub(crate) fn leaves(&self) -> &[Py<PyAny>] {
        &self.leaves
    }

    /// The tree with `results` for its leaves, one for each.
    pub(crate) fn with<'py>(
        &self,
        py: Python<'py>,
        results: &[Bound<'py, PyAny>],
    ) -> PyResult<Bound<'py, PyAny>> {
        if results.len() != self.leaves.len() {
            return Err(PyValueError::new_err(format!(
                "the tree has {} leaves, and {} results were given",
                self.leaves.len(),
                results.len()
            )));
        }
        let made = self.root.with(py, results);
        made.map_err(|failed| failed.raised(py, "making", "again, with what was moved in it"))
    }

    /// Where a leaf is in the tree, as one would write it after the tree's name; empty for a tree that is a leaf.
    pub(crate) fn path_of(&self, py: Python<'_>, leaf: usize) -> String {
        let mut path = String::new();
        self.root.find(py, leaf, &mut path);
        path
    }
}

#[pymethods]
impl Tree {
    /// Takes `tree` apart. Instances of `tensor_type` are leaves; of other things that are not plain containers or scalars,
    /// `open` says what they are: `None` for what stays as it is, `True` for a leaf, else children, steps and a function
    /// that makes another from its children. What is nested deeper than a thousand levels is a `RecursionError`.
    #[new]
    #[pyo3(signature = (tree, tensor_type, open))]
    fn new(
        tree: &Bound<'_, PyAny>,
        tensor_type: Option<&Bound<'_, PyType>>,
        open: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let mut taking = Taking::new(tensor_type, open);
        let root = taking.take(tree);
        let root = root.map_err(|failed| failed.raised(tree.py(), "looking into", "for tensors"))?;
        Ok(Self {
            root,
            leaves: taking.into_leaves(),
        })
    }

    /// The different leaves, in order.
    #[getter(leaves)]
    fn leaf_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.leaves.iter().map(|leaf| leaf.bind(py)))
    }

    /// The tree with `results` for its leaves, one for each.
    fn rebuild<'py>(&self, py: Python<'py>, results: Vec<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        self.with(py, &results)
    }

    /// Where leaf number `leaf` is in the tree.
    fn path(&self, py: Python<'_>, leaf: usize) -> String {
        self.path_of(py, leaf)
    }
}

impl Node {
    fn with<'py>(&self, py: Python<'py>, results: &[Bound<'py, PyAny>]) -> Result<Bound<'py, PyAny>, Failed> {
        let all = |nodes: &[Node]| -> Result<Vec<_>, Failed> {
            let made = nodes.iter().enumerate().map(|(index, node)| {
                let made = node.with(py, results);
                made.map_err(|failed| failed.below(&format!("[{index}]")))
            });
            made.collect()
        };
        Ok(match self {
            Self::Leaf(number) => results[*number].clone(),
            Self::Other(object) => object.bind(py).clone(),
            Self::List(nodes) => PyList::new(py, all(nodes)?)?.into_any(),
            Self::Tuple(nodes) => PyTuple::new(py, all(nodes)?)?.into_any(),
            Self::Dict(items) => {
                let dict = PyDict::new(py);
                for (key, node) in items {
                    let made = node.with(py, results);
                    let made = made.map_err(|failed| failed.below(&format!("[{}]", shown(key.bind(py)))))?;
                    dict.set_item(key, made)?;
                }
                dict.into_any()
            }
            Self::Opened(opened) => {
                let mut children = Vec::with_capacity(opened.children.len());
                for (node, step) in opened.children.iter().zip(&opened.steps) {
                    children.push(node.with(py, results).map_err(|failed| failed.below(step))?);
                }
                opened.rebuild.bind(py).call1((children,))?
            }
        })
    }

    /// Appends the way to a leaf, and says whether it is below this node.
    fn find(&self, py: Python<'_>, leaf: usize, path: &mut String) -> bool {
        let length = path.len();
        let mut is_below = |step: &dyn Fn() -> String, node: &Node| {
            // Steps are spelled out only on the way to what may hold leaves.
            if matches!(node, Self::Other(_)) {
                return false;
            }
            path.push_str(&step());
            let found = node.find(py, leaf, path);
            if !found {
                path.truncate(length);
            }
            found
        };
        match self {
            Self::Leaf(number) => *number == leaf,
            Self::Other(_) => false,
            Self::List(nodes) | Self::Tuple(nodes) => nodes
                .iter()
                .enumerate()
                .any(|(number, node)| is_below(&|| index(number), node)),
            Self::Dict(items) => items
                .iter()
                .any(|(key, node)| is_below(&|| format!("[{}]", shown(key.bind(py))), node)),
            Self::Opened(opened) => opened
                .children
                .iter()
                .enumerate()
                .any(|(number, node)| is_below(&|| opened.steps[number].clone(), node)),
        }
    }
}

/// A container whose own code failed, when it was taken apart or made again.
struct Failed {
    /// Where it is.
    path: String,
    error: PyErr,
}

impl From<PyErr> for Failed {
    fn from(error: PyErr) -> Self {
        Self {
            path: String::new(),
            error,
        }
    }
}

impl Failed {
    /// The same, as seen from the container that has it at `step`.
    fn below(self, step: &str) -> Self {
        Self {
            path: format!("{step}{}", self.path),
            error: self.error,
        }
    }

    /// What to raise: what went wrong in the container's own code, under its path. Interruptions, want of memory and trees that
    /// are too deep are no fault of the container's.
    fn raised(self, py: Python<'_>, doing: &str, with: &str) -> PyErr {
        let error = self.error;
        let is_its_own = error.is_instance_of::<PyException>(py)
            && !error.is_instance_of::<PyMemoryError>(py)
            && !error.is_instance_of::<PyRecursionError>(py);
        if !is_its_own {
            return error;
        }
        let message = format!("{doing} {} {with}: {error}", named(&self.path));
        let raised = errors::raise(py, "UnsupportedLeafError", message);
        raised.set_cause(py, Some(error));
        raised
    }
}

/// A path in an error: a tree that is a leaf has none.
pub(crate) fn named(path: &str) -> String {
    if path.is_empty() {
        "itself".to_owned()
    } else {
        path.to_owned()
    }
}

/// The way to an element as one would write it.
fn index(index: usize) -> String {
    format!("[{index}]")
}

/// A key as one would write it.
fn shown(key: &Bound<'_, PyAny>) -> String {
    key.repr()
        .map_or_else(|_| "?".to_owned(), |text| text.to_string())
}
