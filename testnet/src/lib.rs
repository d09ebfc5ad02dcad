//! Clusters of real processes on regtest: demo, faults, load.
