//! A map that holds so many values, and forgets the one that was not used for longest.

use hashbrown::HashMap;

/// The slot that stands between the newest and the oldest.
const ENDS: usize = 0;

/// Values by number, in a ring of slots from the newest to the oldest.
#[derive(Debug)]
pub(crate) struct Lru<T> {
    slots: Vec<Slot<T>>,
    by_key: HashMap<usize, usize>,
    unused: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    key: usize,
    value: Option<T>,
    newer: usize,
    older: usize,
}

impl<T: Clone> Lru<T> {
    pub(crate) fn new() -> Self {
        let ends = Slot { key: 0, value: None, newer: ENDS, older: ENDS };
        Self { slots: vec![ends], by_key: HashMap::new(), unused: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns a value, which is then the newest.
    pub(crate) fn get(&mut self, key: usize) -> Option<T> {
        let slot = *self.by_key.get(&key)?;
        self.unlink(slot);
        self.link(slot);
        self.slots[slot].value.clone()
    }

    /// Adds a value under a key that has none.
    pub(crate) fn insert(&mut self, key: usize, value: T) {
        let filled = Slot { key, value: Some(value), newer: ENDS, older: ENDS };
        let slot = match self.unused.pop() {
            Some(slot) => {
                self.slots[slot] = filled;
                slot
            }
            None => {
                self.slots.push(filled);
                self.slots.len() - 1
            }
        };
        self.by_key.insert(key, slot);
        self.link(slot);
    }

    /// Takes out the value that was not used for longest.
    pub(crate) fn pop_oldest(&mut self) -> Option<T> {
        let slot = self.slots[ENDS].newer;
        let value = self.slots[slot].value.take()?;
        self.by_key.remove(&self.slots[slot].key);
        self.unlink(slot);
        self.unused.push(slot);
        Some(value)
    }

    /// Puts a slot before the newest.
    fn link(&mut self, slot: usize) {
        let newest = self.slots[ENDS].older;
        (self.slots[slot].newer, self.slots[slot].older) = (ENDS, newest);
        self.slots[newest].newer = slot;
        self.slots[ENDS].older = slot;
    }

    fn unlink(&mut self, slot: usize) {
        let Slot { newer, older, .. } = self.slots[slot];
        self.slots[newer].older = older;
        self.slots[older].newer = newer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut lru = Lru::new();
        assert_eq!(lru.pop_oldest(), None);
        for key in [10, 20, 30] {
            lru.insert(key, key + 1);
        }
        assert_eq!((lru.get(10), lru.get(40)), (Some(11), None));
        assert_eq!((lru.pop_oldest(), lru.len()), (Some(21), 2));
        lru.insert(50, 51);
        assert_eq!(lru.slots.len(), 4, "slots are used again");
        let order: Vec<_> = std::iter::from_fn(|| lru.pop_oldest()).collect();
        assert_eq!((order, lru.get(50)), (vec![31, 11, 51], None));
    }
}
