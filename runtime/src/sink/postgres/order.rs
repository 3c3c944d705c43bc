//! Which rows of a table with keys may share a statement: none of which two have the same key, since a statement may
//! touch a row once. Pure.
//!
//! Where rows of different keys have nothing to do with each other, all first rows of their keys go before all second
//! ones: few statements, in the order of the keys, in which other processes take their locks too. Where one row may
//! be refused because of another key's, such as by a second UNIQUE, rows stay in their order and a statement ends
//! where a key comes again.

use std::collections::{BTreeMap, HashSet};

/// A key, as bytes.
pub(super) type Key = Vec<u8>;

/// All first rows of their keys, then all second ones and so on, each in the order of the keys.
pub(super) fn rounds<T>(rows: impl Iterator<Item = (Key, T)>) -> Vec<Vec<T>> {
    let mut of_key: BTreeMap<Key, Vec<T>> = BTreeMap::new();
    for (key, row) in rows {
        of_key.entry(key).or_default().push(row);
    }
    let mut rounds: Vec<Vec<T>> = Vec::new();
    for rows in of_key.into_values() {
        for (nth, row) in rows.into_iter().enumerate() {
            if nth == rounds.len() {
                rounds.push(Vec::new());
            }
            rounds[nth].push(row);
        }
    }
    rounds
}

/// The rows as they come, cut before each that has a key of the run.
pub(super) fn runs<T>(rows: impl Iterator<Item = (Key, T)>) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    let mut seen = HashSet::new();
    for (key, row) in rows {
        let again = seen.contains(&key);
        if again {
            seen.clear();
        }
        seen.insert(key);
        match runs.last_mut().filter(|_| !again) {
            Some(run) => run.push(row),
            None => runs.push(vec![row]),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(keys: &str) -> impl Iterator<Item = (Key, String)> {
        keys.bytes().enumerate().map(|(n, key)| (vec![key], format!("{}{n}", key as char)))
    }

    #[test]
    fn first_rows_go_before_second_ones_in_the_order_of_the_keys() {
        assert_eq!(rounds(rows("babca")), [vec!["a1", "b0", "c3"], vec!["a4", "b2"]]);
    }

    #[test]
    fn a_run_ends_where_a_key_comes_again() {
        assert_eq!(runs(rows("babcab")), [vec!["b0", "a1"], vec!["b2", "c3", "a4"], vec!["b5"]]);
    }

    proptest! {
        #[test]
        fn no_key_is_twice_in_a_statement_and_each_keeps_its_order(keys in "[a-f]{0,40}") {
            for groups in [rounds(rows(&keys)), runs(rows(&keys))] {
                for group in &groups {
                    let distinct: HashSet<&str> = group.iter().map(|row| &row[..1]).collect();
                    prop_assert_eq!(distinct.len(), group.len());
                }
                let written = groups.concat();
                for key in 'a'..='f' {
                    let of_key = |row: &String| row.starts_with(key);
                    let expected: Vec<_> = rows(&keys).map(|(_, row)| row).filter(|row| of_key(row)).collect();
                    let found: Vec<_> = written.iter().filter(|row| of_key(row)).cloned().collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
