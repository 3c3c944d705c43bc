//! What is in the files of a sink, against what was sent. It reads lines of JSON, and asks nothing of the pipeline: neither its
//! counters nor its logs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Records that were sent.
    pub(super) sent: u64,
    /// Those of which no row is there.
    pub(super) lost: u64,
    /// Rows besides the first of a record, or of records that nobody sent.
    pub(super) twice: u64,
    /// Records that an older plan made than the one before them in their partition.
    pub(super) went_back: u64,
    /// Rows, by plan and target.
    rows: BTreeMap<(u64, String), u64>,
}

/// Which record a row is of, and which plan made it.
#[derive(Deserialize)]
struct Provenance {
    weir_partition: usize,
    weir_offset: usize,
    weir_plan: u64,
}

impl Proof {
    /// Reads the files of all targets; `sent` says how many records each partition had.
    pub(super) fn read(dir: &Path, targets: &[&str], sent: &[u64]) -> Result<Self> {
        let mut made_by: Vec<Vec<Option<u64>>> = sent.iter().map(|n| vec![None; *n as usize]).collect();
        let mut proof = Self { sent: sent.iter().sum(), ..Self::default() };
        for target in targets {
            let target_dir = dir.join(target);
            if !target_dir.exists() {
                continue;
            }
            let files =
                fs::read_dir(&target_dir).with_context(|| format!("reading {}", target_dir.display()))?;
            for file in files {
                let path = file?.path();
                // What is not complete is hidden, as from any reader.
                if path.extension().is_some_and(|extension| extension == "jsonl") {
                    let reading = || format!("reading {}", path.display());
                    for line in BufReader::new(File::open(&path).with_context(reading)?).lines() {
                        let row: Provenance =
                            serde_json::from_str(&line.with_context(reading)?).with_context(reading)?;
                        proof.count(target, &row, &mut made_by);
                    }
                }
            }
        }
        for plans in &made_by {
            proof.lost += plans.iter().filter(|plan| plan.is_none()).count() as u64;
            let there: Vec<_> = plans.iter().flatten().collect();
            proof.went_back += there.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
        }
        Ok(proof)
    }

    fn count(&mut self, target: &str, row: &Provenance, made_by: &mut [Vec<Option<u64>>]) {
        *self.rows.entry((row.weir_plan, target.to_owned())).or_default() += 1;
        let record = made_by.get_mut(row.weir_partition).and_then(|plans| plans.get_mut(row.weir_offset));
        match record {
            Some(plan @ None) => *plan = Some(row.weir_plan),
            Some(Some(_)) | None => self.twice += 1,
        }
    }

    /// Rows of a plan in a target.
    pub(super) fn rows_of(&self, plan: u64, target: &str) -> u64 {
        self.rows.get(&(plan, target.to_owned())).copied().unwrap_or_default()
    }

    /// Rows of all plans.
    pub(super) fn found(&self) -> u64 {
        self.rows.values().sum()
    }

    /// Whether each record that was sent is there once, and no plan comes after a newer one.
    pub(super) fn holds(&self) -> bool {
        (self.lost, self.twice, self.went_back) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is proven of rows, each a partition, an offset and a plan; two records were sent in the first partition, one in
    /// the second.
    fn proof(rows: &[(usize, usize, u64)]) -> Proof {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("a");
        fs::create_dir(&target).expect("writable");
        let lines = rows.iter().map(|(partition, offset, plan)| {
            format!(
                "{{\"id\":1,\"weir_partition\":{partition},\"weir_offset\":{offset},\"weir_plan\":{plan}}}\n"
            )
        });
        fs::write(target.join("1.jsonl"), lines.collect::<String>()).expect("writable");
        fs::write(target.join("2.tmp"), "half").expect("writable");
        Proof::read(dir.path(), &["a", "absent"], &[2, 1]).expect("readable")
    }

    #[test]
    fn each_kind_of_damage_is_noticed() {
        let whole = proof(&[(0, 0, 3), (1, 0, 3), (0, 1, 5)]);
        assert!(whole.holds() && (whole.sent, whole.found(), whole.rows_of(3, "a")) == (3, 3, 2));
        let damaged = [
            (proof(&[(0, 0, 3), (0, 1, 5)]), (1, 0, 0)),
            (proof(&[(0, 0, 3), (0, 1, 5), (1, 0, 3), (1, 0, 3)]), (0, 1, 0)),
            (proof(&[(0, 0, 3), (0, 1, 5), (1, 0, 3), (1, 1, 3)]), (0, 1, 0)),
            (proof(&[(0, 0, 5), (0, 1, 3), (1, 0, 3)]), (0, 0, 1)),
        ];
        for (proof, expected) in damaged {
            assert_eq!((proof.lost, proof.twice, proof.went_back), expected);
            assert!(!proof.holds());
        }
    }
}
