//! What became of the last records of the input under the plan that runs and under the next one, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::shadow::{costs, print_found};
use crate::app::deploy::{Fates, Sample};
use crate::cli::screen::{count, counted, table};
use crate::sandbox::escape;

/// So many reasons are shown for which records are rejected more or less often.
const REASONS: usize = 8;

/// So many kinds of differences are shown with records.
const KINDS: usize = 3;

/// Tells what `sample` found beside plan `beside`.
pub(super) fn print(sample: &Sample, beside: u64) {
    let Sample { read, records, passed_over, comparison, .. } = sample;
    if let Some(why) = &sample.passed_over_because {
        println!("passed over: {}, such as {}", counted(*passed_over, "file"), escape(why));
    }
    if *read == 0 {
        return println!("not tried before: the input has no records now");
    }
    let read_records = counted(*read, "record");
    match &sample.not_to_the_end_of {
        None => println!("tried on the last {read_records} of the input"),
        Some(path) => println!(
            "tried on {read_records} of the input, not its last: the end of {} was not reached in time",
            escape(path)
        ),
    }
    if records < read {
        println!("  {} of them came to no comparison", count(read - records));
    }
    if let Some(why) = &sample.unknown {
        println!("  what plan {beside} makes of them is not known: {}", escape(why));
    }
    let of_plans = [
        (format!("plan {beside}"), sample.was.as_ref().and_then(|was| was.stops.as_ref())),
        ("this one".to_owned(), sample.is.stops.as_ref()),
    ];
    for (plan, why) in of_plans.iter().filter_map(|(plan, why)| Some((plan, why.as_ref()?))) {
        println!("  a partition would stop under {plan}: {}", escape(why));
    }
    if *records == 0 {
        return;
    }
    let different = lines(sample);
    match different.is_empty() {
        true if comparison.different == 0 => println!("  the same becomes of all of them"),
        true => println!("  as many of them are routed, rejected and dropped as before"),
        false => {
            let mut table = table(&["", &format!("plan {beside}"), "this one"], &[1, 2]);
            for (what, was, is) in different {
                table.add_row(vec![
                    format!("  {what}"),
                    was.map_or_else(|| "?".to_owned(), count),
                    count(is),
                ]);
            }
            println!("{table}");
        }
    }
    if let Some(was) = &sample.was {
        println!("  {}", costs(*records, (was.cpu_ns, beside), sample.is.cpu_ns));
        print_found(comparison, KINDS);
    }
    if !comparison.found.is_empty() {
        println!();
    }
}

/// What does not become of as many records as before; all, where it is not known what became of them.
fn lines(sample: &Sample) -> Vec<(String, Option<u64>, u64)> {
    let (was, is) = (sample.was.as_ref(), &sample.is);
    let mut found = Vec::new();
    let mut line = |what: String, was: Option<u64>, is: u64| {
        if was != Some(is) {
            found.push((what, was, is));
        }
        was != Some(is)
    };
    type Of = fn(&Fates) -> &BTreeMap<Arc<str>, u64>;
    let mut each = |what: &str, most: usize, of: Of| {
        let names: BTreeSet<_> = was.iter().flat_map(|was| of(was).keys()).chain(of(is).keys()).collect();
        let n = |fates: &Fates, name: &Arc<str>| of(fates).get(name).copied().unwrap_or_default();
        let mut shown = 0;
        for name in names {
            if shown < most {
                let what = format!("{what}{}", escape(name));
                shown += usize::from(line(what, was.map(|was| n(was, name)), n(is, name)));
            }
        }
    };
    each("on route ", usize::MAX, |fates| &fates.routed);
    each("rejected, ", REASONS, |fates| &fates.rejected);
    let all = |fates: &Fates| fates.rejected.values().sum();
    if was.map(all) != Some(all(is)) {
        line("rejected, all".to_owned(), was.map(all), all(is));
    }
    line("dropped".to_owned(), was.map(|was| was.dropped), is.dropped);
    line("failed".to_owned(), was.map(|was| was.failed), is.failed);
    found
}
