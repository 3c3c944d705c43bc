//! Where two plans part that got the same records: in their fates, their reasons, and each field of their rows, counted and
//! shown by some of them. It never says which of the two is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use serde::{Deserialize, Serialize};

use crate::cell::{bytes, cell, line, row_as_json};
use crate::offset::Offset;
use crate::route::{DEAD_LETTERS, Fate, RoutePart, Routed, records_schema};

/// So many kinds of differences are told apart; a plan that changes everything need not be told in full.
const KINDS: usize = 64;

/// So many records are shown of a kind.
const SAMPLES: usize = 3;

/// What of a dead letter the transform says. The rest is the record, or tells of the plan; what a trap says may differ.
const SAID: [&str; 2] = ["stage", "reasons"];

/// What was found in how many records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// How many were compared.
    pub records: u64,
    /// Of how many of them something differs.
    pub different: u64,
    /// Fields that only one of the two has, or that have another type. Of those no record is said to differ.
    pub fields: BTreeSet<FieldChange>,
    /// What differs, each kind once.
    pub found: Vec<Found>,
    /// Differences of further kinds than can be told apart.
    pub others: u64,
}

/// A field that both plans do not have alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FieldChange {
    /// On which route.
    pub route: String,
    /// Its name.
    pub field: String,
    /// Its type before, if it was there.
    pub was: Option<String>,
    /// Its type then, if it is there.
    pub is: Option<String>,
}

/// One kind of difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which.
    #[serde(flatten)]
    pub what: What,
    /// In how many records.
    pub records: u64,
    /// Some of them: the first that were seen.
    pub samples: Vec<Sample>,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// Its fate: other routes, other reasons.
    Fate {
        /// What became of it before.
        was: String,
        /// What becomes of it then.
        is: String,
    },
    /// How many rows it has on a route.
    Rows {
        /// Which.
        route: String,
    },
    /// A field of a row.
    Field {
        /// The route.
        route: String,
        /// The field.
        field: String,
    },
    /// The key of a row.
    Key {
        /// The route.
        route: String,
    },
    /// The headers of a row.
    Headers {
        /// The route.
        route: String,
    },
    /// Whether a row is a delete.
    Delete {
        /// The route.
        route: String,
    },
}

/// A record, and what both plans make of it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: Offset,
    /// Before.
    pub was: String,
    /// Then.
    pub is: String,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fate { was, is } => write!(f, "{was} -> {is}"),
            Self::Rows { route } => write!(f, "{route}: the number of rows"),
            Self::Field { route, field } => write!(f, "{route}: field {field}"),
            Self::Key { route } => write!(f, "{route}: the key"),
            Self::Headers { route } => write!(f, "{route}: the headers"),
            Self::Delete { route } => write!(f, "{route}: whether it deletes"),
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, field, .. } = self;
        match (&self.was, &self.is) {
            (Some(was), Some(is)) => write!(f, "{route}: field {field} is {is}, and was {was}"),
            (Some(was), None) => write!(f, "{route}: field {field} ({was}) is not there any more"),
            (None, Some(is)) => write!(f, "{route}: field {field} ({is}) is new"),
            (None, None) => write!(f, "{route}: field {field}"),
        }
    }
}

impl Comparison {
    /// What two plans made of one batch.
    pub fn of(was: &Routed, is: &Routed) -> Self {
        let mut found = Self { records: was.n_records, ..Self::default() };
        let same = were_fields_alike(was, is, &mut found.fields);
        if !same || !is_all_the_same(was, is) {
            Looking::new(was, is).look(&mut found);
        }
        found
    }

