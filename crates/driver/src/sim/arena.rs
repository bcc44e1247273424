//! Slots with generations: a handle to something that was removed is told from a handle to what took its place.

/// Names one value of one [`Arena`]. Never zero, so that it can serve as a raw handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

impl Key {
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
struct Slot<T> {
    /// Of the value that is here, or of the next one. Starts at 1 and skips 0.
    generation: u32,
    value: Option<T>,
}

/// Values under stable keys, in slots that are used again.
#[derive(Debug)]
pub(super) struct Arena<T> {
    slots: Vec<Slot<T>>,
    vacant: Vec<u32>,
}

impl<T> Arena<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.vacant.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Key::new(index, slot.generation);
        }
        let index = u32::try_from(self.slots.len()).expect("no process holds four billion handles");
        self.slots.push(Slot {
            generation: 1,
            value: Some(value),
        });
        Key::new(index, 1)
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index())?;
        slot.value
            .as_ref()
            .filter(|_| slot.generation == key.generation())
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        slot.value
            .as_mut()
            .filter(|_| slot.generation == key.generation())
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = &mut self.slots[key.index()];
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.vacant.push(key.index() as u32);
        slot.value.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let value = slot.value.as_ref()?;
            Some((Key::new(index as u32, slot.generation), value))
        })
    }

    /// The keys of all values at this moment, for walks that change the arena.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_to_a_removed_value_does_not_reach_its_successor() {
        let mut arena = Arena::new();
        let old = arena.insert("old");
        assert_eq!(arena.remove(old), Some("old"));
        let new = arena.insert("new");
        assert_eq!(arena.get(old), None);
        assert_eq!(arena.remove(old), None);
        assert_eq!(arena.get(new), Some(&"new"));
        assert_eq!(arena.keys(), [new]);
    }
}
