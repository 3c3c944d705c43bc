//! What a transform tells about itself: the contract's `description` in plain Rust. Never checks names; the
//! runtime does, once, when it loads the component.

/// Key and value pairs for tools, such as `("unit", "years")`.
pub type Annotations = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub doc: String,
    pub needs: Envelope,
    pub settings: Vec<SettingDescription>,
    pub tables: Vec<TableDescription>,
    pub routes: Vec<RouteDescription>,
    pub reasons: Vec<ReasonDescription>,
    pub annotations: Annotations,
}

/// Which parts of a record, beyond its value, the transform sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Envelope {
    pub keys: bool,
    pub headers: bool,
    pub timestamps: bool,
    pub partitions: bool,
    pub offsets: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDescription {
    pub key: String,
    /// `None`: the setting is required.
    pub default_value: Option<String>,
    pub doc: String,
    pub annotations: Annotations,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDescription {
    pub name: String,
    pub columns: Vec<Field>,
    pub required: bool,
    pub doc: String,
    pub annotations: Annotations,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDescription {
    pub name: String,
    pub content: RouteContent,
    pub doc: String,
    pub annotations: Annotations,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteContent {
    /// New rows with these fields.
    Rows(Vec<Field>),
    /// The records themselves, byte for byte.
    Records,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    pub doc: String,
    pub annotations: Annotations,
}

/// What a field means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    Boolean,
    Int32,
    Int64,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Utf8,
    Binary,
    Json,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonDescription {
    pub code: String,
    pub field: Option<String>,
    pub message: String,
    pub annotations: Annotations,
}

/// Doc comments as running text: each line begins with a blank.
#[doc(hidden)]
#[must_use]
pub fn trimmed(doc: &str) -> String {
    doc.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned()
}
