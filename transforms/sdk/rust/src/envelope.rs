//! Keys, headers and deletes that a transform gives to single rows of a route. Never there unless one is set.

use crate::batch::Input;
use crate::column::VarBytes;
use crate::output::Headers;

#[derive(Debug, Default)]
pub(crate) struct EnvelopeBuilder {
    pub(crate) keys: Option<VarBytes>,
    pub(crate) headers: Option<Headers>,
    /// Empty, or one bit per row.
    pub(crate) deletes: Vec<u8>,
}

impl EnvelopeBuilder {
    /// Gives `row` (an index into `rows`, the last one) its own key; the rows before it keep their records'.
    pub(crate) fn set_key(
        &mut self,
        row: usize,
        rows: &[u32],
        input: &Input<'_>,
        key: &[u8],
    ) -> Result<(), String> {
        let keys = self.keys.get_or_insert_default();
        inherit_keys(keys, &rows[..row], input)?;
        if keys.offsets.len() > row + 1 {
            return Err("the key of one row is set twice".to_owned());
        }
        keys.push(Some(key));
        Ok(())
    }

    /// Adds a header to `row`, as [`set_key`](Self::set_key) does with a key.
    pub(crate) fn set_header(
        &mut self,
        row: usize,
        rows: &[u32],
        input: &Input<'_>,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), String> {
        let headers = self.headers.get_or_insert_with(no_headers);
        inherit_headers(headers, &rows[..row], input)?;
        if headers.starts.len() > row + 1 {
            headers.starts.pop();
        }
        headers.push(name, value);
        headers.end_row();
        Ok(())
    }

    /// Makes `row` a delete.
    pub(crate) fn set_delete(&mut self, row: usize) {
        self.deletes.resize(self.deletes.len().max(row / 8 + 1), 0);
        self.deletes[row / 8] |= 1 << (row % 8);
    }

    /// Everything for a route of these rows; nothing where no row has its own.
    pub(crate) fn finish(mut self, rows: &[u32], input: &Input<'_>) -> Result<Self, String> {
        if let Some(keys) = &mut self.keys {
            inherit_keys(keys, rows, input)?;
        }
        if let Some(headers) = &mut self.headers {
            inherit_headers(headers, rows, input)?;
        }
        if !self.deletes.is_empty() {
            self.deletes.resize(rows.len().div_ceil(8), 0);
        }
        Ok(self)
    }
}

/// Rows without a key of their own up to the end of `rows` take their records'.
fn inherit_keys(keys: &mut VarBytes, rows: &[u32], input: &Input<'_>) -> Result<(), String> {
    let Some(rows @ [_, ..]) = rows.get(keys.offsets.len() - 1..) else { return Ok(()) };
    let all = input.batch.keys.ok_or_else(|| missing("key", "keys"))?;
    rows.iter().for_each(|row| keys.push(all.get(*row as usize)));
    Ok(())
}

/// Rows without headers of their own up to the end of `rows` take their records'.
fn inherit_headers(headers: &mut Headers, rows: &[u32], input: &Input<'_>) -> Result<(), String> {
    let Some(rows @ [_, ..]) = rows.get(headers.starts.len() - 1..) else { return Ok(()) };
    let all = input.batch.headers.ok_or_else(|| missing("headers", "headers"))?;
    for row in rows {
        all.of(*row as usize).for_each(|(name, value)| headers.push(name, value));
        headers.end_row();
    }
    Ok(())
}

#[cold]
fn missing(what: &str, need: &str) -> String {
    format!(
        "some rows set their {what} and others do not; let `needs` ask for {need}, so that these keep theirs"
    )
}

fn no_headers() -> Headers {
    Headers { starts: vec![0], names: VarBytes::default(), values: VarBytes::default() }
}

impl Headers {
    fn push(&mut self, name: &str, value: Option<&[u8]>) {
        self.names.push(Some(name.as_bytes()));
        self.values.push(value);
    }

    fn end_row(&mut self) {
        self.starts.push(u32::try_from(self.names.offsets.len() - 1).expect("as many headers as offsets"));
    }
}
