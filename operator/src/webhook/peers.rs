//! How many connections each address has. One that has too many gets no further one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts open connections by address. Holds only addresses that have one.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    peers: Peers,
}

impl Peers {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A place for one more connection of this address, if it has fewer than the most.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&address).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        open.insert(address, count + 1);
        Some(Place { address, peers: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_the_places_of_another() {
        let peers = Peers::new(64);
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<Place> = (0..64).filter_map(|_| peers.admit(greedy)).collect();
        assert_eq!(places.len(), 64);
        assert!(peers.admit(greedy).is_none(), "the 65th");
        assert!(peers.admit(other).is_some());
        places.pop();
        assert!(peers.admit(greedy).is_some(), "a place that is free again");
        drop(places);
        assert!(peers.open.lock().unwrap().is_empty(), "addresses without connections are forgotten");
    }
}
