//! Where a transform says what becomes of a record. Never lets a record go without a fate, nor with two.

use std::fmt::{self, Display, Write};

use crate::batch::Input;
use crate::clean::Wrong;
use crate::column::{ColumnBuilder, push_present};
use crate::declare::{Reason, Records, Rows};
use crate::description::{Description, RouteContent, RouteDescription};
use crate::envelope::EnvelopeBuilder;
use crate::json::Value;
use crate::output::{Output, Rejects, RouteOutput};
use crate::row::{Row, builder};

/// How much of a detail is kept.
pub const DETAIL_LIMIT_BYTES: usize = 256;

/// Takes the fate of one record after the other: rows or the record itself on routes, or reasons to reject it, or
/// that it is dropped. None of them, or two of different kinds, fails the batch with a text that tells the record.
#[derive(Debug)]
pub struct Emitter<'a> {
    declared: &'a Description,
    input: &'a Input<'a>,
    /// The record that is being decided, by its place in the batch.
    index: u32,
    fate: Option<Fate>,
    /// The first mistake of the transform; it fails the batch.
    fault: Option<String>,
    routes: Vec<RouteBuilder>,
    /// The name that each route was last entered by.
    entered: Vec<Option<&'static str>>,
    /// The route of the row just written.
    last_route: usize,
    rejects: Rejects,
    dropped: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Routed,
    Rejected,
    Dropped,
}

/// The rows of one route so far.
#[derive(Debug, Default)]
struct RouteBuilder {
    rows: Vec<u32>,
    /// Empty up to the first row, and for a route of records.
    columns: Vec<ColumnBuilder>,
    envelope: EnvelopeBuilder,
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(declared: &'a Description, input: &'a Input<'a>) -> Self {
        let routes = declared.routes.iter().map(|_| RouteBuilder::default()).collect();
        let entered = vec![None; declared.routes.len()];
        let (rejects, dropped) = (Rejects::default(), Vec::new());
        Self {
            declared,
            input,
            index: 0,
            fate: None,
            fault: None,
            routes,
            entered,
            last_route: 0,
            rejects,
            dropped,
        }
    }

    /// Puts a row on a route. A record may give several rows, also on several routes.
    #[inline]
    pub fn row<R: Row>(&mut self, route: &Rows<R>, row: R) {
        let Some(at) = self.enter(route.name) else { return };
        if self.routes[at].columns.is_empty() && !self.open::<R>(at) {
            return;
        }
        let route = &mut self.routes[at];
        row.push(&mut route.columns);
        route.rows.push(self.index);
    }

    /// Puts the record itself, byte for byte, on a route.
    #[inline]
    pub fn record(&mut self, route: &Records) {
        let Some(at) = self.enter(route.name) else { return };
        self.routes[at].rows.push(self.index);
    }

    /// Rejects the record. It may be rejected for several reasons; of one reason the first detail counts.
    pub fn reject(&mut self, reason: &Reason) {
        if self.add_reason(reason) {
            self.end_detail(None);
        }
    }

    /// Rejects the record, and tells people what was found instead, up to [`DETAIL_LIMIT_BYTES`].
    pub fn reject_with(&mut self, reason: &Reason, found: impl Display) {
        if self.add_reason(reason) {
            self.end_detail(Some(&found));
        }
    }

    /// The value as `cleaner` has it, `None` if there is none. If it is wrong, rejects the record with the value as
    /// the detail.
    #[inline]
    pub fn clean<'v, 't, T>(
        &mut self,
        value: &'v Value<'t>,
        cleaner: impl FnOnce(&'v Value<'t>) -> Result<Option<T>, Wrong>,
        reason: &Reason,
    ) -> Option<T> {
        cleaner(value).unwrap_or_else(|_| {
            self.reject_with(reason, value);
            None
        })
    }

    /// Leaves the record out on purpose.
    pub fn drop_record(&mut self) {
        if self.fate != Some(Fate::Dropped) && self.take(Fate::Dropped) {
            self.dropped.push(self.index);
        }
    }

