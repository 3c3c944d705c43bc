//! Records that come again for one of their rows alone, since a sink refused it. The rule in force makes their rows as always;
//! the row that has the number goes to where it was refused, if it still goes there, and no other row of the record anywhere.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;

use super::{Bindings, DEAD_LETTERS, Fate, Output, RoutePart, Routed, picked, picked_headers};
use crate::batch::Batch;
use crate::description::Description;
use crate::offset::Offset;
use crate::origin::Meant;

/// The code of a record of which the rule in force does not make the row that it comes again for, or sends it elsewhere.
pub const ROW_NOT_MADE: &str = "row-not-made";

/// The only place that a row of a record goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addressee {
    /// The place of the sink in [`Bindings::sinks`].
    pub sink: usize,
    /// Where there.
    pub target: Arc<str>,
}

/// The records of a batch of which one row alone is meant, but for those that are on no route.
#[derive(Default)]
pub(super) struct Narrowing {
    /// Those of which there is that row: its number, and where it goes. Ascending.
    made: Vec<(Offset, i32, Addressee)>,
    /// Those that are routed without it, and their rows in the batch. Ascending.
    unmade: Vec<(Offset, u32)>,
}

impl Narrowing {
    pub(super) fn find(
        batch: &Batch,
        description: &Description,
        bindings: &Bindings,
        outputs: &[(u32, Output)],
    ) -> Self {
        let mut found = Self::default();
        for (offset, meant) in batch.meant() {
            let row = batch.offsets().partition_point(|o| *o < offset.get()) as u32;
            let piece = outputs.partition_point(|(first, _)| *first <= row).checked_sub(1);
            let Some((first, output)) = piece.map(|piece| &outputs[piece]) else { continue };
            let routes = routes_of(output, row - first);
            if routes.is_empty() {
                continue;
            }
            let route = usize::try_from(meant.index).ok().and_then(|index| routes.get(index));
            let to = route.and_then(|route| addressee(bindings, &description.routes[*route].name, meant));
            match to {
                Some(to) => found.made.push((*offset, meant.index, to)),
                None => found.unmade.push((*offset, row)),
            }
        }
        found
    }

    /// Rows of the batch of whose records the rule in force does not make what is meant.
    pub(super) fn unmade(&self) -> impl Iterator<Item = u32> {
        self.unmade.iter().map(|(_, row)| *row)
    }

    /// Leaves nothing of the records but what is meant of them; says where that goes.
    pub(super) fn narrow(
        self,
        fates: &mut [(Offset, Fate)],
        parts: &mut Vec<RoutePart>,
    ) -> Vec<(Offset, Addressee)> {
        if self.made.is_empty() && self.unmade.is_empty() {
            return Vec::new();
        }
        for (offset, _) in &self.unmade {
            let place = fates.partition_point(|(of, _)| of < offset);
            fates[place].1 = Fate::Rejected;
        }
        for part in parts.iter_mut() {
            let stays = |row: &u32| self.stays(part, *row as usize);
            let rows: Vec<u32> = (0..part.offsets.len() as u32).filter(stays).collect();
            if rows.len() < part.offsets.len() {
                *part = part.picked(&rows);
            }
        }
        parts.retain(|part| !part.offsets.is_empty());
        self.made.into_iter().map(|(offset, _, to)| (offset, to)).collect()
    }

    fn stays(&self, part: &RoutePart, row: usize) -> bool {
        let offset = Offset::new(part.offsets[row]);
        if self.unmade.binary_search_by_key(&offset, |(of, _)| *of).is_ok() {
            return false;
        }
        match self.made.binary_search_by_key(&offset, |(of, ..)| *of) {
            Ok(place) => self.made[place].1 == part.index[row],
            Err(_) => true,
        }
    }
}

/// By which routes the rows of a record go, in the order of their numbers.
fn routes_of(output: &Output, row: u32) -> Vec<usize> {
    let mut routes: Vec<usize> = Vec::new();
    for rows in &output.routes {
        let first = rows.rows.partition_point(|of| *of < row);
        routes.extend(rows.rows[first..].iter().take_while(|of| **of == row).map(|_| rows.route));
    }
    routes.sort_unstable();
    routes
}

fn addressee(bindings: &Bindings, route: &str, meant: &Meant) -> Option<Addressee> {
    let sink = bindings.names.iter().position(|name| *name == meant.sink)?;
    let goes_there = |(of, to): &(Arc<str>, Arc<str>)| **of == *route && *to == meant.target;
    let bound = bindings.sinks.get(sink)?.iter().any(goes_there);
    bound.then(|| Addressee { sink, target: meant.target.clone() })
}

impl Routed {
    /// The only place that a row of the record at `offset` goes to; nothing where all of its rows go where their routes do.
    pub fn addressee(&self, offset: Offset) -> Option<&Addressee> {
        let place = self.addressed.binary_search_by_key(&offset, |(of, _)| *of).ok()?;
        Some(&self.addressed[place].1)
    }

    /// The rows of a part that a target of a sink is to have.
    pub fn rows_for<'a>(&self, part: &'a RoutePart, sink: usize, target: &Arc<str>) -> Cow<'a, RoutePart> {
        if self.addressed.is_empty() || *part.route == *DEAD_LETTERS {
            return Cow::Borrowed(part);
        }
        let is_theirs = |row: &u32| {
            let to = self.addressee(Offset::new(part.offsets[*row as usize]));
            to.is_none_or(|to| to.sink == sink && to.target == *target)
        };
        let rows: Vec<u32> = (0..part.offsets.len() as u32).filter(is_theirs).collect();
        match rows.len() == part.offsets.len() {
            true => Cow::Borrowed(part),
            false => Cow::Owned(part.picked(&rows)),
        }
    }
}

impl RoutePart {
    /// Some of its rows, which are named in order.
    fn picked(&self, rows: &[u32]) -> Self {
        let places = || rows.iter().map(|row| *row as usize);
        let numbers = UInt32Array::from(rows.to_vec());
        let content = take_record_batch(&self.rows, &numbers).expect("each is one of its rows");
        Self {
            route: self.route.clone(),
            rows: content,
            offsets: picked(&self.offsets, rows),
            origins: self.origins.as_ref().map(|all| places().map(|row| all[row].clone()).collect()),
            index: picked(&self.index, rows),
            timestamps: picked(&self.timestamps, rows),
            keys: self.keys.as_ref().map(|keys| places().map(|row| keys.get(row)).collect()),
            headers: self.headers.as_ref().map(|all| picked_headers(all, rows.iter().map(|row| Some(*row)))),
            deletes: self.deletes.as_ref().map(|all| places().map(|row| all.value(row)).collect()),
        }
    }
}

#[cfg(test)]
mod tests;