    /// Adds what was found in other records.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.different += other.different;
        self.others += other.others;
        self.fields.extend(other.fields.iter().cloned());
        for found in &other.found {
            match self.kind(&found.what) {
                Some(held) => {
                    held.records += found.records;
                    let room = SAMPLES.saturating_sub(held.samples.len());
                    held.samples.extend(found.samples.iter().take(room).cloned());
                }
                None => self.others += found.records,
            }
        }
    }

    /// Nothing differs, as far as was compared.
    pub fn is_same(&self) -> bool {
        self.different == 0 && self.fields.is_empty()
    }

    fn note(&mut self, what: &What, sample: impl FnOnce() -> Sample) {
        match self.kind(what) {
            Some(held) => {
                held.records += 1;
                if held.samples.len() < SAMPLES {
                    held.samples.push(sample());
                }
            }
            None => self.others += 1,
        }
    }

    /// What is held of a kind; `None` if there are too many already.
    fn kind(&mut self, what: &What) -> Option<&mut Found> {
        let at = self.found.iter().position(|found| found.what == *what);
        let at = match at {
            None if self.found.len() >= KINDS => return None,
            None => {
                self.found.push(Found { what: what.clone(), records: 0, samples: Vec::new() });
                self.found.len() - 1
            }
            Some(at) => at,
        };
        Some(&mut self.found[at])
    }
}

/// Notes where fields do not match.
fn were_fields_alike(was: &Routed, is: &Routed, changes: &mut BTreeSet<FieldChange>) -> bool {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for part in was.parts.iter().filter(|part| &*part.route != DEAD_LETTERS) {
        let other = is.parts.iter().find(|other| other.route == part.route);
        let Some(other) = other.filter(|_| seen.insert(&part.route)) else { continue };
        let types = |part: &RoutePart| {
            let fields = part.rows.schema();
            fields.fields().iter().map(|f| (f.name().clone(), f.data_type().to_string())).collect()
        };
        let (was, is): (BTreeMap<_, _>, BTreeMap<_, _>) = (types(part), types(other));
        let names: BTreeSet<_> = was.keys().chain(is.keys()).collect();
        for field in names.into_iter().filter(|name| was.get(*name) != is.get(*name)) {
            changes.insert(FieldChange {
                route: named(&part.route),
                field: field.clone(),
                was: was.get(field).cloned(),
                is: is.get(field).cloned(),
            });
        }
    }
    changes.is_empty()
}

/// As it is mostly: told by comparing whole columns.
fn is_all_the_same(was: &Routed, is: &Routed) -> bool {
    was.fates == is.fates
        && was.parts.len() == is.parts.len()
        && was.parts.iter().zip(&is.parts).all(|(a, b)| {
            a.route == b.route
                && a.offsets == b.offsets
                && a.rows.num_columns() == b.rows.num_columns()
                && columns(a, b).is_empty()
                && (&a.keys, &a.headers, &a.deletes) == (&b.keys, &b.headers, &b.deletes)
        })
}

fn is_compared(part: &RoutePart, field: &str) -> bool {
    &*part.route != DEAD_LETTERS || SAID.contains(&field)
}

/// A route, as it is called in front of people.
fn named(route: &str) -> String {
    if route == DEAD_LETTERS { "dead letters".to_owned() } else { format!("route {route}") }
}

/// Two answers, looked at record by record.
struct Looking<'a> {
    was: Rows<'a>,
    is: Rows<'a>,
    /// Names of the routes of both, in order.
    routes: Vec<Arc<str>>,
    /// For two parts, the columns that both have and that may differ.
    columns: BTreeMap<(usize, usize), Vec<Column<'a>>>,
}

struct Column<'a> {
    name: String,
    was: &'a ArrayRef,
    is: &'a ArrayRef,
}

/// A plan's rows, by record and then by route.
struct Rows<'a> {
    routed: &'a Routed,
    at: Vec<At>,
}

/// A row: of which record, on which of the routes, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    offset: i64,
    route: usize,
    part: usize,
    row: usize,
}

impl<'a> Rows<'a> {
    fn new(routed: &'a Routed, routes: &[Arc<str>]) -> Self {
        let mut at = Vec::new();
        for (part, of) in routed.parts.iter().enumerate() {
            let route = routes.binary_search(&of.route).expect("all routes are among them");
            at.extend(of.offsets.iter().enumerate().map(|(row, &offset)| At { offset, route, part, row }));
        }
        at.sort_unstable();
        Self { routed, at }
    }

    fn of(&self, offset: Offset) -> &[At] {
        let start = self.at.partition_point(|at| at.offset < offset.get());
        let n = self.at[start..].partition_point(|at| at.offset == offset.get());
        &self.at[start..start + n]
    }

