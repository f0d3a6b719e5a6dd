//! The order of work: the largest image first, so that the last worker does not end alone, and not more than so many items at
//! the same time on one device.

use std::collections::{BTreeMap, VecDeque};

/// The items that wait for a worker.
#[derive(Debug)]
pub struct Schedule {
    /// Of each device, the numbers of its items with their sizes, the largest first, and how many of it run.
    devices: BTreeMap<u64, Device>,
    per_device: usize,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Device {
    waiting: VecDeque<(u64, usize)>,
    running: usize,
}

/// What a worker is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This item, which lies on this device.
    Item {
        /// Number of the item.
        number: usize,
        /// The device, for [`Schedule::finish`].
        device: u64,
    },
    /// Wait until another item has ended: each device that has items works on as many as it may.
    Wait,
    /// Nothing.
    Empty,
}

impl Schedule {
    /// Orders items by their sizes; `per_device` of one device run at the same time at most. Items of one size keep their order.
    pub fn new(weights: impl IntoIterator<Item = (u64, u64)>, per_device: Option<usize>) -> Self {
        let mut devices: BTreeMap<u64, Device> = BTreeMap::new();
        let mut waiting = 0;
        for (number, (size, device)) in weights.into_iter().enumerate() {
            devices.entry(device).or_default().waiting.push_back((size, number));
            waiting += 1;
        }
        for device in devices.values_mut() {
            device.waiting.make_contiguous().sort_by_key(|(size, number)| (std::cmp::Reverse(*size), *number));
        }
        Self { devices, per_device: per_device.unwrap_or(usize::MAX).max(1), waiting }
    }

    /// Takes the largest item of a device that is not busy.
    pub fn take(&mut self) -> Next {
        if self.waiting == 0 {
            return Next::Empty;
        }
        let free = self.devices.iter_mut().filter(|(_, device)| device.running < self.per_device);
        let best = free.filter_map(|(id, device)| Some((*device.waiting.front()?, *id, device)));
        let Some(((_, number), device, entry)) =
            best.max_by_key(|((size, number), ..)| (*size, std::cmp::Reverse(*number)))
        else {
            return Next::Wait;
        };
        entry.waiting.pop_front();
        entry.running += 1;
        self.waiting -= 1;
        Next::Item { number, device }
    }

    /// An item of this device has ended.
    pub fn finish(&mut self, device: u64) {
        if let Some(device) = self.devices.get_mut(&device) {
            device.running = device.running.saturating_sub(1);
        }
    }

    /// Takes all items that wait; none of them is going to begin.
    pub fn drain(&mut self) -> Vec<usize> {
        self.waiting = 0;
        let mut left: Vec<usize> =
            self.devices.values_mut().flat_map(|device| device.waiting.drain(..)).map(|(_, number)| number).collect();
        left.sort_unstable();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_goes_first_and_a_busy_device_waits() {
        let mut schedule = Schedule::new([(5, 1), (9, 1), (7, 2), (9, 1)], Some(1));
        let item = |number, device| Next::Item { number, device };
        assert_eq!(schedule.take(), item(1, 1));
        assert_eq!(schedule.take(), item(2, 2));
        assert_eq!(schedule.take(), Next::Wait);
        schedule.finish(2);
        assert_eq!(schedule.take(), Next::Wait);
        schedule.finish(1);
        assert_eq!(schedule.take(), item(3, 1));
        assert_eq!(schedule.drain(), [0]);
        assert_eq!(schedule.take(), Next::Empty);
    }
}
