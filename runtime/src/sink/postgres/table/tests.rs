//! Statements, and tables that do not fit.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

use super::*;

fn table(mode: Mode) -> Table {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("price", DataType::Decimal128(10, 2), true),
        Field::new("na\"me", DataType::Utf8, false),
    ]);
    let config = TableConfig { table: "t".to_owned(), mode };
    Table::new(&config, "s", &Arc::new(schema), false).unwrap()
}

fn keyed() -> Table {
    table(Mode::Upsert { key: vec!["ID".to_owned(), "na\"me".to_owned()] })
}

#[test]
fn a_table_is_made_with_a_column_of_its_type_for_each_of_the_route() {
    let columns = "\"price\" numeric(10,2), \"na\"\"me\" text NOT NULL";
    let expected = format!("CREATE TABLE \"s\".\"t\" (\"id\" bigint, {columns})");
    assert_eq!(table(Mode::Append).create(), expected);
    let key = "PRIMARY KEY (\"id\", \"na\"\"me\")";
    let expected = format!("CREATE TABLE \"s\".\"t\" (\"id\" bigint NOT NULL, {columns}, {key})");
    assert_eq!(keyed().create(), expected);
}

#[test]
fn every_name_is_quoted_and_every_value_a_parameter() {
    let expected = "COPY \"s\".\"t\" (\"id\", \"price\", \"na\"\"me\") FROM STDIN (FORMAT binary)";
    assert_eq!(table(Mode::Append).copy(), expected);
    let keyed = keyed();
    let key = keyed.key.clone().unwrap();
    let expected = "INSERT INTO \"s\".\"t\" (\"id\", \"price\", \"na\"\"me\") \
                    SELECT * FROM unnest($1::bigint[], $2::numeric[], $3::text[]) \
                    ON CONFLICT (\"id\", \"na\"\"me\") DO UPDATE SET \"price\" = excluded.\"price\"";
    assert_eq!(keyed.upsert(&key, parameter), expected);
    let expected = "DELETE FROM \"s\".\"t\" AS weir_row USING unnest(NULL::bigint[], NULL::text[]) \
                    AS weir_key (k0, k1) WHERE weir_row.\"id\" = weir_key.k0 AND weir_row.\"na\"\"me\" = weir_key.k1";
    assert_eq!(keyed.delete(&key, nothing), expected);
    let all_key = keyed.upsert(&[0, 1, 2], nothing);
    assert!(all_key.ends_with("DO NOTHING") && keyed.changes(&[0, 1, 2], 5).is_none());
}

#[test]
fn a_name_that_postgresql_would_cut_is_refused() {
    let long = "x".repeat(64);
    for (table, column) in [(&*long, "a"), ("t", &*long), ("t", "a\0b")] {
        let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, true)]));
        let refused = Table::new(&TableConfig::append(table), "s", &schema, true).err();
        assert!(refused.is_some_and(|error| error.to_string().starts_with("E_SINK_SCHEMA")));
    }
}
