//! Where records come from. A source numbers and hands over; it never looks into a value.

pub mod files;
pub mod format;
