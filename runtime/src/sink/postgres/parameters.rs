//! The parameters of statements. It knows no statement.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Postgres, Type as SqlType};

use super::values::Type;

/// For statements without parameters.
pub(super) fn no_values() -> PgArguments {
    PgArguments::default()
}

/// Adding a value to a statement cannot fail: all there are have a form in PostgreSQL.
pub(super) fn bound(added: Result<(), BoxDynError>) {
    added.expect("numbers, texts and arrays of less than 2 GiB can be bound");
}

/// An array in its binary form.
pub(super) struct Array {
    pub(super) of: Type,
    pub(super) bytes: Vec<u8>,
}

impl SqlType<Postgres> for Array {
    /// Never asked for: a value says its own.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.of.oids().1)))
    }

    fn size_hint(&self) -> usize {
        self.bytes.len()
    }
}
