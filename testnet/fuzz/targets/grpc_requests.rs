#![no_main]

libfuzzer_sys::fuzz_target!(init: onespend_fuzz::plant(&onespend_fuzz::grpc_requests::seeds()), |data: &[u8]| {
    onespend_fuzz::grpc_requests::feed(data);
});
