//! What a node takes while nothing happens.

use std::fs;
use std::time::{Duration, Instant};

use crate::scene::{NODES, Scene};

const MAX_RESIDENT_KB: u64 = 80 * 1024;
/// Twice the goal, which is a matter of measuring: machines differ in what the same steps cost.
const MAX_CPU_PERCENT: f64 = 4.0;
/// Long enough for every periodic task of a node to have its turn, and for a tick to be a small part of it.
const IDLE: Duration = Duration::from_secs(10);
/// Whiles that are measured at most: on a busy machine (caches that others emptied) few of them are quiet.
const WHILES: usize = 12;
/// `USER_HZ` of Linux, in which `/proc` counts (proc_pid_stat(5)); 100 on every architecture that Rust builds for.
const TICKS_PER_SECOND: f64 = 100.0;

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Processor time in user and kernel mode.
fn ticks(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime are fields 14 and 15; the state, after the name, is field 3.
    fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
}

/// Part of a core that each process takes, in per cent, over a while.
fn cpu_percent(pids: &[u32]) -> Vec<f64> {
    let began = Instant::now();
    let before: Vec<u32> = pids.iter().map(|pid| ticks(*pid)).collect();
    std::thread::sleep(IDLE); // what is measured is a time
    let took = pids.iter().zip(before).map(|(pid, before)| f64::from(ticks(*pid) - before));
    // Longer than the sleep on a busy machine.
    let wall_s = began.elapsed().as_secs_f64();
    took.map(|ticks| ticks / TICKS_PER_SECOND / wall_s * 100.0).collect()
}

/// Other work on the machine makes the same steps cost more, so the quietest of several whiles counts.
#[test]
fn idle_node_is_small() {
    let mut scene = Scene::start("idle");
    let pids: Vec<u32> = (0..NODES).map(|index| scene.node(index).process().unwrap().pid()).collect();
    let mut least = vec![f64::MAX; NODES];
    for _ in 0..WHILES {
        for (least, now) in least.iter_mut().zip(cpu_percent(&pids)) {
            *least = least.min(now);
        }
        if least.iter().all(|percent| *percent < MAX_CPU_PERCENT) {
            break;
        }
    }
    for (index, (pid, percent)) in pids.iter().zip(least).enumerate() {
        let resident_kb = resident_kb(*pid);
        eprintln!("node {}: {} MB resident, {percent:.1} % of a core", index + 1, resident_kb / 1024);
        assert!(resident_kb < MAX_RESIDENT_KB, "node {} has {resident_kb} kB resident", index + 1);
        assert!(percent < MAX_CPU_PERCENT, "node {} takes {percent:.1} % of a core", index + 1);
    }
    scene.finish();
}
