//! What became of the records, told in the same way by whoever tells it.

use comfy_table::Table;

use super::screen::{self, count};
use crate::pipeline::status::Records;
use crate::sandbox::escape;

/// How many came in, and below it where they went: per route, per reason, and the rest.
pub(super) fn table(records: &Records) -> Table {
    let mut table = screen::table(&["", "records"], &[1]);
    let mut row = |what: &str, n: u64| {
        table.add_row(vec![what.to_owned(), count(n)]);
    };
    row("in", records.taken);
    for (route, n) in &records.routes {
        row(&format!("  on route {}", escape(route)), *n);
    }
    for (reason, n) in &records.reasons {
        row(&format!("  rejected, {}", escape(reason)), *n);
    }
    row("  dropped", records.dropped);
    row("  failed", records.failed);
    table
}

/// The equation that holds for them, or that it does not.
pub(super) fn equation(records: &Records) -> String {
    let Records { taken, routed, rejected, dropped, failed, .. } = records;
    let equation =
        format!("{taken} in = {routed} routed + {rejected} rejected + {dropped} dropped + {failed} failed");
    match records.conserved {
        true => format!("every record is accounted for: {equation}"),
        false => format!("E_NOT_CONSERVED: {equation}"),
    }
}
