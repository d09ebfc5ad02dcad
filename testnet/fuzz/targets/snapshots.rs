#![no_main]

libfuzzer_sys::fuzz_target!(init: onespend_fuzz::plant(&onespend_fuzz::snapshots::seeds()), |data: &[u8]| {
    onespend_fuzz::snapshots::feed(data);
});
