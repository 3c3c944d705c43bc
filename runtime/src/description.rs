//! What a transform says of itself: its routes, reasons, tables and settings, as checked by the sandbox.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema, SchemaRef, TimeUnit};

/// What a field means; the contract names the layout that carries each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// True or false.
    Boolean,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// IEEE 754, 64 bits.
    Double,
    /// An exact number of `precision` digits, `scale` of them behind the point.
    Decimal {
        /// 1 to 38.
        precision: u8,
        /// 0 to `precision`.
        scale: u8,
    },
    /// Text.
    Utf8,
    /// Bytes.
    Binary,
    /// One JSON text; checked when it comes out of a transform.
    Json,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
}

impl DataType {
    /// The Arrow type that carries it. `Json` is text there; the field's metadata tells the two apart.
    pub fn to_arrow(self) -> ArrowType {
        match self {
            Self::Boolean => ArrowType::Boolean,
            Self::Int32 => ArrowType::Int32,
            Self::Int64 => ArrowType::Int64,
            Self::Double => ArrowType::Float64,
            Self::Decimal { precision, scale } => ArrowType::Decimal128(precision, scale as i8),
            Self::Utf8 | Self::Json => ArrowType::Utf8,
            Self::Binary => ArrowType::Binary,
            Self::Date => ArrowType::Date32,
            Self::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// One column of a route or of a reference table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Unique in its route, ignoring case.
    pub name: String,
    /// What it means.
    pub data_type: DataType,
    /// Whether a row may have none.
    pub nullable: bool,
    /// For people.
    pub doc: String,
}

/// The key in an Arrow field's metadata that marks text as one JSON text.
pub const JSON_MARK: &str = "weir.json";

impl Field {
    /// The Arrow field of this name and type.
    pub fn to_arrow(&self) -> ArrowField {
        let field = ArrowField::new(&self.name, self.data_type.to_arrow(), self.nullable);
        match self.data_type {
            DataType::Json => field.with_metadata(HashMap::from([(JSON_MARK.to_owned(), "1".to_owned())])),
            _ => field,
        }
    }
}

/// What goes out on a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteContent {
    /// New rows with these fields.
    Rows(Vec<Field>),
    /// The records themselves, byte for byte.
    Records,
}

/// A named way out of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The pipeline file binds it to sinks by this name.
    pub name: Arc<str>,
    /// What goes out.
    pub content: RouteContent,
    /// For people.
    pub doc: String,
}

impl Route {
    /// The columns of its rows, provenance left out.
    pub fn schema(&self) -> SchemaRef {
        match &self.content {
            RouteContent::Rows(fields) => {
                Arc::new(Schema::new(fields.iter().map(Field::to_arrow).collect::<Vec<_>>()))
            }
            RouteContent::Records => crate::route::records_schema(),
        }
    }
}

/// Why a record can be rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable and short, for metrics.
    pub code: Arc<str>,
    /// The field at fault, if it is one.
    pub field: Option<String>,
    /// For people.
    pub message: String,
}

/// A reference table that a transform wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNeed {
    /// By this name the pipeline file gives it.
    pub name: String,
    /// The columns it wants, in this order.
    pub columns: Vec<Field>,
    /// Whether it can do without.
    pub required: bool,
    /// For people.
    pub doc: String,
}

/// A setting that a transform reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// By this key the pipeline file sets it.
    pub key: String,
    /// Absent: it must be set.
    pub default: Option<String>,
    /// For people.
    pub doc: String,
    /// The values it may have, where the transform says so.
    pub choices: Option<Vec<String>>,
}

/// Which parts of a record, beyond its value, a transform wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its key.
    pub keys: bool,
    /// Its headers.
    pub headers: bool,
    /// Its timestamp.
    pub timestamps: bool,
    /// Its partition.
    pub partitions: bool,
    /// Its offset.
    pub offsets: bool,
}

/// What a transform is, wants and gives under some settings. Names are unique and well formed: whoever holds one
/// of these need not check it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The transform's name.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// For people.
    pub doc: String,
    /// What it wants to see of a record.
    pub needs: Needs,
    /// What can be set.
    pub settings: Vec<Setting>,
    /// What it looks up.
    pub tables: Vec<TableNeed>,
    /// Where records can go; rows are numbered over the routes in this order.
    pub routes: Vec<Route>,
    /// Why records can be rejected.
    pub reasons: Vec<Reason>,
}
