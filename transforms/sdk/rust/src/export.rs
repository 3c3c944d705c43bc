//! The component that the runtime loads: the contract's bindings around an [`Instance`]. Never copies a column.

use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::batch::{Batch, HeadersRef, VarBytesRef};
use crate::{Instance, Transform, column, description, lookup, output};

/// The contract lies beside this crate, so that a copy of the two builds anywhere.
#[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all, reason = "generated")]
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "transform-component",
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::export::bindings",
        export_macro_name: "export_component",
        runtime_path: "::weir_sdk::export::rt",
    });
}

#[doc(hidden)]
pub use wit_bindgen::rt;

use bindings::exports::weir::transform::transform as wit;

/// A transform that has a place for its one instance. Implemented by [`export!`](crate::export!).
pub trait Exported: Transform {
    fn instance() -> &'static OnceLock<Instance<Self>>;
}

/// The contract's functions for `T`.
#[derive(Debug)]
pub struct Component<T>(PhantomData<T>);

impl<T: Exported> wit::Guest for Component<T> {
    fn describe(settings: Vec<(String, String)>) -> Result<wit::Description, String> {
        Instance::<T>::describe(settings).map(Into::into)
    }

    fn init(settings: Vec<(String, String)>, tables: Vec<wit::Table>) -> Result<(), String> {
        let tables = tables.into_iter().map(Into::into).collect();
        let instance = Instance::init(settings, tables)?;
        T::instance().set(instance).map_err(|_| "init is called once".to_owned())
    }

    fn process(input: wit::Batch) -> Result<wit::Output, String> {
        let instance = T::instance().get().ok_or("process is called after init")?;
        instance.process(&Batch::from(&input)).map(Into::into)
    }
}

impl<'a> From<&'a wit::Batch> for Batch<'a> {
    fn from(batch: &'a wit::Batch) -> Self {
        Self {
            topic: &batch.topic,
            count: batch.count,
            values: (&batch.values).into(),
            keys: batch.keys.as_ref().map(Into::into),
            headers: batch.headers.as_ref().map(Into::into),
            timestamps: batch.timestamps.as_deref(),
            partitions: batch.partitions.as_deref(),
            offsets: batch.offsets.as_deref(),
        }
    }
}

impl<'a> From<&'a wit::VarBytes> for VarBytesRef<'a> {
    fn from(entries: &'a wit::VarBytes) -> Self {
        Self { offsets: &entries.offsets, data: &entries.data, validity: &entries.validity }
    }
}

impl<'a> From<&'a wit::Headers> for HeadersRef<'a> {
    fn from(headers: &'a wit::Headers) -> Self {
        let (names, values) = ((&headers.names).into(), (&headers.values).into());
        Self { starts: &headers.starts, names, values }
    }
}

impl From<wit::Table> for lookup::TableData {
    fn from(table: wit::Table) -> Self {
        let columns = table.columns.into_iter().map(|named| (named.name, named.column.into())).collect();
        Self { name: table.name, rows: table.rows, columns }
    }
}

impl From<wit::VarBytes> for column::VarBytes {
    fn from(wit::VarBytes { offsets, data, validity }: wit::VarBytes) -> Self {
        Self { offsets, data, validity }
    }
}

impl From<column::VarBytes> for wit::VarBytes {
    fn from(column::VarBytes { offsets, data, validity }: column::VarBytes) -> Self {
        Self { offsets, data, validity }
    }
}

impl From<wit::Column> for column::Column {
    fn from(column: wit::Column) -> Self {
        let data = match column.data {
            wit::ColumnData::Booleans(bits) => column::ColumnData::Booleans(bits),
            wit::ColumnData::S32s(values) => column::ColumnData::S32s(values),
            wit::ColumnData::S64s(values) => column::ColumnData::S64s(values),
            wit::ColumnData::F64s(values) => column::ColumnData::F64s(values),
            wit::ColumnData::S128s(bytes) => column::ColumnData::S128s(bytes),
            wit::ColumnData::VarBytes(entries) => column::ColumnData::VarBytes(entries.into()),
        };
        Self { data, validity: column.validity }
    }
}

