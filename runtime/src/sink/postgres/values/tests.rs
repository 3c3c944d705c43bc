//! Values in PostgreSQL's binary form, and what has none.

use arrow::array::ArrayRef;

use super::*;

fn written(values: &Values<'_>, to: Type) -> Vec<u8> {
    assert_eq!(values.refusal(0, to), None);
    let mut out = Vec::new();
    values.write(0, to, &mut out);
    let (length, bytes) = out.split_at(4);
    assert_eq!(length, (bytes.len() as i32).to_be_bytes());
    bytes.to_vec()
}

fn numeric(number: i128, scale: u8) -> Vec<i16> {
    let numbers = Decimal128Array::from(vec![number]).with_precision_and_scale(38, scale as i8).unwrap();
    let bytes = written(&Values::new(&numbers), Type::Numeric(None));
    bytes.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// How many groups, the place of the first, the sign, the digits behind the point, and the groups.
#[test]
fn a_decimal_is_groups_of_four_digits_counted_from_the_point() {
    assert_eq!(numeric(1250, 2), [2, 0, 0, 2, 12, 5000]);
    assert_eq!(numeric(-5, 2), [1, -1, 0x4000, 2, 500]);
    assert_eq!(numeric(0, 2), [0, 0, 0, 2]);
    assert_eq!(numeric(10_000, 0), [1, 1, 0, 0, 1]);
    assert_eq!(numeric(10_001, 4), [2, 0, 0, 4, 1, 1]);
    assert_eq!(numeric(1, 7), [1, -2, 0, 7, 10]);
    assert_eq!(numeric(123_456_789, 5), [3, 0, 0, 5, 1234, 5678, 9000]);
    let nines = [9999; 9];
    let most = [&[10, 9, 0, 0, 99][..], &nines].concat();
    assert_eq!(numeric(10_i128.pow(38) - 1, 0), most);
    assert_eq!(numeric(10_i128.pow(38) - 1, 38), [&[10, -1, 0, 38][..], &nines, &[9900]].concat());
}

#[test]
fn times_are_counted_from_the_year_2000() {
    let days = Date32Array::from(vec![0]);
    assert_eq!(written(&Values::new(&days), Type::Date), (-10_957_i32).to_be_bytes());
    let times = TimestampMicrosecondArray::from(vec![946_684_800_000_001]).with_timezone("UTC");
    assert_eq!(written(&Values::new(&times), Type::Timestamptz), 1_i64.to_be_bytes());
}

#[test]
fn whole_numbers_are_as_wide_as_their_column() {
    let numbers = Int64Array::from(vec![-2]);
    let values = Values::new(&numbers);
    assert_eq!(written(&values, Type::Int2), (-2_i16).to_be_bytes());
    assert_eq!(written(&values, Type::Int4), (-2_i32).to_be_bytes());
    assert_eq!(written(&values, Type::Int8), (-2_i64).to_be_bytes());
    assert_eq!(written(&values, Type::Numeric(None)), [0, 1, 0, 0, 0x40, 0, 0, 0, 0, 2]);
    assert_eq!(written(&Values::Same(7), Type::Int4), 7_i32.to_be_bytes());
}

#[test]
fn json_has_a_version_in_front_where_it_is_binary() {
    let texts = StringArray::from(vec!["{}"]);
    assert_eq!(written(&Values::new(&texts), Type::Jsonb), b"\x01{}");
    assert_eq!(written(&Values::new(&texts), Type::Json), b"{}");
}

#[test]
fn null_has_no_bytes_and_no_refusal() {
    let texts = StringArray::from(vec![None::<&str>]);
    let mut out = Vec::new();
    Values::new(&texts).write(0, Type::Text, &mut out);
    assert_eq!((out, Values::new(&texts).refusal(0, Type::Text)), (vec![255; 4], None));
}

fn refused(array: impl Array + 'static, to: Type) -> Option<String> {
    let array: ArrayRef = std::sync::Arc::new(array);
    Values::new(array.as_ref()).refusal(0, to)
}

#[test]
fn what_a_column_could_not_hold_is_refused_before_it_is_sent() {
    let text = |text: &str| StringArray::from(vec![text]);
    let number = |number| Int64Array::from(vec![number]);
    let decimal = |n| Decimal128Array::from(vec![n]).with_precision_and_scale(38, 2).unwrap();
    let said = |what: &str| Some(what.to_owned());
    assert_eq!(refused(text("a\0"), Type::Text), said("0x00 is not allowed in text"));
    assert_eq!(refused(text("äöüß"), Type::Varchar(Some(3))), said("too long for varchar(3)"));
    assert_eq!(refused(text("äöü"), Type::Varchar(Some(3))), None);
    assert_eq!(refused(text("abc "), Type::Varchar(Some(3))), said("too long for varchar(3)"));
    assert_eq!(refused(number(40_000), Type::Int2), said("out of range for smallint"));
    assert_eq!(refused(number(1 << 31), Type::Int4), said("out of range for integer"));
    assert_eq!(refused(number(i64::MIN), Type::Int8), None);
    assert_eq!(refused(number(-1000), Type::Numeric(Some((5, 2)))), said("out of range for numeric(5,2)"));
    assert_eq!(refused(number(999), Type::Numeric(Some((5, 2)))), None);
    assert_eq!(refused(decimal(100_000), Type::Numeric(Some((5, 2)))), said("out of range for numeric(5,2)"));
    assert_eq!(refused(decimal(-99_999), Type::Numeric(Some((5, 2)))), None);
    assert_eq!(refused(decimal(100_000), Type::Numeric(Some((8, 4)))), None);
    assert_eq!(
        refused(decimal(1_000_000), Type::Numeric(Some((8, 4)))),
        said("out of range for numeric(8,4)")
    );
    assert_eq!(refused(decimal(i128::MAX), Type::Numeric(Some((60, 2)))), None);
}

/// The ends of its calendar are values with a meaning of their own.
#[test]
fn a_time_that_postgresql_does_not_have_is_refused() {
    let (first_day, first) = (-2_451_545 + EPOCH_DAYS, -210_866_803_200_000_000);
    let day = |day| refused(Date32Array::from(vec![day]), Type::Date).is_none();
    let days = [first_day - 1, first_day, 2_145_031_948 + EPOCH_DAYS, 2_145_031_949 + EPOCH_DAYS];
    assert_eq!(days.map(day), [false, true, true, false]);
    assert_eq!([i32::MIN, i32::MAX].map(day), [false, false]);
    let time = |time| {
        refused(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC"), Type::Timestamptz).is_none()
    };
    assert_eq!([first - 1, first, i64::MIN, i64::MAX].map(time), [false, true, false, true]);
}

#[test]
fn only_an_escape_of_nul_is_one() {
    let nul = |json: &str| refused(StringArray::from(vec![json]), Type::Jsonb).is_some();
    assert!(nul(r#"{"a":"\u0000"}"#) && nul(r#""\\\u0000""#) && nul(r#""\\u0000\u0000""#));
    assert!(!nul(r#""\\u0000""#) && !nul(r#""\u0001u0000""#) && !nul("0"));
}

#[test]
fn a_column_fits_where_it_stores_values_as_they_are_or_refuses_them() {
    let decimal = Kind::Decimal { precision: 10, scale: 2 };
    let fits = [
        (Kind::Int64, Type::Int2),
        (Kind::Int32, Type::Numeric(Some((3, 1)))),
        (decimal, Type::Numeric(None)),
        (decimal, Type::Numeric(Some((5, 2)))),
        (Kind::Text, Type::Varchar(None)),
        (Kind::Json, Type::Text),
        (Kind::Double, Type::Float8),
    ];
    assert!(fits.iter().all(|(kind, to)| kind.fits(*to)));
    let rounds_or_cannot = [
        (decimal, Type::Numeric(Some((10, 1)))),
        (Kind::Int64, Type::Numeric(Some((10, -2)))),
        (Kind::Int64, Type::Float8),
        (Kind::Text, Type::Jsonb),
        (Kind::Date, Type::Timestamptz),
        (Kind::Boolean, Type::Int2),
    ];
    assert!(!rounds_or_cannot.iter().any(|(kind, to)| kind.fits(*to)));
}

#[test]
fn the_limits_of_a_type_are_in_its_modifier() {
    assert_eq!(Type::found(1700, -1), Some(Type::Numeric(None)));
    assert_eq!(Type::found(1700, (10 << 16 | 2) + 4), Some(Type::Numeric(Some((10, 2)))));
    assert_eq!(Type::found(1700, (3 << 16 | 0x7fe) + 4), Some(Type::Numeric(Some((3, -2)))));
    assert_eq!(Type::found(1043, 14), Some(Type::Varchar(Some(10))));
    assert_eq!(Type::found(600, -1), None);
    for oid in [16, 17, 20, 21, 23, 25, 114, 701, 1043, 1082, 1184, 1700, 3802] {
        assert_eq!(Type::found(oid, -1).map(|found| i64::from(found.oids().0)), Some(oid));
    }
}
