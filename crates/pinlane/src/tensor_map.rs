//! Nested, ordered, named tensors.

use indexmap::{IndexMap, map::Entry};

use crate::{Error, Result, Tensor, Tree};

/// The deepest nesting: every walk of a tree recurses, which an ordinary thread's stack of 2 MiB has to stand, and a
/// tree deeper than this is a mistake.
const DEEPEST: usize = 1024;

/// Named tensors and maps of them, in the order in which they were inserted: what torch users know as a TensorDict or
/// a state dict. Moves as one.
///
/// Names may contain dots, as those of checkpoints do. A path joins the names on the way with dots.
///
/// ```
/// use pinlane::{DType, Device, Tensor, TensorMap, Tree};
///
/// let mut layer = TensorMap::new();
/// layer.insert("weight", Tensor::randn(DType::F32, &[4, 4], 1)?)?;
/// layer.insert("bias", Tensor::zeros(DType::F32, &[4])?)?;
/// let mut model = TensorMap::new();
/// model.insert("layer", layer)?;
///
/// let there = model.to(&Device::open("sim:0")?)?;
/// let back = there.to(&Device::host())?;
/// assert_eq!(back.get("layer.bias").expect("inserted above").sum()?, 0.0);
/// assert_eq!(back.flatten().map(|(path, _)| path).collect::<Vec<_>>(), ["layer.weight", "layer.bias"]);
/// # Ok::<(), pinlane::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TensorMap {
    entries: IndexMap<String, Node>,
    /// Levels of maps below this one.
    height: usize,
    /// Tensors on all levels.
    tensors: usize,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Node {
    /// A tensor.
    Tensor(Tensor),
    /// A map of its own.
    Map(TensorMap),
}

impl From<Tensor> for Node {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl From<TensorMap> for Node {
    fn from(map: TensorMap) -> Self {
        Self::Map(map)
    }
}

impl TensorMap {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor or a map under a new name.
    ///
    /// # Errors
    ///
    /// [`Error::DuplicateName`] where the name is taken; [`Error::BadName`] where it is empty, or where the map would be
    /// nested more than 1024 levels deep. The map stays as it was.
    pub fn insert(&mut self, name: impl Into<String>, node: impl Into<Node>) -> Result<()> {
        let (name, node) = (name.into(), node.into());
        if name.is_empty() {
            return Err(Error::BadName {
                name,
                reason: "a name must not be empty",
            });
        }
        let free = match self.entries.entry(name) {
            Entry::Vacant(free) => free,
            Entry::Occupied(taken) => {
                return Err(Error::DuplicateName {
                    path: taken.key().clone(),
                });
            }
        };
        match &node {
            Node::Tensor(_) => self.tensors += 1,
            Node::Map(map) if map.height + 1 < DEEPEST => {
                self.height = self.height.max(map.height + 1);
                self.tensors += map.tensors;
            }
            Node::Map(_) => {
                return Err(Error::BadName {
                    name: free.into_key(),
                    reason: "the tree would be nested more than 1024 levels deep",
                });
            }
        }
        free.insert(node);
        Ok(())
    }

    /// A flat map of tensors whose names are all different, and none of them empty.
    pub(crate) fn of_unique(named: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let named = named.into_iter();
        let entries: IndexMap<_, _> = named.map(|(name, tensor)| (name, Node::Tensor(tensor))).collect();
        Self {
            tensors: entries.len(),
            entries,
            height: 0,
        }
    }

    /// The tensor at a path, such as `layer.weight`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Tensor> {
        match self.node(path)? {
            Node::Tensor(tensor) => Some(tensor),
            Node::Map(_) => None,
        }
    }

    /// The map at a path.
    #[must_use]
    pub fn get_map(&self, path: &str) -> Option<&TensorMap> {
        match self.node(path)? {
            Node::Map(map) => Some(map),
            Node::Tensor(_) => None,
        }
    }

