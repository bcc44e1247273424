//! Nested containers: taken apart into leaves in one pass, and put together again with others.
//!
//! Exact dicts, lists and tuples are known here; what else there is of containers is opened by a function of the package,
//! `pinlane._trees.open`, which says what is in them and how to make another. The same leaf in several places is one leaf,
//! and becomes one result.

use std::{
    collections::HashMap,
    ffi::CStr,
    hash::{BuildHasherDefault, Hasher},
};

use pyo3::{
    exceptions::{PyException, PyMemoryError, PyValueError},
    ffi,
    prelude::*,
    types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType},
};

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
        self.root.with(py, results).map_err(|unmade| unmade.raised(py))
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
    /// that makes another from its children.
    #[new]
    #[pyo3(signature = (tree, tensor_type, open))]
    fn new(
        tree: &Bound<'_, PyAny>,
        tensor_type: Option<&Bound<'_, PyType>>,
        open: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let mut taking = Taking {
            tensor_type,
            open,
            numbers: HashMap::default(),
            leaves: Vec::new(),
            met: 0,
        };
        let root = taking.take(tree)?;
        Ok(Self {
            root,
            leaves: taking.leaves,
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
    fn with<'py>(&self, py: Python<'py>, results: &[Bound<'py, PyAny>]) -> Result<Bound<'py, PyAny>, Unmade> {
        let all = |nodes: &[Node]| -> Result<Vec<_>, Unmade> {
            let made = nodes.iter().enumerate().map(|(index, node)| {
                let made = node.with(py, results);
                made.map_err(|unmade| unmade.below(&format!("[{index}]")))
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
                    let made = made.map_err(|unmade| unmade.below(&format!("[{}]", shown(key.bind(py)))))?;
                    dict.set_item(key, made)?;
                }
                dict.into_any()
            }
            Self::Opened(opened) => {
                let mut children = Vec::with_capacity(opened.children.len());
                for (node, step) in opened.children.iter().zip(&opened.steps) {
                    children.push(node.with(py, results).map_err(|unmade| unmade.below(step))?);
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
        let index = |index: usize| format!("[{index}]");
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

/// A container that could not be made again.
struct Unmade {
    /// Where it is.
    path: String,
    error: PyErr,
}

impl From<PyErr> for Unmade {
    fn from(error: PyErr) -> Self {
        Self {
            path: String::new(),
            error,
        }
    }
}

impl Unmade {
    /// The same, as seen from the container that has it at `step`.
    fn below(self, step: &str) -> Self {
        Self {
            path: format!("{step}{}", self.path),
            error: self.error,
        }
    }

    /// What to raise: what went wrong in the container's own code, under its path. Interruptions and want of memory are no
    /// fault of the container's.
    fn raised(self, py: Python<'_>) -> PyErr {
        let (path, error) = (named(&self.path), self.error);
        if !error.is_instance_of::<PyException>(py) || error.is_instance_of::<PyMemoryError>(py) {
            return error;
        }
        let message = format!("making {path} again, with what was moved in it: {error}");
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

/// A key as one would write it.
fn shown(key: &Bound<'_, PyAny>) -> String {
    key.repr()
        .map_or_else(|_| "?".to_owned(), |text| text.to_string())
}

/// A tree on its way to be taken apart.
struct Taking<'a, 'py> {
    tensor_type: Option<&'a Bound<'py, PyType>>,
    open: &'a Bound<'py, PyAny>,
    /// The number of each leaf, by its address.
    numbers: HashMap<usize, usize, BuildHasherDefault<AddressHasher>>,
    leaves: Vec<Py<PyAny>>,
    /// Leaves met so far, each as often as it was.
    met: usize,
}

impl<'py> Taking<'_, 'py> {
    fn take(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Node> {
        if self.is_tensor(object) {
            return Ok(self.leaf(object));
        }
        let _deeper = Deeper::new(object.py())?;
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            let mut items = Vec::with_capacity(dict.len());
            self.expect(dict.len());
            for (key, value) in dict.iter() {
                items.push((key.unbind(), self.take(&value)?));
            }
            return Ok(Node::Dict(items));
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return Ok(Node::List(self.take_all(list.iter())?));
        }
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return Ok(Node::Tuple(self.take_all(tuple.iter())?));
        }
        if is_scalar(object) {
            return Ok(Node::Other(object.clone().unbind()));
        }
        self.open(object)
    }

    fn take_all(&mut self, objects: impl ExactSizeIterator<Item = Bound<'py, PyAny>>) -> PyResult<Vec<Node>> {
        let mut nodes = Vec::with_capacity(objects.len());
        self.expect(objects.len());
        for object in objects {
            nodes.push(self.take(&object)?);
        }
        Ok(nodes)
    }

    /// Makes room for the leaves of a container, as far as it is likely to have so many.
    fn expect(&mut self, children: usize) {
        let children = children.min(4096);
        self.leaves.reserve(children);
        self.numbers.reserve(children);
    }

    /// Asks the package what an object is.
    fn open(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Node> {
        let opened = self.open.call1((object,))?;
        if opened.is_none() {
            return Ok(Node::Other(object.clone().unbind()));
        }
        if opened.is_instance_of::<PyBool>() {
            return Ok(self.leaf(object));
        }
        let (children, steps, rebuild): (Bound<'py, PyList>, Vec<String>, Py<PyAny>) = opened.extract()?;
        if steps.len() != children.len() {
            return Err(PyValueError::new_err(format!(
                "opening a {} gave {} children and {} steps to them",
                object.get_type().name()?,
                children.len(),
                steps.len()
            )));
        }
        let before = self.met;
        let children = self.take_all(children.iter())?;
        if self.met == before {
            // Nothing in it moves: a configuration, a `torch.Size`.
            return Ok(Node::Other(object.clone().unbind()));
        }
        Ok(Node::Opened(Opened {
            steps,
            children,
            rebuild,
        }))
    }

    fn leaf(&mut self, object: &Bound<'py, PyAny>) -> Node {
        self.met += 1;
        let number = *self.numbers.entry(object.as_ptr() as usize).or_insert_with(|| {
            self.leaves.push(object.clone().unbind());
            self.leaves.len() - 1
        });
        Node::Leaf(number)
    }

    fn is_tensor(&self, object: &Bound<'py, PyAny>) -> bool {
        self.tensor_type.is_some_and(|tensor_type| {
            let (object, tensor_type) = (object.get_type_ptr(), tensor_type.as_type_ptr());
            // SAFETY: both are types, alive while their objects are.
            object == tensor_type || unsafe { ffi::PyType_IsSubtype(object, tensor_type) } != 0
        })
    }
}

fn is_scalar(object: &Bound<'_, PyAny>) -> bool {
    object.is_none()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyString>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
        || object.is_exact_instance_of::<PyBytes>()
}

/// One level of recursion, counted by Python: a tree that holds itself raises `RecursionError`.
struct Deeper;

impl Deeper {
    fn new(py: Python<'_>) -> PyResult<Self> {
        const DOING: &CStr = c" while a tree was taken apart";
        // SAFETY: the interpreter is attached, and the text is static.
        match unsafe { ffi::Py_EnterRecursiveCall(DOING.as_ptr()) } {
            0 => Ok(Self),
            _ => Err(PyErr::fetch(py)),
        }
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        // SAFETY: entered by `new`, on this thread.
        unsafe { ffi::Py_LeaveRecursiveCall() };
    }
}

/// Spreads addresses of objects over a table: one multiplication. Who could choose them to collide runs in this process.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(byte.into()));
    }

    fn write_usize(&mut self, address: usize) {
        // The odd number next to 2^64 divided by the golden ratio. Tables take a hash's first and last bits.
        let spread = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