impl From<column::Column> for wit::Column {
    fn from(column: column::Column) -> Self {
        let data = match column.data {
            column::ColumnData::Booleans(bits) => wit::ColumnData::Booleans(bits),
            column::ColumnData::S32s(values) => wit::ColumnData::S32s(values),
            column::ColumnData::S64s(values) => wit::ColumnData::S64s(values),
            column::ColumnData::F64s(values) => wit::ColumnData::F64s(values),
            column::ColumnData::S128s(bytes) => wit::ColumnData::S128s(bytes),
            column::ColumnData::VarBytes(entries) => wit::ColumnData::VarBytes(entries.into()),
        };
        Self { data, validity: column.validity }
    }
}

impl From<output::Output> for wit::Output {
    fn from(output: output::Output) -> Self {
        let output::Rejects { rows, reasons, details } = output.rejects;
        let rejects = wit::Rejects { rows, reasons, details: details.into() };
        Self { routes: all(output.routes), rejects, dropped: output.dropped }
    }
}

impl From<output::RouteOutput> for wit::RouteBatch {
    fn from(route: output::RouteOutput) -> Self {
        Self {
            route: route.route,
            rows: route.rows,
            columns: all(route.columns),
            keys: route.keys.map(Into::into),
            headers: route.headers.map(Into::into),
            deletes: route.deletes,
        }
    }
}

impl From<output::Headers> for wit::Headers {
    fn from(headers: output::Headers) -> Self {
        Self { starts: headers.starts, names: headers.names.into(), values: headers.values.into() }
    }
}

impl From<description::Description> for wit::Description {
    fn from(described: description::Description) -> Self {
        Self {
            name: described.name,
            version: described.version,
            doc: described.doc,
            needs: described.needs.into(),
            settings: all(described.settings),
            tables: all(described.tables),
            routes: all(described.routes),
            reasons: all(described.reasons),
            annotations: described.annotations,
        }
    }
}

impl From<description::Envelope> for wit::Envelope {
    fn from(needs: description::Envelope) -> Self {
        let parts = [
            (needs.keys, Self::KEYS),
            (needs.headers, Self::HEADERS),
            (needs.timestamps, Self::TIMESTAMPS),
            (needs.partitions, Self::PARTITIONS),
            (needs.offsets, Self::OFFSETS),
        ];
        parts.into_iter().filter(|(needed, _)| *needed).fold(Self::empty(), |all, (_, part)| all | part)
    }
}

impl From<description::SettingDescription> for wit::Setting {
    fn from(setting: description::SettingDescription) -> Self {
        let description::SettingDescription { key, default_value, doc, annotations } = setting;
        Self { key, default_value, doc, annotations }
    }
}

impl From<description::TableDescription> for wit::TableNeed {
    fn from(table: description::TableDescription) -> Self {
        let description::TableDescription { name, columns, required, doc, annotations } = table;
        Self { name, columns: all(columns), required, doc, annotations }
    }
}

impl From<description::RouteDescription> for wit::Route {
    fn from(route: description::RouteDescription) -> Self {
        let content = match route.content {
            description::RouteContent::Rows(fields) => wit::RouteContent::Rows(all(fields)),
            description::RouteContent::Records => wit::RouteContent::Records,
        };
        Self { name: route.name, content, doc: route.doc, annotations: route.annotations }
    }
}

impl From<description::Field> for wit::Field {
    fn from(field: description::Field) -> Self {
        let description::Field { name, data_type, nullable, doc, annotations } = field;
        Self { name, data_type: data_type.into(), nullable, doc, annotations }
    }
}

impl From<description::DataType> for wit::DataType {
    fn from(data_type: description::DataType) -> Self {
        match data_type {
            description::DataType::Boolean => Self::Boolean,
            description::DataType::Int32 => Self::Int32,
            description::DataType::Int64 => Self::Int64,
            description::DataType::Double => Self::Double,
            description::DataType::Decimal { precision, scale } => {
                Self::Decimal(wit::DecimalType { precision, scale })
            }
            description::DataType::Utf8 => Self::Utf8,
            description::DataType::Binary => Self::Binary,
            description::DataType::Json => Self::Json,
            description::DataType::Date => Self::Date,
            description::DataType::Timestamp => Self::Timestamp,
        }
    }
}

impl From<description::ReasonDescription> for wit::Reason {
    fn from(reason: description::ReasonDescription) -> Self {
        let description::ReasonDescription { code, field, message, annotations } = reason;
        Self { code, field, message, annotations }
    }
}

fn all<T, U: From<T>>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(U::from).collect()
}
