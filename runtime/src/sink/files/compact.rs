//! Snapshots of a log, and the deletion of what they cover. Only the order matters: a snapshot is there before anything
//! that it covers is gone, and what is gone went from the oldest on, so that a listing in between has a hole and is
//! never mistaken for a shorter log.
//!
//! An owner that was overtaken may do any of this late: its snapshot is true, only not the newest, and what it deletes
//! a newer one covers as well.

use super::log::Log;
use super::record::Snapshot;
use super::storage::failed;
use crate::sink::Error;
use crate::sink::state::{Nonce, SinkState};

/// How many snapshots are kept: whoever has listed the newest can still read it when the next one is written.
const KEPT_SNAPSHOTS: usize = 2;

impl Log {
    /// Puts a snapshot: `state` is where the partition stands after record `n`, and every file that a record up to `n`
    /// names has its visible name. Only `Ok` says that it is there; after an error it may appear at any time, which
    /// does no harm.
    pub(super) fn snapshot(&self, n: u64, state: &SinkState) -> Result<(), Error> {
        let staged = self.stage(Nonce::random(), &Snapshot { upto: n, state: state.clone() })?;
        fail::fail_point!("file.compact.after_temp_snapshot");
        let path = self.places.snapshot(n);
        self.storage.publish(&staged.path, &path).map_err(|e| {
            if let Err(error) = self.storage.delete(&staged.path) {
                tracing::debug!(path = staged.path, %error, "a staged snapshot stays behind");
            }
            failed(&*self.storage, "publish", &path, e)
        })
    }

    /// Deletes older snapshots, then the records that the one of record `n` covers. Record `n` itself stays, so that
    /// a hole below the newest records can always be seen.
    pub(super) fn delete_covered(&self, n: u64) -> Result<(), Error> {
        let listing = self.list()?;
        let kept = listing.snapshots.len().saturating_sub(KEPT_SNAPSHOTS);
        let snapshots = listing.snapshots[..kept].iter().map(|n| self.places.snapshot(*n));
        let records = listing.records.iter().filter(|covered| **covered < n).map(|n| self.places.record(*n));
        for path in snapshots.chain(records) {
            self.storage.delete(&path).map_err(|e| failed(&*self.storage, "remove", &path, e))?;
            fail::fail_point!("file.compact.between");
        }
        Ok(())
    }
}
