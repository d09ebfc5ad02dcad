//! The onespend binary.
fn main() {}