    /// Whether this record has been rejected already, for one reason at least.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.fate == Some(Fate::Rejected)
    }

    /// Gives the row just written a key of its own instead of the record's. Where other rows of the route do
    /// without, the description's `needs` has to ask for keys, so that those keep theirs.
    pub fn set_key(&mut self, key: &[u8]) {
        self.on_last_row(|envelope, row, rows, input| envelope.set_key(row, rows, input, key));
    }

    /// Adds a header to the row just written, which then has those set here instead of the record's. Where other
    /// rows of the route do without, `needs` has to ask for headers.
    pub fn set_header(&mut self, name: &str, value: Option<&[u8]>) {
        self.on_last_row(|envelope, row, rows, input| envelope.set_header(row, rows, input, name, value));
    }

    /// Makes the row just written delete what has its key.
    pub fn set_delete(&mut self) {
        self.on_last_row(|envelope, row, _, _| {
            envelope.set_delete(row);
            Ok(())
        });
    }

    /// Begins with the record at `index`.
    #[inline]
    pub(crate) fn begin(&mut self, index: u32) {
        self.index = index;
        self.fate = None;
    }

    /// Ends with the record: it has its fate by now.
    #[inline]
    pub(crate) fn end(&mut self) -> Result<(), String> {
        if self.fate.is_none() && self.fault.is_none() {
            self.fault = Some("neither routed, rejected nor dropped".to_owned());
        }
        match self.fault.take() {
            None => Ok(()),
            Some(fault) => Err(format!("record {}: {fault}", self.index)),
        }
    }

    pub(crate) fn finish(self) -> Result<Output, String> {
        let input = self.input;
        let mut routes = Vec::with_capacity(self.routes.len());
        for ((at, route), declared) in (0..).zip(self.routes).zip(&self.declared.routes) {
            if !route.rows.is_empty() {
                let built = route.finish(at, input);
                routes.push(built.map_err(|fault| format!("route `{}`: {fault}", declared.name))?);
            }
        }
        Ok(Output { routes, rejects: finish_rejects(self.rejects), dropped: self.dropped })
    }

    /// The index of the route that the record goes to, unless it must not. A constant's name stays where it is, so
    /// that its address tells the route without a look at the letters.
    #[inline]
    fn enter(&mut self, name: &'static str) -> Option<usize> {
        let same = |entered: &Option<&str>| entered.is_some_and(|entered| std::ptr::eq(entered, name));
        let at = match self.entered.iter().position(same) {
            Some(at) => at,
            None => self.look_up(name)?,
        };
        self.last_route = at;
        self.take(Fate::Routed).then_some(at)
    }

    #[cold]
    fn look_up(&mut self, name: &'static str) -> Option<usize> {
        let Some(at) = self.declared.routes.iter().position(|route| route.name == name) else {
            self.fail(format!("route `{name}` is not in the description"));
            return None;
        };
        self.entered[at] = Some(name);
        Some(at)
    }

    /// Before the first row of a route: builds its columns, if its fields are those of `R`.
    #[cold]
    fn open<R: Row>(&mut self, at: usize) -> bool {
        let RouteDescription { name, content, .. } = &self.declared.routes[at];
        let fields = R::fields();
        if *content != RouteContent::Rows(fields.clone()) {
            self.fail(format!("route `{name}` is described with other fields than its row has"));
            return false;
        }
        let rows = (self.input.batch.count - self.index) as usize;
        let route = &mut self.routes[at];
        route.rows.reserve_exact(rows);
        route.columns = fields.iter().map(|field| builder(field.data_type, rows)).collect();
        true
    }

    /// Gives the record a fate, unless it has another.
    #[inline]
    fn take(&mut self, fate: Fate) -> bool {
        match self.fate {
            Some(first) if first != fate => {
                self.fail(format!("both {first} and {fate}"));
                false
            }
            _ => {
                self.fate = Some(fate);
                true
            }
        }
    }

    /// Adds an entry to the rejects, unless the record has this reason already.
    fn add_reason(&mut self, reason: &Reason) -> bool {
        let found = self.declared.reasons.iter().zip(0..).find(|(declared, _)| declared.code == reason.code);
        let Some((_, at)) = found else {
            self.fail(format!("reason `{}` is not in the description", reason.code));
            return false;
        };
        if !self.take(Fate::Rejected) || self.has_reason(at) {
            return false;
        }
        self.rejects.rows.push(self.index);
        self.rejects.reasons.push(at);
        true
    }

    fn has_reason(&self, reason: u32) -> bool {
        let entries = self.rejects.rows.iter().zip(&self.rejects.reasons).rev();
        entries.take_while(|(row, _)| **row == self.index).any(|(_, had)| *had == reason)
    }

    fn end_detail(&mut self, found: Option<&dyn Display>) {
        let details = &mut self.rejects.details;
        if details.offsets.is_empty() {
            details.offsets.push(0);
        }
        if let Some(found) = found {
            let limit = details.data.len() + DETAIL_LIMIT_BYTES;
            // Past the limit the writer refuses, which ends the formatting; what fits has been written.
            write!(Limited { data: &mut details.data, limit }, "{found}").unwrap_or_default();
        }
        push_present(&mut details.validity, self.rejects.rows.len() - 1, found.is_some());
        details.close();
    }

    fn on_last_row<F>(&mut self, change: F)
    where
        F: FnOnce(&mut EnvelopeBuilder, usize, &[u32], &Input<'_>) -> Result<(), String>,
    {
        let route = &mut self.routes[self.last_route];
        let outcome = match self.fate {
            Some(Fate::Routed) => change(&mut route.envelope, route.rows.len() - 1, &route.rows, self.input),
            _ => Err("there is no row yet to set a key, a header or a delete on".to_owned()),
        };
        outcome.unwrap_or_else(|fault| self.fail(fault));
    }

    /// The first fault tells most.
    #[cold]
    fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

impl RouteBuilder {
    fn finish(self, route: u32, input: &Input<'_>) -> Result<RouteOutput, String> {
        let columns = self.columns.into_iter().map(ColumnBuilder::finish).collect();
        let EnvelopeBuilder { keys, headers, deletes } = self.envelope.finish(&self.rows, input)?;
        Ok(RouteOutput { route, rows: self.rows, columns, keys, headers, deletes })
    }
}

/// If no reject has a detail, there are no details.
fn finish_rejects(rejects: Rejects) -> Rejects {
    let details = &rejects.details;
    let none = !details.validity.is_empty() && details.validity.iter().all(|byte| *byte == 0);
    if none { Rejects { details: Rejects::default().details, ..rejects } } else { rejects }
}

impl Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Routed => "routed",
            Self::Rejected => "rejected",
            Self::Dropped => "dropped",
        })
    }
}

/// Takes text up to a limit, and whole characters only.
struct Limited<'a> {
    data: &'a mut Vec<u8>,
    limit: usize,
}

impl Write for Limited<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(self.limit - self.data.len());
        self.data.extend_from_slice(&text.as_bytes()[..fits]);
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
