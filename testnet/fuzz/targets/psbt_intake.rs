#![no_main]

libfuzzer_sys::fuzz_target!(init: onespend_fuzz::plant(&onespend_fuzz::psbt_intake::seeds()), |data: &[u8]| {
    onespend_fuzz::psbt_intake::feed(data);
});
