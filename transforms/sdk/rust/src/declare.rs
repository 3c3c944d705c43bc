//! What an author declares once as constants: routes, reasons, tables. `describe` lists them, `record` uses them.
//! Never holds data.

use std::marker::PhantomData;

use crate::description::{
    DataType, Description, Envelope, Field, ReasonDescription, RouteContent, RouteDescription,
    TableDescription, trimmed,
};
use crate::row::Row;
use crate::settings::Setting;

/// A route of new rows, of the type `R`.
#[derive(Debug)]
pub struct Rows<R> {
    pub(crate) name: &'static str,
    row: PhantomData<fn() -> R>,
}

/// A route of the records themselves.
#[derive(Debug, Clone, Copy)]
pub struct Records {
    pub(crate) name: &'static str,
    doc: &'static str,
}

/// Why a record can be rejected.
#[derive(Debug, Clone, Copy)]
pub struct Reason {
    pub(crate) code: &'static str,
    field: Option<&'static str>,
    message: &'static str,
}

/// A reference table that `init` gets.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub(crate) name: &'static str,
    doc: &'static str,
    required: bool,
    columns: &'static [TableColumn],
}

/// A column of a reference table.
#[derive(Debug, Clone, Copy)]
pub struct TableColumn {
    name: &'static str,
    data_type: DataType,
    nullable: bool,
    doc: &'static str,
}

/// A route of either kind.
pub trait Route {
    fn describe(&self) -> RouteDescription;
}

impl<R: Row> Rows<R> {
    /// A route of this name; its doc is that of the row.
    #[must_use]
    pub const fn route(name: &'static str) -> Self {
        Self { name, row: PhantomData }
    }
}

impl Records {
    #[must_use]
    pub const fn route(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc }
    }
}

impl Reason {
    /// A reason that lies in the record as a whole, or in several fields.
    #[must_use]
    pub const fn new(code: &'static str, message: &'static str) -> Self {
        Self { code, field: None, message }
    }

    /// A reason that lies in one field.
    #[must_use]
    pub const fn of(field: &'static str, code: &'static str, message: &'static str) -> Self {
        Self { code, field: Some(field), message }
    }
}

impl Table {
    /// A table without which the pipeline does not start.
    #[must_use]
    pub const fn required(name: &'static str, columns: &'static [TableColumn], doc: &'static str) -> Self {
        Self { name, doc, required: true, columns }
    }

    /// A table that may be missing.
    #[must_use]
    pub const fn optional(name: &'static str, columns: &'static [TableColumn], doc: &'static str) -> Self {
        Self { name, doc, required: false, columns }
    }
}

impl TableColumn {
    /// A column that is never null.
    #[must_use]
    pub const fn new(name: &'static str, data_type: DataType, doc: &'static str) -> Self {
        Self { name, data_type, nullable: false, doc }
    }

    /// A column that may be null.
    #[must_use]
    pub const fn nullable(name: &'static str, data_type: DataType, doc: &'static str) -> Self {
        Self { name, data_type, nullable: true, doc }
    }

    fn describe(&self) -> Field {
        let Self { name, data_type, nullable, doc } = *self;
        Field { name: name.to_owned(), data_type, nullable, doc: doc.to_owned(), annotations: Vec::new() }
    }
}

impl<R: Row> Route for Rows<R> {
    fn describe(&self) -> RouteDescription {
        let content = RouteContent::Rows(R::fields());
        RouteDescription {
            name: self.name.to_owned(),
            content,
            doc: trimmed(R::DOC),
            annotations: Vec::new(),
        }
    }
}

impl Route for Records {
    fn describe(&self) -> RouteDescription {
        let (name, doc) = (self.name.to_owned(), self.doc.to_owned());
        RouteDescription { name, content: RouteContent::Records, doc, annotations: Vec::new() }
    }
}

/// The description in reading order.
impl Description {
    #[must_use]
    pub fn new(name: &str, version: &str, doc: &str) -> Self {
        Self { name: name.to_owned(), version: version.to_owned(), doc: doc.to_owned(), ..Self::default() }
    }

    /// Asks for more of a record than its value.
    #[must_use]
    pub fn needs(self, needs: Envelope) -> Self {
        Self { needs, ..self }
    }

    #[must_use]
    pub fn settings(mut self, settings: &[&dyn Setting]) -> Self {
        self.settings.extend(settings.iter().map(|setting| setting.describe()));
        self
    }

    #[must_use]
    pub fn tables(mut self, tables: &[&Table]) -> Self {
        self.tables.extend(tables.iter().map(|table| TableDescription {
            name: table.name.to_owned(),
            columns: table.columns.iter().map(TableColumn::describe).collect(),
            required: table.required,
            doc: table.doc.to_owned(),
            annotations: Vec::new(),
        }));
        self
    }

    #[must_use]
    pub fn routes(mut self, routes: &[&dyn Route]) -> Self {
        self.routes.extend(routes.iter().map(|route| route.describe()));
        self
    }

    #[must_use]
    pub fn reasons(mut self, reasons: &[Reason]) -> Self {
        self.reasons.extend(reasons.iter().map(|reason| ReasonDescription {
            code: reason.code.to_owned(),
            field: reason.field.map(str::to_owned),
            message: reason.message.to_owned(),
            annotations: Vec::new(),
        }));
        self
    }
}
