//! Limits of the transform that can be changed one by one, as part of a plan.

use std::num::NonZeroU64;

use super::nearest;
use super::{ByteSize, Complaint, Limits, Period};

/// The keys of `[limits]` that are part of a plan.
pub(super) const KEYS: [&str; 4] = ["memory", "deadline", "output_bytes", "fuel_per_record"];

/// The most memory that an instance of a transform can have.
pub(super) const MOST_MEMORY: ByteSize = ByteSize::mib(4096);

/// The most that a transform may give back for one batch.
pub(super) const MOST_OUTPUT: ByteSize = ByteSize::mib(256);

impl Limits {
    /// Sets the limit with this key of `[limits]`, if it is part of a plan.
    ///
    /// # Errors
    /// If there is no such key, or the value is none for it.
    pub fn change(&mut self, key: &str, value: &str) -> Result<(), Complaint> {
        match key {
            "memory" => self.memory = at_most(ByteSize::parse(value)?, MOST_MEMORY)?,
            "deadline" => self.deadline = Period::parse(value)?,
            "output_bytes" => self.output_bytes = at_most(ByteSize::parse(value)?, MOST_OUTPUT)?,
            "fuel_per_record" => self.fuel_per_record = number(value)?,
            _ => {
                let message = format!("no limit `{key}` can be changed while a pipeline runs");
                let near = nearest::hint(key, KEYS);
                let help = near.unwrap_or_else(|| format!("these can: {}", KEYS.join(", ")));
                return Err(Complaint::new(message, help));
            }
        }
        Ok(())
    }
}

fn at_most(size: ByteSize, most: ByteSize) -> Result<ByteSize, Complaint> {
    match size <= most {
        true => Ok(size),
        false => Err(Complaint { message: format!("{size:?} is more than {most:?}"), help: None }),
    }
}

fn number(text: &str) -> Result<NonZeroU64, Complaint> {
    let number = text.replace('_', "").parse();
    number.map_err(|_| Complaint::new(format!("`{text}` is no number"), "write a whole number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_changed_as_it_is_written_in_the_file_or_refused_with_what_is_wrong() {
        let mut limits = Limits::default();
        limits.change("memory", "64 MiB").unwrap();
        limits.change("fuel_per_record", "5_000").unwrap();
        assert_eq!((limits.memory, limits.fuel_per_record.get()), (ByteSize::mib(64), 5_000));
        for (key, value, found) in [
            ("memory", "5 GiB", "5 GiB is more than 4 GiB"),
            ("memory", "much", "`much` is not a size"),
            ("deadline", "0 s", ""),
            ("fuel_per_record", "0", "`0` is no number"),
            ("workers", "3", "no limit `workers` can be changed"),
            ("memry", "64 MiB", "no limit `memry` can be changed"),
        ] {
            let refused = limits.change(key, value).unwrap_err();
            assert!(refused.message.contains(found), "{key}={value}: {}", refused.message);
        }
        assert_eq!(limits.change("memry", "1 B").unwrap_err().help.unwrap(), "did you mean `memory`?");
    }
}
