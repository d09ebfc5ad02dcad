//! The hashes over the replicated state: at one log index every node has the same, whenever it is asked, and also after
//! it was restarted or was sent a snapshot.

use std::collections::BTreeMap;

/// A hash that a node told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashSeen {
    /// Index of the node.
    pub node: usize,
    /// The log index that the hash belongs to.
    pub index: u64,
    /// The hash.
    pub hash: Vec<u8>,
}

/// Every index with two hashes, in words.
pub fn judge(seen: &[HashSeen]) -> Vec<String> {
    let mut first: BTreeMap<u64, &HashSeen> = BTreeMap::new();
    let mut faults = BTreeMap::new();
    for now in seen {
        let known = first.entry(now.index).or_insert(now);
        if known.hash != now.hash {
            let (one, other) = (known.node + 1, now.node + 1);
            let fault = format!("at log index {} node {one} and node {other} told of different hashes", now.index);
            faults.entry(now.index).or_insert(fault);
        }
    }
    faults.into_values().collect()
}

/// Indexes of which so many nodes told: what was compared at all.
pub fn compared(seen: &[HashSeen], nodes: usize) -> usize {
    let mut tellers: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for now in seen {
        let nodes = tellers.entry(now.index).or_default();
        if !nodes.contains(&now.node) {
            nodes.push(now.node);
        }
    }
    tellers.values().filter(|told| told.len() >= nodes).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(node: usize, index: u64, byte: u8) -> HashSeen {
        HashSeen { node, index, hash: vec![byte; 32] }
    }

    #[test]
    fn a_node_that_differs_is_caught_also_from_itself() {
        assert_eq!(judge(&[seen(0, 128, 1), seen(1, 128, 1), seen(1, 256, 2)]), Vec::<String>::new());
        assert_eq!(judge(&[seen(0, 128, 1), seen(1, 128, 2), seen(2, 128, 2)]).len(), 1);
        assert_eq!(judge(&[seen(0, 128, 1), seen(0, 128, 2)]).len(), 1, "before and after a restart");
    }

    #[test]
    fn only_what_enough_nodes_told_was_compared() {
        let all = [seen(0, 128, 1), seen(1, 128, 1), seen(1, 128, 1), seen(1, 256, 2)];
        assert_eq!((compared(&all, 2), compared(&all, 3), compared(&all, 1)), (1, 0, 2));
    }
}
