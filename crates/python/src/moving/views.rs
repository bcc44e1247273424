//! Making the tensors over the memory that results land in.

use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyList, PyTuple},
};

use super::{
    Group, Leaf, Start,
    rooms::{Place, Room},
};

impl<'py> Start<'_, 'py> {
    /// Makes the tensors over the rooms: those over one room in one call, and equal neighbours of them at once.
    pub(super) fn make_views(
        &mut self,
        group: &Group,
        rooms: &[Room<'py>],
        places: &[Place],
    ) -> PyResult<()> {
        let py = self.py;
        let mut first = 0;
        while first < group.leaves.len() {
            let is_array = |index: usize| self.examples[group.leaves[index].form].1;
            let (room, as_arrays) = (places[first].0, is_array(first));
            let end = (first..group.leaves.len())
                .find(|&other| places[other].0 != room || is_array(other) != as_arrays)
                .unwrap_or(group.leaves.len());
            let runs = self.runs(&group.leaves[first..end], &places[first..end])?;
            let method = if as_arrays {
                intern!(py, "arrays")
            } else {
                intern!(py, "tensors")
            };
            let views = self.plan.call_method1(method, (&rooms[room].object, runs))?;
            let views = views.cast_into::<PyList>()?;
            if views.len() != end - first {
                return Err(PyValueError::new_err(format!(
                    "{} views were made of {} leaves",
                    views.len(),
                    end - first
                )));
            }
            for (leaf, view) in group.leaves[first..end].iter().zip(views) {
                self.results[leaf.number] = Some(view.unbind());
            }
            first = end;
        }
        Ok(())
    }

    /// Leaves in one room as runs of equal neighbours: one of them, shape and strides of each, where the first begins, how many
    /// there are, and how far apart they begin.
    fn runs(&self, leaves: &[Leaf], places: &[Place]) -> PyResult<Bound<'py, PyList>> {
        let py = self.py;
        let runs = PyList::empty(py);
        let mut first = 0;
        while first < leaves.len() {
            let leaf = &leaves[first];
            let count = leaves[first..]
                .iter()
                .take_while(|next| next.form == leaf.form)
                .count();
            let offset = places[first].1;
            let step = if count > 1 {
                places[first + 1].1 - offset
            } else {
                0
            };
            let form = self.forms.get(leaf.form);
            let (shape, strides) = (PyTuple::new(py, &*form.shape)?, PyTuple::new(py, form.strides())?);
            runs.append((&self.examples[leaf.form].0, shape, strides, offset, count, step))?;
            first += count;
        }
        Ok(runs)
    }
}
