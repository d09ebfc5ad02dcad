#![no_main]

libfuzzer_sys::fuzz_target!(init: onespend_fuzz::plant(&onespend_fuzz::log_records::seeds()), |data: &[u8]| {
    onespend_fuzz::log_records::feed(data);
});
