//! Taking a tree apart: each container once, each leaf with a number. Code of others may run meanwhile, and do anything to what
//! is being taken apart.

use std::{
    collections::HashMap,
    ffi::CStr,
    hash::{BuildHasherDefault, Hasher},
};

use pyo3::{
    exceptions::{PyRecursionError, PyValueError},
    ffi,
    prelude::*,
    types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType},
};

use super::{Failed, Node, Opened, index, shown};

/// A tree on its way to be taken apart.
pub(super) struct Taking<'a, 'py> {
    tensor_type: Option<&'a Bound<'py, PyType>>,
    open: &'a Bound<'py, PyAny>,
    /// The number of each leaf, by its address.
    numbers: HashMap<usize, usize, BuildHasherDefault<AddressHasher>>,
    leaves: Vec<Py<PyAny>>,
    /// Leaves met so far, each as often as it was.
    met: usize,
    /// Containers around what is being looked at.
    levels: usize,
}

impl<'a, 'py> Taking<'a, 'py> {
    pub(super) fn new(tensor_type: Option<&'a Bound<'py, PyType>>, open: &'a Bound<'py, PyAny>) -> Self {
        Self {
            tensor_type,
            open,
            numbers: HashMap::default(),
            leaves: Vec::new(),
            met: 0,
            levels: 0,
        }
    }

    /// The different leaves, in order.
    pub(super) fn into_leaves(self) -> Vec<Py<PyAny>> {
        self.leaves
    }

    pub(super) fn take(&mut self, object: &Bound<'py, PyAny>) -> Result<Node, Failed> {
        if self.is_tensor(object) {
            return Ok(self.leaf(object));
        }
        if is_scalar(object) {
            return Ok(Node::Other(object.clone().unbind()));
        }
        let _deeper = Deeper::new(object.py())?;
        if self.levels == MOST_LEVELS {
            let message = format!("a tree is nested deeper than {MOST_LEVELS} levels");
            return Err(PyRecursionError::new_err(message).into());
        }
        self.levels += 1;
        let node = self.take_container(object);
        self.levels -= 1;
        node
    }

    fn take_container(&mut self, object: &Bound<'py, PyAny>) -> Result<Node, Failed> {
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            self.expect(dict.len());
            // Opening what is in it runs code of others, which may write to it.
            let found: Vec<_> = dict.iter().collect();
            let mut items = Vec::with_capacity(found.len());
            for (key, value) in found {
                let node = self.take(&value);
                let node = node.map_err(|failed| failed.below(&format!("[{}]", shown(&key))))?;
                items.push((key.unbind(), node));
            }
            return Ok(Node::Dict(items));
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return Ok(Node::List(self.take_all(list.iter(), index)?));
        }
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return Ok(Node::Tuple(self.take_all(tuple.iter(), index)?));
        }
        self.open(object)
    }

    /// `step` says how to get from their container to each.
    fn take_all(
        &mut self,
        objects: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
        step: impl Fn(usize) -> String,
    ) -> Result<Vec<Node>, Failed> {
        let mut nodes = Vec::with_capacity(objects.len());
        self.expect(objects.len());
        for (number, object) in objects.enumerate() {
            let node = self.take(&object);
            nodes.push(node.map_err(|failed| failed.below(&step(number)))?);
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
    fn open(&mut self, object: &Bound<'py, PyAny>) -> Result<Node, Failed> {
        let opened = self.open.call1((object,))?;
        if opened.is_none() {
            return Ok(Node::Other(object.clone().unbind()));
        }
        if opened.is_instance_of::<PyBool>() {
            return Ok(self.leaf(object));
        }
        let (children, steps, rebuild): (Bound<'py, PyList>, Vec<String>, Py<PyAny>) = opened.extract()?;
        if steps.len() != children.len() {
            let (kind, children, steps) = (object.get_type().name()?, children.len(), steps.len());
            let message = format!("opening a {kind} gave {children} children and {steps} steps to them");
            return Err(PyValueError::new_err(message).into());
        }
        let before = self.met;
        let children = self.take_all(children.iter(), |number| steps[number].clone())?;
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

/// So many containers may be around a leaf: as many as Python has levels unless told. Where it was told of more, the stack has not
/// grown with that.
const MOST_LEVELS: usize = 1000;

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
