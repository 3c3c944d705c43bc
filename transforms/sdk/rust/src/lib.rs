//! Write a Weir transform: declare routes, reasons, settings and tables, and decide one record at a time. The SDK
//! does the batches, the columns, the rejects and the counting. Never reads a file, a clock or a random number.
//!
//! Begin with [`Transform`]; [`row!`] declares what goes out, [`json`] and [`clean`] read what comes in, [`export!`]
//! makes the component, and [`testing`] tells the fate of records in a native test.

// The bindings that `export!` expands to name this crate, also inside it.
#[cfg(target_family = "wasm")]
extern crate self as weir_sdk;

pub mod batch;
pub mod clean;
pub mod column;
mod declare;
pub mod description;
mod emitter;
mod envelope;
pub mod json;
mod lookup;
pub mod output;
mod row;
mod scan;
mod settings;
pub mod testing;
mod transform;

#[cfg(target_family = "wasm")]
pub mod export;

pub use batch::{Batch, Record};
pub use column::ColumnBuilder;
pub use declare::{Reason, Records, Route, Rows, Table, TableColumn};
pub use description::{DataType, Description, Envelope};
pub use emitter::{DETAIL_LIMIT_BYTES, Emitter};
pub use lookup::{Case, Lookup, TableData, Tables};
pub use output::Output;
pub use row::{Cell, Date, Decimal, Json, Row, Timestamp};
pub use settings::{Choice, Integer, Setting, Settings, Text, Typed};
pub use transform::{Instance, Transform};

/// Makes a transform the component that the runtime loads. Does nothing in a native build.
///
/// ```text
/// weir_sdk::export!(Customers);
/// ```
#[macro_export]
macro_rules! export {
    ($transform:ty) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the exports that the contract's bindings generate")]
        const _: () = {
            use $crate::export::{Component, Exported};

            impl Exported for $transform {
                fn instance() -> &'static ::std::sync::OnceLock<$crate::Instance<Self>> {
                    static INSTANCE: ::std::sync::OnceLock<$crate::Instance<$transform>> =
                        ::std::sync::OnceLock::new();
                    &INSTANCE
                }
            }

            type Exports = Component<$transform>;
            $crate::export::bindings::export_component!(Exports);
        };
    };
}

// The guide's code is tried by the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Guide;
