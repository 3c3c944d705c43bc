//! Typed rows: a struct is a row, its fields are the fields, their types are the columns. Never half a row.

use std::borrow::Cow;

use crate::column::{ColumnBuilder, ColumnData, VarBytes};
use crate::description::{DataType, Field};

/// A row of a route. Implemented by [`row!`](crate::row!).
pub trait Row {
    /// What the route's rows are, for `describe`.
    const DOC: &'static str;

    /// The fields, in the order of the columns.
    fn fields() -> Vec<Field>;

    /// Appends one cell to each column; there is one per field.
    fn push(self, columns: &mut [ColumnBuilder]);
}

/// A value that goes into a column.
pub trait Cell {
    const DATA_TYPE: DataType;
    const NULLABLE: bool = false;

    /// Appends the value to a column of its type.
    fn push(self, column: &mut ColumnBuilder)
    where
        Self: Sized,
    {
        Self::push_option(Some(self), column);
    }

    /// Appends the value, or null.
    fn push_option(cell: Option<Self>, column: &mut ColumnBuilder)
    where
        Self: Sized;
}

/// Days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i32);

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// A text that is JSON; the runtime checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<'a>(pub &'a str);

/// A number of at most `PRECISION` (1 to 38) digits, `SCALE` of them after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal<const PRECISION: u8, const SCALE: u8>(i128);

impl<const PRECISION: u8, const SCALE: u8> Decimal<PRECISION, SCALE> {
    /// `unscaled` / 10^`SCALE`; `None` if that has more digits than `PRECISION`.
    #[must_use]
    pub const fn new(unscaled: i128) -> Option<Self> {
        const { assert!(1 <= PRECISION && PRECISION <= 38 && SCALE <= PRECISION) };
        let fits = unscaled.unsigned_abs() < 10_u128.pow(PRECISION as u32);
        if fits { Some(Self(unscaled)) } else { None }
    }

    /// The value times 10^`SCALE`.
    #[must_use]
    pub const fn unscaled(self) -> i128 {
        self.0
    }
}

impl<C: Cell> Cell for Option<C> {
    const DATA_TYPE: DataType = C::DATA_TYPE;
    const NULLABLE: bool = true;

    #[inline]
    fn push_option(cell: Option<Self>, column: &mut ColumnBuilder) {
        C::push_option(cell.flatten(), column);
    }
}

macro_rules! cells {
    ($($cell:ty, $data_type:expr, $push:ident, |$value:pat_param| $raw:expr;)+) => {$(
        impl Cell for $cell {
            const DATA_TYPE: DataType = $data_type;

            #[inline]
            fn push_option(cell: Option<Self>, column: &mut ColumnBuilder) {
                column.$push(cell.map(|$value| $raw));
            }
        }
    )+};
}

cells! {
    bool, DataType::Boolean, boolean, |value| value;
    i32, DataType::Int32, s32, |value| value;
    i64, DataType::Int64, s64, |value| value;
    f64, DataType::Double, f64, |value| value;
    Date, DataType::Date, s32, |Self(days)| days;
    Timestamp, DataType::Timestamp, s64, |Self(micros)| micros;
    &str, DataType::Utf8, bytes, |text| text.as_bytes();
    &[u8], DataType::Binary, bytes, |bytes| bytes;
    Json<'_>, DataType::Json, bytes, |Self(text)| text.as_bytes();
}

impl Cell for Cow<'_, str> {
    const DATA_TYPE: DataType = DataType::Utf8;

    #[inline]
    fn push_option(cell: Option<Self>, column: &mut ColumnBuilder) {
        column.bytes(cell.as_deref().map(str::as_bytes));
    }
}

impl<const PRECISION: u8, const SCALE: u8> Cell for Decimal<PRECISION, SCALE> {
    const DATA_TYPE: DataType = DataType::Decimal { precision: PRECISION, scale: SCALE };

    #[inline]
    fn push_option(cell: Option<Self>, column: &mut ColumnBuilder) {
        column.s128(cell.map(Self::unscaled));
    }
}

/// An empty column for `data_type`, with room for `rows`.
pub(crate) fn builder(data_type: DataType, rows: usize) -> ColumnBuilder {
    ColumnBuilder::new(match data_type {
        DataType::Boolean => ColumnData::Booleans(Vec::with_capacity(rows.div_ceil(8))),
        DataType::Int32 | DataType::Date => ColumnData::S32s(Vec::with_capacity(rows)),
        DataType::Int64 | DataType::Timestamp => ColumnData::S64s(Vec::with_capacity(rows)),
        DataType::Double => ColumnData::F64s(Vec::with_capacity(rows)),
        DataType::Decimal { .. } => ColumnData::S128s(Vec::with_capacity(16 * rows)),
        DataType::Utf8 | DataType::Binary | DataType::Json => {
            let mut entries = VarBytes::default();
            entries.offsets.reserve_exact(rows);
            ColumnData::VarBytes(entries)
        }
    })
}

/// Declares a struct as a row: its doc comment is the route's, its fields are the fields in their order, with
/// their doc comments. `Option` makes a field nullable; `#[annotate("unit", "years")]` annotates one.
///
/// ```
/// weir_sdk::row! {
///     /// One line of an order.
///     pub struct Line<'a> {
///         /// The article's number.
///         pub article: &'a str,
///         #[annotate("unit", "EUR")]
///         pub price: weir_sdk::Decimal<12, 2>,
///         pub remark: Option<&'a str>,
///     }
/// }
/// ```
#[macro_export]
macro_rules! row {
    (
        $(#[doc = $doc:expr])*
        $vis:vis struct $row:ident $(<$life:lifetime>)? {
            $(
                $(#[doc = $field_doc:expr])*
                $(#[annotate($key:expr, $value:expr)])*
                $field_vis:vis $field:ident : $cell:ty
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $row $(<$life>)? {
            $($(#[doc = $field_doc])* $field_vis $field: $cell,)+
        }

        impl $(<$life>)? $crate::Row for $row $(<$life>)? {
            const DOC: &'static str = concat!($($doc, "\n"),*);

            fn fields() -> Vec<$crate::description::Field> {
                vec![$($crate::description::Field {
                    name: stringify!($field).to_owned(),
                    data_type: <$cell as $crate::Cell>::DATA_TYPE,
                    nullable: <$cell as $crate::Cell>::NULLABLE,
                    doc: $crate::description::trimmed(concat!($($field_doc, "\n"),*)),
                    annotations: vec![$(($key.to_owned(), $value.to_owned())),*],
                }),+]
            }

            #[inline]
            fn push(self, columns: &mut [$crate::ColumnBuilder]) {
                let [$($field),+] = columns else { unreachable!("the columns are built from the fields") };
                $($crate::Cell::push(self.$field, $field);)+
            }
        }
    };
}
