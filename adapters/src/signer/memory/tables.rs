//! The tables, and the steps to them.

use rusqlite::Transaction;
use rusqlite_migration::{HookResult, M};

use super::rows;

/// The format that has [`COPY`].
pub(super) const COPY_FORMAT: i64 = 2;

/// The steps to the tables of this version. Append only: the number of steps is the stored version.
pub(super) fn steps() -> Vec<M<'static>> {
    vec![M::up(TABLES), M::up(COPY), M::up_with_hook(EPOCH, begin_epochs).foreign_key_check()]
}

/// The first version of the tables. Later versions are further steps; a released one never changes.
const TABLES: &str = "
CREATE TABLE identity(
    one INTEGER PRIMARY KEY CHECK(one = 1),
    cluster_id TEXT NOT NULL,
    network TEXT NOT NULL,
    signer TEXT NOT NULL
) STRICT;
CREATE TABLE totals(
    one INTEGER PRIMARY KEY CHECK(one = 1),
    highest_fence INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    frozen_position INTEGER,
    frozen_at_ms INTEGER,
    digest BLOB NOT NULL
) STRICT;
CREATE TABLE attempts(
    id INTEGER PRIMARY KEY,
    wallet TEXT NOT NULL,
    payment TEXT NOT NULL,
    number INTEGER NOT NULL,
    txid BLOB NOT NULL,
    fence INTEGER NOT NULL,
    UNIQUE(wallet, payment, number)
) STRICT;
CREATE TABLE spends(
    outpoint BLOB NOT NULL,
    attempt INTEGER NOT NULL REFERENCES attempts(id),
    PRIMARY KEY(outpoint, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX spends_of ON spends(attempt, outpoint);
CREATE TABLE audit(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    position INTEGER NOT NULL,
    recorded INTEGER NOT NULL
) STRICT;
INSERT INTO totals(one, highest_fence, floor, digest) VALUES(1, 0, 0, zeroblob(32));
";

/// The second step: a random number in two tables, which change at different times. A write-ahead log of another file
/// that SQLite replays over a copy replaces one of them only.
const COPY: &str = "
ALTER TABLE identity ADD COLUMN copy BLOB NOT NULL DEFAULT x'';
ALTER TABLE totals ADD COLUMN copy BLOB NOT NULL DEFAULT x'';
";

/// The third step: the accepted epoch; and a number may have several transactions, of memories that became one. Rows
/// keep their ids, by which `spends` and the digest find them. `identity` stays as it is, see [`COPY`].
const EPOCH: &str = "
CREATE TABLE attempts_with_txid(
    id INTEGER PRIMARY KEY,
    wallet TEXT NOT NULL,
    payment TEXT NOT NULL,
    number INTEGER NOT NULL,
    txid BLOB NOT NULL,
    fence INTEGER NOT NULL,
    UNIQUE(wallet, payment, number, txid)
) STRICT;
INSERT INTO attempts_with_txid(id, wallet, payment, number, txid, fence)
    SELECT id, wallet, payment, number, txid, fence FROM attempts;
DROP TABLE attempts;
ALTER TABLE attempts_with_txid RENAME TO attempts;
ALTER TABLE totals ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
";

/// A memory of before takes the word of whoever let it sign in its highest epoch.
fn begin_epochs(change: &Transaction<'_>) -> HookResult {
    let highest = rows::totals(change)?.highest;
    Ok(rows::accept(change, highest.epoch())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_core::ids::{Fence, LogIndex};
    use rusqlite::{Connection, params};
    use rusqlite_migration::Migrations;

    use super::*;
    use crate::signer::memory::file::migrate;

    /// A memory of format 2 with an attempt under each of these fences, whose rows do not begin with 1.
    fn of_format_2(fences: &[Fence]) -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        Migrations::new(steps()).to_version(&mut db, 2).unwrap();
        for (number, fence) in (1_u8..).zip(fences) {
            let attempt = params!["w", "p", number, [number; 32], fence.0.cast_signed()];
            let change = rows::insert(&db, attempt, std::iter::once(Ok(vec![number; 36]))).unwrap();
            rows::count_in(&db, *fence, *fence, &change).unwrap();
        }
        let move_on =
            "PRAGMA foreign_keys = OFF; UPDATE spends SET attempt = attempt + 5; UPDATE attempts SET id = id + 5;
            PRAGMA foreign_keys = ON";
        db.execute_batch(move_on).unwrap();
        assert!(rows::is_whole(&db).unwrap());
        db
    }

    /// safety 30: who let it sign in its highest epoch has accepted that.
    #[test]
    fn a_memory_of_format_2_goes_on_whole_and_with_the_epoch_of_its_highest_fence() {
        let last = Fence::of(Fence::MAX_EPOCH, LogIndex(1));
        for (fences, epoch) in [
            (vec![], 0),
            (vec![Fence(7)], 0),
            (vec![Fence::of(3, LogIndex(9)), Fence::of(2, LogIndex(8))], 3),
            (vec![Fence(7), last], Fence::MAX_EPOCH),
        ] {
            let mut db = of_format_2(&fences);
            assert_eq!(rows::totals(&db).unwrap().accepted(), epoch, "also for whoever looks at it before");
            migrate(&mut db).unwrap();
            assert!(rows::is_whole(&db).unwrap());
            let totals = rows::totals(&db).unwrap();
            assert_eq!((totals.accepted(), totals.highest.epoch()), (epoch, epoch));
            let orphan = db.execute("INSERT INTO spends(outpoint, attempt) VALUES(x'00', 99)", []);
            assert!(orphan.unwrap_err().to_string().contains("FOREIGN KEY"), "references are looked at again");
        }
    }

    #[test]
    fn one_number_may_have_several_transactions_from_format_3_on() {
        let mut db = of_format_2(&[Fence(7)]);
        let again = |db: &Connection, txid: [u8; 32]| {
            rows::insert(db, params!["w", "p", 1, txid, 8], std::iter::once(Ok(vec![9; 36]))).map(drop)
        };
        again(&db, [2; 32]).unwrap_err();
        migrate(&mut db).unwrap();
        again(&db, [1; 32]).unwrap_err();
        again(&db, [2; 32]).unwrap();
    }

    #[test]
    fn an_accepted_epoch_that_somebody_edited_is_noticed() {
        let mut db = of_format_2(&[Fence(7)]);
        migrate(&mut db).unwrap();
        for accepted in [2, 1, 0, 65_535] {
            rows::accept(&db, accepted).unwrap();
            assert!(rows::is_whole(&db).unwrap());
            db.execute("UPDATE totals SET epoch = epoch + 1", []).unwrap();
            assert!(!rows::is_whole(&db).unwrap(), "{accepted}");
            db.execute("UPDATE totals SET epoch = epoch - 1", []).unwrap();
        }
    }
}
