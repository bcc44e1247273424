//! Looking at each leaf once: what moves, and from where.

use pinlane::{Device, Error};
use pyo3::{intern, prelude::*, types::PyType};

use super::{Group, Leaf, Start};
use crate::{
    devices, errors,
    exchange::{self, Space},
    flight::Source,
    simulated, tree,
};

impl<'py> Start<'_, 'py> {
    /// Finds the result, or the group, of every leaf.
    pub(super) fn survey(&mut self) -> PyResult<()> {
        let taken_apart = self.tree.clone();
        for (number, leaf) in taken_apart.get().leaves().iter().enumerate() {
            let leaf = leaf.bind(self.py);
            let may_be_plain = !self.wishes.convert && self.is_plain(leaf)?;
            if !may_be_plain || !self.survey_leaf(number, leaf, false)? {
                self.survey_odd(number, leaf)?;
            }
        }
        Ok(())
    }

    /// Whether a leaf is a tensor that moves as the bytes that it is.
    fn is_plain(&self, leaf: &Bound<'py, PyAny>) -> PyResult<bool> {
        let py = self.py;
        let is_of = |known: &Option<Bound<'py, PyType>>| {
            known
                .as_ref()
                .is_some_and(|known| leaf.get_type_ptr() == known.as_type_ptr())
        };
        if !is_of(&self.wishes.tensor_type) && !is_of(&self.wishes.parameter_type) {
            return Ok(false);
        }
        if self.wishes.grads && leaf.getattr(intern!(py, "requires_grad"))?.is_truthy()? {
            return Ok(false);
        }
        let Some(is_neg) = &self.wishes.is_neg else {
            return Ok(false);
        };
        let told = exchange::ask(is_neg, leaf)?;
        Ok(!told.is_truthy()?)
    }

    /// Looks at a leaf that the engine can move as it is; says whether it can.
    fn survey_leaf(&mut self, number: usize, leaf: &Bound<'py, PyAny>, is_array: bool) -> PyResult<bool> {
        let forms = &mut self.forms;
        let look = |seen: exchange::Description<'_>| -> Result<_, Error> {
            Ok((seen.space, seen.address, forms.number_of(&seen)?))
        };
        let seen = if is_array {
            Some(exchange::with_array(leaf, look)?)
        } else {
            exchange::with_tensor(leaf, look)?
        };
        let Some(seen) = seen else {
            return Ok(false);
        };
        let seen = seen.map_err(|error| self.at(number, error))?;
        let (space, address, Some(form)) = seen else {
            return Ok(false);
        };
        // A form that is new has the next number, whatever becomes of this leaf.
        if self.examples.len() <= form {
            self.examples.push((leaf.clone(), is_array));
        }
        if self.forms.get(form).may_be_conjugate
            && !is_array
            && leaf.call_method0(intern!(self.py, "is_conj"))?.is_truthy()?
        {
            return Ok(false);
        }
        if address == 0 && self.forms.get(form).bytes > 0 {
            let why = "has elements and no memory: its storage was freed, or never had any";
            return Err(self.unsupported(number, leaf, why)?);
        }
        let from = match space {
            Space::Cuda(ordinal) => self.gpu(ordinal)?,
            Space::Host => simulated::device_of(address).unwrap_or_else(Device::host),
        };
        if from == self.target && !self.wishes.copies {
            self.results[number] = Some(leaf.clone().unbind());
            return Ok(true);
        }
        if from.is_host() && self.target.is_host() {
            let copy = self.plan.call_method1(intern!(self.py, "copied"), (leaf,))?;
            self.results[number] = Some(copy.unbind());
            return Ok(true);
        }
        if !from.is_host() && !self.forms.get(form).is_dense() {
            // Devices don't gather: torch packs it where it is.
            let packed = self.plan.call_method1(intern!(self.py, "packed"), (leaf,));
            let packed = packed.map_err(|error| {
                errors::of_leaf(self.py, error, || self.tree.get().path_of(self.py, number))
            })?;
            self.replacements.push(packed.clone().unbind());
            return self.survey_leaf(number, &packed, is_array);
        }
        if self.wishes.watch && !is_array {
            self.sources.push(Source::of(number, leaf, address)?);
        }
        let leaf = Leaf {
            number,
            address,
            form,
        };
        match self.groups.iter_mut().rev().find(|group| group.from == from) {
            Some(group) => group.leaves.push(leaf),
            None => {
                let mut leaves = Vec::with_capacity(self.results.len() - number);
                leaves.push(leaf);
                self.groups.push(Group { from, leaves });
            }
        }
        Ok(true)
    }

    /// A GPU that a leaf lies on: mostly the one of the leaf before.
    fn gpu(&mut self, ordinal: u32) -> PyResult<Device> {
        match &self.last_gpu {
            Some((known, device)) if *known == ordinal => Ok(device.clone()),
            _ => {
                let device = devices::open(self.py, &format!("cuda:{ordinal}"))?;
                self.last_gpu = Some((ordinal, device.clone()));
                Ok(device)
            }
        }
    }

    /// Has the package say what to do with a leaf.
    fn survey_odd(&mut self, number: usize, leaf: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py;
        type Prepared<'py> = (
            Option<Py<PyAny>>,
            Option<Bound<'py, PyAny>>,
            bool,
            Option<Py<PyAny>>,
        );
        let path = self.tree.get().path_of(py, number);
        let prepared = self
            .plan
            .call_method1(intern!(py, "prepare"), (leaf, path.clone()))
            .map_err(|error| errors::of_leaf(py, error, || path.clone()))?;
        let (result, replacement, is_array, finish): Prepared<'py> = prepared.extract()?;
        self.results[number] = result;
        self.finishes.extend(finish.map(|finish| (number, finish)));
        let Some(replacement) = replacement else {
            return Ok(());
        };
        if self.survey_leaf(number, &replacement, is_array)? {
            self.replacements.push(replacement.unbind());
            return Ok(());
        }
        let why = "has no strided memory on the host or a device that pinlane knows";
        Err(self.unsupported(number, leaf, why)?)
    }

    /// The exception for a leaf that can't move.
    fn unsupported(&self, number: usize, leaf: &Bound<'py, PyAny>, why: &str) -> PyResult<PyErr> {
        let path = tree::named(&self.tree.get().path_of(self.py, number));
        let kind = leaf.get_type().fully_qualified_name()?;
        let message = format!("moving {path}: a {kind} {why}");
        Ok(errors::raise(self.py, "UnsupportedLeafError", message))
    }
}
