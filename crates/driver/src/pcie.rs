//! PCI Express links: generation and width, what copies over them reach, and how one runs at this moment.

use std::fmt;

/// Bytes per second of one lane that pinned copies reach, by generation, from the first: about 0.8 of the signalling
/// rate in the older ones (measured: 12.8 GB/s for Gen3 x16, 26 for Gen4 x16, 55.2 for Gen5 x16).
const LANE: [f64; 6] = [0.2e9, 0.4e9, 0.8e9, 1.62e9, 3.45e9, 6.9e9];

/// A link's generation and width. Prints as `PCIe Gen5 x16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcieLink {
    generation: u32,
    width: u32,
}

impl PcieLink {
    /// `None` for numbers that no link has.
    #[must_use]
    pub fn new(generation: u32, width: u32) -> Option<Self> {
        let exists = (1..=LANE.len()).contains(&(generation as usize)) && (1..=32).contains(&width);
        exists.then_some(Self { generation, width })
    }

    /// From 1 on.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// Lanes.
    #[must_use]
    pub fn width(self) -> u32 {
        self.width
    }

    /// What pinned copies reach in one direction.
    #[must_use]
    pub fn bytes_per_second(self) -> f64 {
        LANE[self.generation as usize - 1] * f64::from(self.width)
    }

    /// Whether the other has a higher generation or more lanes.
    #[must_use]
    pub fn is_below(self, other: Self) -> bool {
        self.generation < other.generation || self.width < other.width
    }
}

impl fmt::Display for PcieLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCIe Gen{} x{}", self.generation, self.width)
    }
}

/// How a device's link runs at this moment, and how it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkState {
    /// As it is. A device that idles may lower it to save power: it means something only while bytes are moved.
    pub now: PcieLink,
    /// The most that the device reaches in its slot, where it is told.
    pub in_slot: Option<PcieLink>,
    /// The most that the device reaches in the best of slots, where it is told.
    pub by_itself: Option<PcieLink>,
}

impl LinkState {
    /// A link of which only the present is known.
    #[must_use]
    pub fn new(now: PcieLink) -> Self {
        Self {
            now,
            in_slot: None,
            by_itself: None,
        }
    }

    /// The most that the device reaches in its slot. What is below the link as it runs is not believed.
    #[must_use]
    pub fn in_slot(self, most: Option<PcieLink>) -> Self {
        Self {
            in_slot: most.filter(|most| !most.is_below(self.now)),
            ..self
        }
    }

    /// The most that the device reaches in the best of slots. What is below the link as it runs is not believed.
    #[must_use]
    pub fn by_itself(self, most: Option<PcieLink>) -> Self {
        Self {
            by_itself: most.filter(|most| !most.is_below(self.now)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_named_and_rated_by_its_generation_and_width() {
        let link = PcieLink::new(5, 16).unwrap();
        assert_eq!(link.to_string(), "PCIe Gen5 x16");
        assert_eq!(link.bytes_per_second(), 55.2e9);
        let narrow = PcieLink::new(4, 8).unwrap();
        assert_eq!(narrow.to_string(), "PCIe Gen4 x8");
        assert!(narrow.bytes_per_second() < 14e9);
    }

    #[test]
    fn a_link_that_no_device_has_is_not_believed() {
        for (generation, width) in [(0, 16), (9, 16), (5, 0), (5, 255)] {
            assert_eq!(PcieLink::new(generation, width), None);
        }
    }

    #[test]
    fn a_most_that_is_less_than_what_runs_is_not_believed() {
        let link = |generation, width| PcieLink::new(generation, width).unwrap();
        let state = LinkState::new(link(5, 8))
            .in_slot(Some(link(5, 16)))
            .by_itself(Some(link(4, 16)));
        assert_eq!((state.in_slot, state.by_itself), (Some(link(5, 16)), None));
    }

    #[test]
    fn a_link_is_below_another_that_is_newer_or_wider() {
        let link = |generation, width| PcieLink::new(generation, width).unwrap();
        assert!(link(4, 16).is_below(link(5, 16)) && link(5, 8).is_below(link(5, 16)));
        assert!(!link(5, 16).is_below(link(5, 16)) && !link(5, 16).is_below(link(4, 8)));
    }
}
