//! What of a pipeline file is no part of a plan, and so counts from one start to the next.

use toml::{Table, Value};

use super::{PipelineConfig, limit};

impl PipelineConfig {
    /// The keys of which another text of the file says something else, and no plan anything: a process goes by what they
    /// said when it began.
    pub fn changed_for_a_start(&self, other: &Self) -> Vec<String> {
        let (Ok(was), Ok(is)) = (toml::from_str(&self.text), toml::from_str(&other.text)) else {
            // Neither would be a configuration then.
            return Vec::new();
        };
        let mut found = Vec::new();
        compare(&was, &is, "", &mut found);
        found
    }
}

fn compare(was: &Table, is: &Table, above: &str, found: &mut Vec<String>) {
    let mut keys: Vec<_> = was.keys().chain(is.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match (was.get(key), is.get(key)) {
            _ if is_of_plans(&path) => {}
            (Some(Value::Table(was)), Some(Value::Table(is))) => compare(was, is, &path, found),
            // A table that was not there has keys of plans and others.
            (Some(Value::Table(one)), None) | (None, Some(Value::Table(one))) => {
                compare(one, &Table::new(), &path, found);
            }
            (was, is) if was != is => found.push(path),
            _ => {}
        }
    }
}

fn is_of_plans(path: &str) -> bool {
    let is_limit = || path.strip_prefix("limits.").is_some_and(|key| limit::KEYS.contains(&key));
    matches!(path, "transform" | "routes" | "dead_letter.to") || is_limit()
}
