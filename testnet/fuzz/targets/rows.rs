#![no_main]

libfuzzer_sys::fuzz_target!(init: onespend_fuzz::plant(&onespend_fuzz::rows::seeds()), |data: &[u8]| {
    onespend_fuzz::rows::feed(data);
});
