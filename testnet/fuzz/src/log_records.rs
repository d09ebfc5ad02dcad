//! Records of the log, and markers of states and snapshots, as they lie on a disk. The first byte says which: 0 or 1.

use onespend::intake::{read_marker, read_record};
use onespend_core::command::Entry;

use super::history;

/// Feeds one input.
pub fn feed(data: &[u8]) {
    match data.split_first() {
        Some((0, record)) => {
            if let Ok(Some(entry)) = read_record(record) {
                assert_eq!(Entry::from_bytes(&entry.to_bytes()), Ok(entry));
            }
        }
        Some((1, marker)) => {
            if let Ok(written) = read_marker(marker) {
                assert_eq!(read_marker(&written).unwrap(), written);
            }
        }
        _ => {}
    }
}

/// Records of each kind, and markers. The codec's own tests fix these forms: `[[term, index], [kind, ...]]`.
pub fn seeds() -> Vec<Vec<u8>> {
    let normal = |bytes: &[u8]| {
        let mut record = vec![0, 0x82, 0x82, 0x01, 0x02, 0x82, 0x01, 0x81];
        record.extend(minicbor::to_vec(minicbor::bytes::ByteVec::from(bytes.to_vec())).unwrap());
        record
    };
    let mut seeds: Vec<Vec<u8>> = history::entries().iter().map(|(_, bytes)| normal(bytes)).collect();
    seeds.extend(history::newest().iter().map(|bytes| normal(bytes)));
    seeds.push(vec![0, 0x82, 0x82, 0x01, 0x02, 0x82, 0x00, 0x80]);
    let member = [0x83, 0x01, 0x61, b'a', 0x61, b'b'];
    let membership = [&[0x82, 0x81, 0x81, 0x01, 0x81][..], &member].concat();
    seeds.push([&[0, 0x82, 0x82, 0x01, 0x02, 0x82, 0x02, 0x81][..], &membership].concat());
    seeds.push([&[1, 0x83, 0x82, 0x01, 0x05, 0x82, 0x01, 0x02][..], &membership].concat());
    seeds.push(vec![1, 0x83, 0xf6, 0xf6, 0x82, 0x80, 0x80]);
    seeds.push(vec![1, 0x84, 0xf6, 0xf6, 0x82, 0x80, 0x80, 0x03]);
    seeds
}
