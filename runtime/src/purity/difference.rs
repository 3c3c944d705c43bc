//! Whether two runs made the same of the same records. It says where they part, not who is to blame.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;

use crate::cell::cell;
use crate::route::{DEAD_LETTERS, Fate, RoutePart, Routed};

/// Where two runs part.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The record's offset.
    pub offset: i64,
    /// What differs.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record at offset {}: {}", self.offset, self.what)
    }
}

/// The first difference between what two runs made of one batch; `None` if there is none. Traps may tell
/// different stories, and are the same.
pub fn difference(first: &Routed, second: &Routed) -> Option<Difference> {
    let fates = first.fates.iter().zip(&second.fates).find(|(a, b)| a.1 != b.1);
    if let Some(((offset, a), (_, b))) = fates {
        let what = format!("first {}, then {}", told(*a), told(*b));
        return Some(Difference { offset: offset.get(), what });
    }
    let routes = first.parts.iter().chain(&second.parts).map(|part| &part.route);
    let mut routes: Vec<&Arc<str>> = routes.collect();
    routes.sort_unstable();
    routes.dedup();
    routes.into_iter().find_map(|route| on_route(route, &Rows::of(route, first), &Rows::of(route, second)))
}

fn told(fate: Fate) -> &'static str {
    match fate {
        Fate::Routed => "routed",
        Fate::Rejected => "rejected",
        Fate::Dropped => "dropped",
        Fate::Failed => "failed",
    }
}

/// All rows of one route of a run.
struct Rows<'a> {
    parts: Vec<&'a RoutePart>,
    /// Per row, which part has it and where.
    at: Vec<(&'a RoutePart, usize)>,
}

impl<'a> Rows<'a> {
    fn of(route: &str, run: &'a Routed) -> Self {
        let parts: Vec<_> = run.parts.iter().filter(|part| &*part.route == route).collect();
        let at = parts.iter().flat_map(|part| (0..part.rows.num_rows()).map(move |row| (*part, row)));
        Self { at: at.collect(), parts }
    }

    fn column(&self, i: usize) -> ArrayRef {
        let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part.rows.column(i).as_ref()).collect();
        concat(&parts).expect("all parts of a route have its schema")
    }
}

fn on_route(route: &str, first: &Rows<'_>, second: &Rows<'_>) -> Option<Difference> {
    let name = if route == DEAD_LETTERS { "dead letters".to_owned() } else { format!("route `{route}`") };
    let place = |(part, row): &(&RoutePart, usize)| (part.offsets[*row], part.index[*row]);
    let pairs = || first.at.iter().zip(&second.at);
    let parted = pairs().position(|(a, b)| place(a) != place(b));
    let ends = first.at.len().min(second.at.len());
    if parted.is_some() || first.at.len() != second.at.len() {
        let row = parted.unwrap_or(ends);
        let at =
            first.at.get(row).into_iter().chain(second.at.get(row)).map(place).min().expect("one has it");
        return Some(Difference {
            offset: at.0,
            what: format!("{name}: it has another number of rows there"),
        });
    }
    let columns = first.parts.first().map_or(0, |part| part.rows.num_columns());
    let column = (0..columns).find_map(|i| in_column(&name, route, i, first, second));
    column.or_else(|| pairs().find_map(|(a, b)| in_extras(&name, *a, *b)))
}

/// What a failing transform said, and of which run it is, may differ.
fn in_column(name: &str, route: &str, i: usize, first: &Rows<'_>, second: &Rows<'_>) -> Option<Difference> {
    let schema = first.parts[0].rows.schema();
    let field = schema.field(i).name();
    if route == DEAD_LETTERS && matches!(field.as_str(), "trap" | "log") {
        return None;
    }
    let (a, b) = (first.column(i), second.column(i));
    if *a == *b {
        return None;
    }
    let same = |row: &usize| {
        a.slice(*row, 1).to_data() == b.slice(*row, 1).to_data() || is_trap(route, first.at[*row])
    };
    let row = (0..a.len()).find(|row| !same(row))?;
    let (part, at) = first.at[row];
    let what = format!(
        "{name}, row {row}, field `{field}`: first {}, then {}",
        cell(a.as_ref(), row),
        cell(b.as_ref(), row)
    );
    Some(Difference { offset: part.offsets[at], what })
}

fn is_trap(route: &str, (part, row): (&RoutePart, usize)) -> bool {
    let trap = part.rows.column_by_name("trap").filter(|_| route == DEAD_LETTERS);
    trap.is_some_and(|trap| trap.is_valid(row))
}

/// Keys, headers, deletes.
fn in_extras(name: &str, a: (&RoutePart, usize), b: (&RoutePart, usize)) -> Option<Difference> {
    let key = |(part, row): (&RoutePart, usize)| part.keys.as_ref().map(|k| k.get(row).map(<[u8]>::to_vec));
    let headers = |(part, row): (&RoutePart, usize)| {
        let headers = part.headers.as_ref()?.get(row);
        Some(headers.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect::<Vec<_>>())
    };
    let deletes = |(part, row): (&RoutePart, usize)| part.deletes.as_ref().is_some_and(|d| d.value(row));
    let what = match () {
        () if key(a) != key(b) => "another key",
        () if headers(a) != headers(b) => "other headers",
        () if deletes(a) != deletes(b) => "once a delete, once not",
        () => return None,
    };
    Some(Difference { offset: a.0.offsets[a.1], what: format!("{name}: {what}") })
}
