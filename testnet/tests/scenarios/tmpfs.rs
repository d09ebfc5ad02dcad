//! A disk without room: a small file system in memory, where this process may mount one. What the other scenarios only
//! say of a disk, this one does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use onespend_proto::v1::{self, UtxoState};
use onespend_testnet::hot::WALLET;
use onespend_testnet::progress::say;

use crate::disk::ends;
use crate::draft::release;
use crate::full::{WHY, alarm, reserve_file};
use crate::scene::{Scene, Stage, eventually, need, reason};

/// SQLite's words for [`WHY`].
const SQLITES: &str = "database or disk is full";
const MIB: u64 = 1 << 20;
const SIZE_BYTES: u64 = 128 * MIB;
const RESERVE_BYTES: u64 = 32 * MIB;
const LOW_BYTES: u64 = 48 * MIB;
/// A node that writes meanwhile may take that much before it is seen.
const SLACK_BYTES: u64 = 64 << 10;
const TTL: Duration = Duration::from_mins(10);
const SHORT: Duration = Duration::from_secs(3);

/// safety 29: a node whose disk is really full, and without which nothing is written: another node is away. Its reserve
/// goes, and on that room releases, reads, blocks and what is owed go on. New spends are refused. With room again all is
/// as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_without_any_room_the_reserve_goes_and_releases_reads_and_settles_go_on() {
    if let Some(why) = SmallDisk::why_not() {
        return say(&format!("SKIPPED: a full disk: {why}"));
    }
    let mut scene = Scene::start(Stage { name: "tmpfs", coins: 8, ..Stage::default() }).await;
    let leader = scene.primary();
    let [full, away] = Scene::others(leader)[..] else { panic!("three nodes") };
    let disk = move_in(&mut scene, full).await;
    let held = scene.reserve(2, TTL).await;
    scene.pay("owed", 2.0).await;

    scene.node(away).stop().unwrap();
    scene.primary_among(&[leader, full]).await;
    disk.fill();
    eventually("the reserve is given up", async || {
        // One that has to write in the half second before it looks ends, and begins with the reserve given up.
        if !scene.node(full).is_running() {
            ends(&mut scene, full, "the node cannot go on");
            let told = scene.node(full).log_tail();
            assert!([WHY, SQLITES].iter().any(|why| told.contains(why)), "{told}");
            scene.node(full).restart().unwrap();
        }
        need(!reserve_file(&scene, full) && scene.says(full, "/readyz"), || scene.node(full).log_tail())
    })
    .await;
    assert!(disk.free() < LOW_BYTES, "there is no room but that of the reserve");
    eventually("who leads says so", async || {
        let leads = [leader, full].into_iter().find(|index| scene.says(*index, "/leader"));
        let why = leads.and_then(|index| alarm(&scene, index));
        need(why.is_some(), || format!("{leads:?} leads"))
    })
    .await;
    let own = alarm(&scene, full).unwrap_or_default();
    assert!(own.contains("nothing is held back any more"), "{own}");
    let order = scene.order("refused", 2.0);
    assert_eq!(reason(scene.client.with_deadline(SHORT).create_payment(order).await), "STORAGE_LOW");

    release(&scene.client, &held).await;
    let coin = scene.coin(held.utxos[0].outpoint.as_ref().unwrap()).await;
    assert_eq!(coin.state(), UtxoState::Available, "{coin:?}");
    let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: "owed".to_owned() };
    scene.client_of(&[full]).get_payment(request).await.expect("it answers reads itself");
    scene.settle_and_judge(&["owed"]).await;
    assert!(scene.node(full).is_running() && !reserve_file(&scene, full));

    disk.make_room();
    scene.node(away).restart().unwrap();
    eventually("the alarm is over", async || {
        need(alarm(&scene, full).is_none() && reserve_file(&scene, full), || format!("{:?}", alarm(&scene, full)))
    })
    .await;
    scene.primary();
    scene.pay("refused", 2.0).await;
    scene.settle_and_judge(&["owed", "refused"]).await;
    scene.node(full).stop().unwrap();
    disk.move_out();
    scene.node(full).restart().unwrap();
    eventually("it is back", async || need(scene.says(full, "/readyz"), String::new)).await;
    scene.finish().await;
}

/// Restarts a node with its data on a small disk.
async fn move_in(scene: &mut Scene, index: usize) -> SmallDisk {
    let data = scene.node(index).data_folder();
    scene.node(index).stop().unwrap();
    let disk = SmallDisk::take(&data);
    let section = format!("\n[storage]\nreserve_bytes = {RESERVE_BYTES}\nlow_bytes = {LOW_BYTES}\n");
    scene.node(index).reconfigure(&section).unwrap();
    eventually("it is ready, and holds space back", async || {
        let (ready, held) = (scene.says(index, "/readyz"), reserve_file(scene, index));
        need(ready && held && alarm(scene, index).is_none(), || format!("ready: {ready}, held: {held}"))
    })
    .await;
    disk
}

/// A file system in memory, mounted where a node has its data. It is unmounted with this value, also when a test fails.
struct SmallDisk {
    at: PathBuf,
    mounted: bool,
}

impl SmallDisk {
    /// Why none can be mounted here; `None` if one can.
    fn why_not() -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        Self::mount(folder.path()).err()
    }

    fn mount(at: &Path) -> Result<Self, String> {
        let options = format!("size={SIZE_BYTES},mode=0700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        let mounted = mount.map_err(|error| format!("mount: {error}"))?;
        if mounted.status.success() {
            return Ok(Self { at: at.to_path_buf(), mounted: true });
        }
        let said = String::from_utf8_lossy(&mounted.stderr).trim().replace('\n', "; ");
        Err(format!("root with CAP_SYS_ADMIN could mount one: {said}"))
    }

    /// In place of the data folder of a node that does not run, with all that is in it but the reserve.
    fn take(data: &Path) -> Self {
        let aside = data.with_extension("aside");
        fs::rename(data, &aside).unwrap();
        fs::create_dir(data).unwrap();
        let disk = Self::mount(data).unwrap();
        let _none_yet = fs::remove_file(aside.join("RESERVE"));
        copy(&aside, data);
        fs::remove_dir_all(aside).unwrap();
        disk
    }

    /// Its content goes back to where it was mounted; the node does not run.
    fn move_out(mut self) {
        let aside = self.at.with_extension("aside");
        fs::create_dir(&aside).unwrap();
        copy(&self.at, &aside);
        succeeded(&Command::new("umount").arg(&self.at).output().unwrap());
        self.mounted = false;
        fs::remove_dir(&self.at).unwrap();
        fs::rename(aside, &self.at).unwrap();
    }

    /// Bytes that may still be written.
    fn free(&self) -> u64 {
        let output = Command::new("stat").args(["--file-system", "--format=%a %S"]).arg(&self.at).output().unwrap();
        let said = succeeded(&output);
        let (blocks, block) = said.trim().split_once(' ').unwrap();
        blocks.parse::<u64>().unwrap() * block.parse::<u64>().unwrap()
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// At once, so that the node gives its reserve up afterwards and not in between.
    fn fill(&self) {
        for slack in 0.. {
            let bytes = self.free() - slack * SLACK_BYTES;
            let filled = Command::new("fallocate").args(["--length", &bytes.to_string()]).arg(self.filler()).output();
            if filled.unwrap().status.success() {
                return;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            // A node that still runs keeps it until it ends.
            let _it_was_mounted = Command::new("umount").arg("--lazy").arg(&self.at).output();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    succeeded(&Command::new("cp").arg("--archive").arg(from.join(".")).arg(to).output().unwrap());
}

/// What a program said that did what it should.
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
