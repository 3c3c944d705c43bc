//! The laws of reference tables from CSV: typed as declared, and all or nothing.

use super::*;
use crate::batch::VarBytes;
use crate::description::{DataType, Field};
use crate::tables::TableValues;
use crate::tables::file::load;

const CITIES: &str = "City|State short|State full|County|City alias\n\
                      Holtsville|NY|New York|SUFFOLK|Internal Revenue Service\n\
                      \"Adjuntas\"|PR|Puerto Rico|ADJUNTAS|\"URB \"\"San|Joaquin\"\"\"\n";

fn need(columns: &[(&str, DataType, bool)]) -> TableNeed {
    let field = |&(name, data_type, nullable): &(&str, DataType, bool)| Field {
        name: name.to_owned(),
        data_type,
        nullable,
        doc: String::new(),
    };
    TableNeed {
        name: "us_cities".to_owned(),
        columns: columns.iter().map(field).collect(),
        required: true,
        doc: String::new(),
    }
}

fn text(name: &str) -> TableNeed {
    need(&[(name, DataType::Utf8, false)])
}

fn mapped(pairs: &[(&str, &str)]) -> TableOptions {
    let columns = pairs.iter().map(|&(wanted, header)| (wanted.to_owned(), header.to_owned())).collect();
    TableOptions { columns, ..TableOptions::default() }
}

fn texts(cells: &[&str]) -> TableValues {
    TableValues::VarBytes(cells.iter().map(|c| Some(c.as_bytes())).collect::<VarBytes>())
}

fn check(need: &TableNeed, bytes: &str, options: &TableOptions, expected: &[&[&str]]) {
    let table = load(need, bytes.as_bytes(), options).unwrap_or_else(|e| panic!("{e}"));
    let values: Vec<TableValues> = table.columns.into_iter().map(|c| c.values).collect();
    assert_eq!(values, expected.iter().map(|cells| texts(cells)).collect::<Vec<_>>());
    assert_eq!(table.rows as usize, expected[0].len());
}

fn check_error(need: &TableNeed, bytes: &[u8], options: &TableOptions, expected: &str) {
    let error = load(need, bytes, options).expect_err("the table is refused");
    assert_eq!(error.to_string(), format!("table us_cities: {expected}"));
}

#[test]
fn columns_are_found_by_name_and_come_in_the_order_they_are_wanted() {
    let wanted = need(&[("city_alias", DataType::Utf8, false), ("city", DataType::Utf8, false)]);
    let expected: [&[&str]; 2] =
        [&["Internal Revenue Service", "URB \"San|Joaquin\""], &["Holtsville", "Adjuntas"]];
    check(&wanted, CITIES, &TableOptions::default(), &expected);
    check(&text("STATE-SHORT"), CITIES, &TableOptions::default(), &[&["NY", "PR"]]);
}

#[test]
fn the_header_never_becomes_a_row() {
    check(&text("city"), "\u{feff}City\r\n\r\nA\rB", &TableOptions::default(), &[&["A", "B"]]);
    check(&text("city"), "City", &TableOptions::default(), &[&[]]);
    check_error(
        &text("city"),
        b"\n\r\n",
        &TableOptions::default(),
        "the file is empty; its first line must name the columns",
    );
}

#[test]
fn a_delimiter_that_is_given_counts() {
    let options = TableOptions { delimiter: Some(b';'), ..TableOptions::default() };
    check(&text("city"), "city;a,b,c\nX;1\n", &options, &[&["X"]]);
}

#[test]
fn a_column_can_be_named_by_its_header() {
    check(&text("city"), CITIES, &mapped(&[("city", "County")]), &[&["SUFFOLK", "ADJUNTAS"]]);
    check(&text("city"), "city,City\na,b\n", &mapped(&[("city", "City")]), &[&["b"]]);
    check_error(
        &text("city"),
        CITIES.as_bytes(),
        &mapped(&[("city", "Conty")]),
        "no column for city: the file has no column \"Conty\" (is \"County\" meant?), only City, State short, State full, County, City alias; name the right one under columns",
    );
    check_error(
        &text("city"),
        CITIES.as_bytes(),
        &mapped(&[("town", "City")]),
        "columns names town, which the transform does not want",
    );
    check_error(
        &text("city"),
        CITIES.as_bytes(),
        &mapped(&[("cty", "City")]),
        "columns names cty, which the transform does not want (is \"city\" meant?)",
    );
}

#[test]
fn two_headers_for_one_column_are_refused() {
    check_error(
        &text("city_alias"),
        b"City alias,CITY_ALIAS\n",
        &TableOptions::default(),
        "two columns for city_alias: \"City alias\" and \"CITY_ALIAS\"; name one of them under columns, or rename one",
    );
}

#[test]
fn a_bad_row_refuses_the_whole_table_and_names_its_line() {
    let check =
        |bytes: &[u8], expected: &str| check_error(&text("a"), bytes, &TableOptions::default(), expected);
    check(b"a,b\n\n\"x\ny\",1\nz\n", "the row at line 5 has 1 fields, the header has 2");
    check(
        b"a,b\r\nx,\xe9\r\n",
        "line 2 is not UTF-8; save the file as UTF-8 (it may be in Latin-1, Windows-1252 or UTF-16)",
    );
    let quotes = "a quote in the row at line 2 is not closed where its field ends; a quote inside quotes is written twice";
    check(b"a,b\n\"x,1\ny,2\n", quotes);
    check(b"a,b\n\"x\"y,1\n", quotes);
}

#[test]
fn a_cell_of_another_type_is_named_with_row_and_column() {
    let wanted = need(&[("id", DataType::Int32, false), ("note", DataType::Int64, true)]);
    let table = load(&wanted, b"id,note\n1,\n2,7\n", &TableOptions::default()).unwrap();
    assert_eq!(table.columns[0].values, TableValues::Int32s(vec![1, 2]));
    assert_eq!(
        (&table.columns[1].values, &table.columns[1].validity[..]),
        (&TableValues::Int64s(vec![0, 7]), &[0b10][..])
    );
    check_error(
        &wanted,
        b"id,note\n1,\n,7\n",
        &TableOptions::default(),
        "column id of the row at line 3 is \"\" and has to be a whole number of 32 bits",
    );
}

#[test]
fn the_digest_is_that_of_the_file() {
    let table = load(&text("city"), CITIES.as_bytes(), &TableOptions::default()).unwrap();
    assert_eq!(*table.digest, digest::of(CITIES.as_bytes()));
}
