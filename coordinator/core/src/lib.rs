//! The rules of onespend: one deterministic state machine, no IO.