    fn part(&self, at: At) -> &'a RoutePart {
        &self.routed.parts[at.part]
    }

    /// The reasons of a dead letter, as JSON.
    fn reasons(&self, at: At) -> &'a str {
        let column = self.part(at).rows.column_by_name("reasons");
        column.map_or("[]", |column| column.as_string::<i32>().value(at.row))
    }

    fn codes(&self, at: At) -> Vec<String> {
        #[derive(Deserialize)]
        struct Reason {
            code: String,
        }
        let reasons: Vec<Reason> = serde_json::from_str(self.reasons(at)).unwrap_or_default();
        reasons.into_iter().map(|reason| reason.code).collect()
    }

    /// Where a record goes and why, for people.
    fn told(&self, fate: Fate, rows: &[At], routes: &[Arc<str>]) -> String {
        let codes = || rows.first().map_or_else(String::new, |at| self.codes(*at).join(", "));
        line(&match fate {
            Fate::Dropped => "dropped".to_owned(),
            Fate::Rejected => format!("rejected ({})", codes()),
            Fate::Failed => format!("failed ({})", codes()),
            Fate::Routed => {
                let mut names: Vec<_> = rows.iter().map(|at| named(&routes[at.route])).collect();
                names.dedup();
                names.join(" + ")
            }
        })
    }

    /// What a record's first row says.
    fn shown(&self, fate: Fate, rows: &[At]) -> String {
        match (fate, rows.first()) {
            (Fate::Dropped, _) | (_, None) => "nothing".to_owned(),
            (Fate::Rejected | Fate::Failed, Some(at)) => line(self.reasons(*at)),
            (Fate::Routed, Some(at)) => row(&self.part(*at).rows, at.row),
        }
    }
}

impl<'a> Looking<'a> {
    fn new(was: &'a Routed, is: &'a Routed) -> Self {
        let all: BTreeSet<&Arc<str>> = was.parts.iter().chain(&is.parts).map(|part| &part.route).collect();
        let routes: Vec<Arc<str>> = all.into_iter().cloned().collect();
        Self { was: Rows::new(was, &routes), is: Rows::new(is, &routes), routes, columns: BTreeMap::new() }
    }

    fn look(&mut self, found: &mut Comparison) {
        let (was, is) = (self.was.routed, self.is.routed);
        for (&(offset, fate), &(_, then)) in was.fates.iter().zip(&is.fates) {
            let differences = self.differences(offset, fate, then);
            found.different += u64::from(!differences.is_empty());
            for (what, (before, after)) in differences {
                found.note(&what, || Sample {
                    topic: was.at.topic.clone(),
                    partition: was.at.partition,
                    offset,
                    was: before,
                    is: after,
                });
            }
        }
    }

    /// What differs in a record, each kind once, with what it was and is.
    fn differences(&mut self, offset: Offset, was: Fate, is: Fate) -> BTreeMap<What, (String, String)> {
        let mut found = BTreeMap::new();
        let (a, b) = (self.was.of(offset).to_vec(), self.is.of(offset).to_vec());
        if !self.goes_alike((was, &a), (is, &b)) {
            let told = |rows: &Rows<'_>, fate, at: &[At]| rows.told(fate, at, &self.routes);
            let what = What::Fate { was: told(&self.was, was, &a), is: told(&self.is, is, &b) };
            found.insert(what, (self.was.shown(was, &a), self.is.shown(is, &b)));
            return found;
        }
        // What a trap says may differ.
        if was == Fate::Failed {
            return found;
        }
        let (a, b) = (a.chunk_by(|a, b| a.route == b.route), b.chunk_by(|a, b| a.route == b.route));
        for (a, b) in a.zip(b) {
            let route = named(&self.routes[a[0].route]);
            if a.len() != b.len() {
                let rows = |at: &[At]| format!("{} rows", at.len());
                found.insert(What::Rows { route }, (rows(a), rows(b)));
                continue;
            }
            for (a, b) in a.iter().zip(b) {
                self.in_fields(*a, *b, &route, &mut found);
                self.beside_fields(*a, *b, &route, &mut found);
            }
        }
        found
    }

