//! A flat tree of named tensors: a part of what checkpoints move.

use pinlane_driver::sync::Arc;

use super::{Entry, LoadOptions};
use crate::{HostMemory, Placement, Result, Tensor, Tree, file::to_host::read_to_host_as};

/// Tensors and their names, which the trees that this becomes by moving share.
#[derive(Clone, Debug)]
pub(super) struct Named {
    names: Arc<Vec<String>>,
    tensors: Vec<Tensor>,
}

impl Named {
    /// Tensors with a name each.
    pub(super) fn new(named: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let (names, tensors) = named.into_iter().unzip();
        Self {
            names: Arc::new(names),
            tensors,
        }
    }

    /// Tensors of a checkpoint, where they lie.
    pub(super) fn of<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Result<Self> {
        let named = entries.map(|entry| Ok((entry.name().to_owned(), entry.tensor()?)));
        Ok(Self::new(named.collect::<Result<Vec<_>>>()?))
    }

    /// The tensors, which lie in files, in memory of the host, as what `options` say that they become.
    pub(super) fn read_to_host(
        self,
        options: &LoadOptions,
        memory: HostMemory<'_>,
        placement: Placement,
    ) -> Result<Self> {
        let numbered: Vec<_> = self.tensors.iter().enumerate().collect();
        let read = read_to_host_as(&numbered, |dtype| options.becomes(dtype), memory, placement);
        let tensors = read.map_err(|failure| failure.named(|index| self.path(index)))?;
        Ok(Self { tensors, ..self })
    }
}

impl IntoIterator for Named {
    type Item = (String, Tensor);
    type IntoIter = std::iter::Zip<std::vec::IntoIter<String>, std::vec::IntoIter<Tensor>>;

    fn into_iter(self) -> Self::IntoIter {
        let names = Arc::try_unwrap(self.names).unwrap_or_else(|shared| (*shared).clone());
        names.into_iter().zip(self.tensors)
    }
}

impl Tree for Named {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        self.tensors.iter().for_each(visit);
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        Self {
            names: Arc::clone(&self.names),
            tensors: self.tensors.iter().map(|_| next()).collect(),
        }
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        self.tensors.iter_mut().for_each(visit);
        true
    }

    fn has_names(&self) -> bool {
        true
    }

    fn path(&self, index: usize) -> String {
        self.names
            .get(index)
            .map_or_else(|| format!("#{index}"), Clone::clone)
    }
}
