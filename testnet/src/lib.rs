//! Clusters of real processes on regtest: demo, faults, load.
//!
//! Nothing here links the daemon: the harness starts the released `onespend`, real `bitcoind` and real load balancers,
//! talks to them as a user would, and judges by what bitcoind's blocks and the signer's log say.
//!
//! | module | holds |
//! |---|---|
//! | [`process`] | one child process: log file, signals, never outlives the harness |
//! | [`ports`] | free ports |
//! | [`programs`] | where `onespend`, `bitcoind`, `haproxy`, Envoy lie |
//! | [`bitcoind`], [`funds`] | a regtest node; the harness's own coins (bitcoind has no wallet) |
//! | [`balancer`], [`relay`], [`health`] | real load balancers; cut, held and slow connections; the health port |
//! | [`cluster`] | all of it together, with certificates and configuration |
//! | [`wallet`], [`hot`] | the wallet's keys; registering it and sending it coins |
//! | [`grpc`], [`miner`], [`seed`], [`progress`] | a caller, blocks, reproducible randomness, what people see |
//! | [`load`] | closed-loop callers, what they saw, and how long each waited |
//! | [`probe`] | how long nodes take to say whether they are primary |
//! | [`up`], [`demo`], [`mod@bench`], [`chaos`], [`routing`], [`failover`] | the commands |
//! | [`leftovers`] | nodes that somebody started again by hand |
//! | [`history`] | what callers saw |
//! | [`oracle`] | the judges: chain, signers' logs, callers' history, endpoints, state hashes |

pub mod balancer;
pub mod bench;
pub mod bitcoind;
pub mod chaos;
pub mod cluster;
pub mod demo;
pub mod failover;
pub mod funds;
pub mod grpc;
pub mod health;
pub mod history;
pub mod hot;
pub mod leftovers;
pub mod load;
pub mod miner;
pub mod oracle;
pub mod ports;
pub mod probe;
pub mod process;
pub mod programs;
pub mod progress;
pub mod relay;
pub mod routing;
pub mod seed;
pub mod up;
pub mod wallet;