    /// Whether a record has the same fate, on the same routes, for the same reasons.
    fn goes_alike(&self, (was, a): (Fate, &[At]), (is, b): (Fate, &[At])) -> bool {
        let routes = |at: &[At]| at.chunk_by(|a, b| a.route == b.route).map(|of| of[0].route).collect();
        let (from, to): (Vec<usize>, Vec<usize>) = (routes(a), routes(b));
        let alike = was == is && from == to;
        match (was, a.first(), b.first()) {
            (Fate::Rejected | Fate::Failed, Some(a), Some(b)) if alike => {
                self.was.reasons(*a) == self.is.reasons(*b) || self.was.codes(*a) == self.is.codes(*b)
            }
            _ => alike,
        }
    }

    fn in_fields(&mut self, a: At, b: At, route: &str, found: &mut BTreeMap<What, (String, String)>) {
        let (was, is) = (self.was.part(a), self.is.part(b));
        let columns = self.columns.entry((a.part, b.part)).or_insert_with(|| columns(was, is));
        for Column { name, was, is } in columns.iter() {
            if was.slice(a.row, 1).to_data() != is.slice(b.row, 1).to_data() {
                let what = What::Field { route: route.to_owned(), field: name.clone() };
                found.entry(what).or_insert_with(|| (cell(was, a.row), cell(is, b.row)));
            }
        }
    }

    fn beside_fields(&self, a: At, b: At, route: &str, found: &mut BTreeMap<What, (String, String)>) {
        let key = |part: &'a RoutePart, row| part.keys.as_ref().and_then(|keys| keys.get(row));
        let headers = |part: &'a RoutePart, row| {
            let headers = part.headers.iter().flat_map(move |headers| headers.get(row));
            headers.collect::<Vec<(&str, Option<&[u8]>)>>()
        };
        let deletes = |part: &RoutePart, row| part.deletes.as_ref().is_some_and(|d| d.value(row));
        let (was, is) = (self.was.part(a), self.is.part(b));
        let of = || route.to_owned();
        let (before, after) = (key(was, a.row), key(is, b.row));
        if before != after {
            found.insert(What::Key { route: of() }, (bytes(before), bytes(after)));
        }
        let (before, after) = (headers(was, a.row), headers(is, b.row));
        if before != after {
            let told = |headers: &[(&str, Option<&[u8]>)]| {
                let each = headers.iter().map(|(name, value)| format!("{name}={}", bytes(*value)));
                line(&each.collect::<Vec<_>>().join(" "))
            };
            found.insert(What::Headers { route: of() }, (told(&before), told(&after)));
        }
        let (before, after) = (deletes(was, a.row), deletes(is, b.row));
        if before != after {
            found.insert(What::Delete { route: of() }, (before.to_string(), after.to_string()));
        }
    }
}

/// A row for people; of a record that goes on as it came, what is in it.
fn row(rows: &RecordBatch, row: usize) -> String {
    if rows.schema() != records_schema() {
        return line(&row_as_json(rows, row).to_string());
    }
    let value = ["value", "value_bytes"].iter().filter_map(|name| rows.column_by_name(name));
    value
        .filter(|column| column.is_valid(row))
        .map(|column| cell(column, row))
        .next()
        .unwrap_or_else(|| "null".to_owned())
}

/// The columns of the same name and type, but for those that are equal from the first to the last row.
fn columns<'a>(was: &'a RoutePart, is: &'a RoutePart) -> Vec<Column<'a>> {
    let aligned = was.offsets == is.offsets;
    let fields = was.rows.schema();
    let names = fields.fields().iter().map(|field| field.name()).zip(was.rows.columns());
    let both = names.filter(|(name, _)| is_compared(was, name)).filter_map(|(name, a)| {
        let b = is.rows.column_by_name(name).filter(|b| b.data_type() == a.data_type())?;
        Some(Column { name: name.clone(), was: a, is: b })
    });
    both.filter(|column| !aligned || column.was != column.is).collect()
}

#[cfg(test)]
mod tests;