    /// What is at a path. Where names contain dots, the whole path as one name comes first, then the shortest name on
    /// the way that leads there.
    fn node(&self, path: &str) -> Option<&Node> {
        if let Some(node) = self.entries.get(path) {
            return Some(node);
        }
        path.match_indices('.')
            .find_map(|(dot, _)| match self.entries.get(&path[..dot])? {
                Node::Map(map) => map.node(&path[dot + 1..]),
                Node::Tensor(_) => None,
            })
    }

    /// Names and what they stand for, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// Names of this level.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every tensor with its path, in order.
    pub fn flatten(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let mut flat = Vec::new();
        self.flatten_into(&mut String::new(), &mut flat);
        flat.into_iter()
    }

    /// The path of the tensor that is visited as number `index`. Moving into a tree asks for each of them, so a flat map finds
    /// it at once, and others pass over whole maps.
    fn path_to(&self, mut index: usize) -> Option<String> {
        if self.height == 0 {
            return Some(self.entries.get_index(index)?.0.clone());
        }
        for (name, node) in &self.entries {
            let tensors = match node {
                Node::Tensor(_) if index == 0 => return Some(name.clone()),
                Node::Tensor(_) => 1,
                Node::Map(map) if index < map.tensors => {
                    return Some(format!("{name}.{}", map.path_to(index)?));
                }
                Node::Map(map) => map.tensors,
            };
            index -= tensors;
        }
        None
    }

    fn flatten_into<'a>(&'a self, path: &mut String, flat: &mut Vec<(String, &'a Tensor)>) {
        let parent = path.len();
        for (name, node) in &self.entries {
            if parent > 0 {
                path.push('.');
            }
            path.push_str(name);
            match node {
                Node::Tensor(tensor) => flat.push((path.clone(), tensor)),
                Node::Map(map) => map.flatten_into(path, flat),
            }
            path.truncate(parent);
        }
    }
}

impl Tree for TensorMap {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Tensor)) {
        for node in self.entries.values() {
            match node {
                Node::Tensor(tensor) => visit(tensor),
                Node::Map(map) => map.visit(visit),
            }
        }
    }

    fn rebuild(&self, next: &mut dyn FnMut() -> Tensor) -> Self {
        let entries = self.entries.iter().map(|(name, node)| {
            let node = match node {
                Node::Tensor(_) => Node::Tensor(next()),
                Node::Map(map) => Node::Map(map.rebuild(next)),
            };
            (name.clone(), node)
        });
        Self {
            entries: entries.collect(),
            height: self.height,
            tensors: self.tensors,
        }
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Tensor)) -> bool {
        for node in self.entries.values_mut() {
            match node {
                Node::Tensor(tensor) => visit(tensor),
                Node::Map(map) => {
                    map.visit_mut(visit);
                }
            }
        }
        true
    }

    fn has_names(&self) -> bool {
        true
    }

    fn path(&self, index: usize) -> String {
        self.path_to(index).unwrap_or_else(|| format!("#{index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn every_tensor_is_found_under_the_path_it_is_visited_by() {
        let tensor = || Tensor::zeros(DType::U8, &[1]).unwrap();
        let map = |nodes: Vec<(&str, Node)>| {
            let mut map = TensorMap::new();
            for (name, node) in nodes {
                map.insert(name, node).unwrap();
            }
            map
        };
        let flat = map(vec![("a.b", tensor().into()), ("c", tensor().into())]);
        let nested = map(vec![
            ("first", tensor().into()),
            ("none", TensorMap::new().into()),
            ("flat", flat.clone().into()),
            ("deep", map(vec![("flat", flat.clone().into())]).into()),
            ("last", tensor().into()),
        ]);
        for map in [flat, nested] {
            for tree in [&map, &map.rebuild(&mut || tensor())] {
                let paths: Vec<_> = tree.flatten().map(|(path, _)| path).collect();
                let found: Vec<_> = (0..paths.len()).map(|index| tree.path(index)).collect();
                assert_eq!(found, paths);
                assert_eq!(tree.path(paths.len()), format!("#{}", paths.len()));
            }
        }
    }
}
