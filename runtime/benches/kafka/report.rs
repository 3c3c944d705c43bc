//! What was measured, for people and for programs. It judges nothing.

use serde_json::{Value, json};

use crate::Case;
use crate::common::{median, runs::machine};
use crate::outputs::Kind;
use crate::process::Measured;

/// One run of a case.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) measured: Measured,
    /// When the first row was visible in each sink.
    pub(crate) visible_s: Vec<(Kind, f64)>,
}

const HEAD: &str = "| case | records/s, median (most) | CPU s per million, median (least) | times floor | times native | \
                    peak memory, MiB | assigned after, s | first row visible after, s |";

pub(crate) fn print(records: u64, cases: &[Case], runs: &[Vec<Run>]) {
    println!("\n{HEAD}\n|---|---:|---:|---:|---:|---:|---:|---:|");
    let million = records as f64 / 1e6;
    for (case, own) in cases.iter().zip(runs) {
        let of = |what: fn(&Measured) -> f64| own.iter().map(|run| what(&run.measured)).collect::<Vec<_>>();
        let (wall, cpu, peak) = (of(|run| run.wall_s), of(|run| run.cpu_s), of(|run| run.peak_mib));
        let least = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
        let against = |of: &Case| {
            let other = cases.iter().position(|case| case == of).filter(|_| !matches!(case, Case::Floor))?;
            let ratios = own.iter().zip(&runs[other]).map(|(own, of)| own.measured.cpu_s / of.measured.cpu_s);
            Some(median(ratios.collect()))
        };
        println!(
            "| {} | {:.0} ({:.0}) | {:.2} ({:.2}) | {} | {} | {:.0} | {} | {} |",
            case.name(),
            records as f64 / median(wall.clone()),
            records as f64 / least(&wall),
            median(cpu.clone()) / million,
            least(&cpu) / million,
            number(against(&Case::Floor)),
            number(against(&Case::Native).filter(|_| *case != Case::Native)),
            peak.iter().copied().fold(0.0, f64::max),
            number(assigned(own)),
            visible(own)
        );
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn assigned(runs: &[Run]) -> Option<f64> {
    let all: Option<Vec<f64>> = runs.iter().map(|run| run.measured.said_s).collect();
    all.map(median)
}

/// Per sink, the median.
fn visible(runs: &[Run]) -> String {
    let kinds: Vec<Kind> =
        runs.first().map(|run| run.visible_s.iter().map(|(kind, _)| *kind).collect()).unwrap_or_default();
    let each = kinds.iter().map(|kind| {
        let seen = runs.iter().filter_map(|run| run.visible_s.iter().find(|(seen, _)| seen == kind));
        let seen = median(seen.map(|(_, at)| *at).collect());
        if kinds.len() == 1 { format!("{seen:.2}") } else { format!("{} {seen:.2}", kind.name()) }
    });
    match kinds.is_empty() {
        true => "-".to_owned(),
        false => each.collect::<Vec<_>>().join(", "),
    }
}

/// All runs of all cases, as one JSON object.
pub(crate) fn print_json(records: u64, cases: &[Case], runs: &[Vec<Run>]) {
    let cases: Vec<Value> = cases
        .iter()
        .zip(runs)
        .map(|(case, runs)| json!({ "case": case.name(), "runs": runs.iter().map(of_run).collect::<Vec<_>>() }))
        .collect();
    println!("{}", json!({ "records": records, "machine": machine(), "cases": cases }));
}

fn of_run(run: &Run) -> Value {
    let Measured { wall_s, cpu_s, peak_mib, said_s, .. } = &run.measured;
    let visible: serde_json::Map<_, _> =
        run.visible_s.iter().map(|(kind, at)| (kind.name().to_owned(), json!(at))).collect();
    json!({ "wall_s": wall_s, "cpu_s": cpu_s, "peak_mib": peak_mib, "assigned_s": said_s, "visible_s": visible })
}
