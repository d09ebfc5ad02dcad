//! The onespend daemon and command line.
