//! Which directory below its target's a row belongs in: by the time of its record, or by a column. It never looks at a
//! clock, and two values are never taken for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use jiff::{ToSpan as _, civil};

use super::names;
use crate::description::JSON_MARK;
use crate::sink::{Part, Problem};

/// Where rows go that have no time or no value, as Hive and Spark know it. A text that reads so is written otherwise.
pub const NOTHING: &str = "__HIVE_DEFAULT_PARTITION__";

/// One level of directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Directory {
    /// `dt=2026-11-23`: by the day, month or hour, in UTC, of the record, or of a column with a date or a time.
    Date(Span, Option<Arc<str>>),
    /// `country=USA`: by the value of a column.
    Column(Arc<str>),
}

/// The rows of how long a time share a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// `2026-11`
    Month,
    /// `2026-11-23`
    Day,
    /// `2026-11-23-05`
    Hour,
}

impl Directory {
    /// The column that it needs, if it needs one.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Date(_, column) => column.as_deref(),
            Self::Column(column) => Some(column),
        }
    }

    /// Whether a column like `field` will do.
    pub fn takes(&self, field: &Field) -> bool {
        use DataType::{Boolean, Date32, Decimal128, Int32, Int64, Timestamp, Utf8};
        match (self, field.data_type()) {
            (Self::Date(..), Date32 | Timestamp(TimeUnit::Microsecond, _)) => true,
            (Self::Column(_), Boolean | Int32 | Int64 | Date32 | Decimal128(..)) => true,
            (Self::Column(_), Utf8) => !field.metadata().contains_key(JSON_MARK),
            _ => false,
        }
    }
}

/// The rows of a part by where they go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sorted {
    /// By the path below the target, ascending; empty without directories.
    pub(super) places: BTreeMap<String, Vec<u32>>,
    /// Rows that have no place, by the reason.
    pub(super) refused: BTreeMap<String, Vec<u32>>,
}

/// Sorts the rows of `part`. A column that its plan did not have counts as one without values.
///
/// # Errors
/// If a column is of a type that names no directory.
pub(super) fn sort(directories: &[Directory], part: &Part) -> Result<Sorted, Problem> {
    let levels: Vec<Level<'_>> =
        directories.iter().map(|directory| level(directory, part)).collect::<Result<_, _>>()?;
    let mut sorted = Sorted::default();
    for row in 0..part.rows.num_rows() {
        let parts: Result<Vec<String>, String> = levels.iter().map(|level| level.name(row)).collect();
        let rows = match parts {
            Ok(parts) => sorted.places.entry(parts.join("/")),
            Err(reason) => sorted.refused.entry(reason),
        };
        rows.or_default().push(row as u32);
    }
    Ok(sorted)
}

/// A directory with what its names are made from.
enum Level<'a> {
    RecordTime(Span, &'a [i64]),
    ColumnTime(Span, &'a dyn Array),
    Value(&'a str, &'a dyn Array),
    Nothing(&'a str),
}

const DATE: &str = "dt";

fn level<'a>(directory: &'a Directory, part: &'a Part) -> Result<Level<'a>, Problem> {
    let name = match directory {
        Directory::Date(span, None) => return Ok(Level::RecordTime(*span, &part.timestamps)),
        Directory::Date(_, Some(_)) => DATE,
        Directory::Column(column) => column,
    };
    let column = directory.column().expect("the others were told apart");
    let schema = part.rows.schema_ref();
    let Ok(i) = schema.index_of(column) else { return Ok(Level::Nothing(name)) };
    if !directory.takes(schema.field(i)) {
        let (target, found) = (&part.target, schema.field(i).data_type());
        let text =
            format!("column `{column}` of type {found} in rows for `{target}` cannot name a directory");
        return Err(Problem::new(text));
    }
    let array = part.rows.column(i).as_ref();
    Ok(match directory {
        Directory::Date(span, _) => Level::ColumnTime(*span, array),
        Directory::Column(_) => Level::Value(name, array),
    })
}

impl Level<'_> {
    /// `dt=2026-11-23`, or why there is none.
    fn name(&self, row: usize) -> Result<String, String> {
        match self {
            // Kafka's sign for no time, and every source's.
            Self::RecordTime(_, times) if times[row] == -1 => Ok(directory(DATE, None)),
            Self::RecordTime(span, times) => {
                let time = Time::new(times[row], MILLIS_PER_HOUR);
                date(*span, time, || format!("the timestamp {} ms", times[row]))
            }
            Self::ColumnTime(_, array) if array.is_null(row) => Ok(directory(DATE, None)),
            Self::ColumnTime(span, array) => {
                let (time, shown) = moment(*array, row);
                date(*span, time, || shown)
            }
            Self::Value(name, array) if array.is_null(row) => Ok(directory(name, None)),
            Self::Value(name, array) => Ok(directory(name, Some(&value(*array, row)?))),
            Self::Nothing(name) => Ok(directory(name, None)),
        }
    }
}

fn directory(name: &str, value: Option<&str>) -> String {
    let value = value.map_or_else(|| NOTHING.to_owned(), names::value);
    format!("{}={value}", names::value(name))
}

const MILLIS_PER_HOUR: i64 = 3_600_000;

/// An hour in UTC. Counted here, since the moments of the library end two hours before the year 9999 does.
#[derive(Clone, Copy)]
struct Time {
    days: i64,
    hour: i64,
}

impl Time {
    fn new(count: i64, per_hour: i64) -> Self {
        let hours = count.div_euclid(per_hour);
        Self { days: hours.div_euclid(24), hour: hours.rem_euclid(24) }
    }

    /// The date, if its year has four digits: anything else is no date that anybody means, and no reader's.
    fn date(self) -> Option<civil::Date> {
        const MORE_THAN_ALL: i64 = 3_000_000;
        let days = Some(self.days).filter(|days| days.abs() < MORE_THAN_ALL)?;
        let date = civil::date(1970, 1, 1).checked_add(days.days()).ok()?;
        (1..=9999).contains(&date.year()).then_some(date)
    }
}

fn moment(array: &dyn Array, row: usize) -> (Time, String) {
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(row);
            (Time { days: days.into(), hour: 0 }, format!("the date of day {days}"))
        }
        _ => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            (Time::new(micros, MILLIS_PER_HOUR * 1_000), format!("the time {micros} us"))
        }
    }
}

fn date(span: Span, time: Time, shown: impl FnOnce() -> String) -> Result<String, String> {
    Ok(directory(DATE, Some(&written(span, time, shown)?)))
}

fn written(span: Span, time: Time, shown: impl FnOnce() -> String) -> Result<String, String> {
    let date = time.date().ok_or_else(|| format!("{} is not in the years 1 to 9999", shown()))?;
    Ok(match span {
        Span::Month => format!("{:04}-{:02}", date.year(), date.month()),
        Span::Day => date.to_string(),
        Span::Hour => format!("{date}-{:02}", time.hour),
    })
}

fn value(array: &dyn Array, row: usize) -> Result<String, String> {
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Date32 => {
            let (time, shown) = moment(array, row);
            written(Span::Day, time, || shown)?
        }
        _ => array.as_string::<i32>().value(row).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int32Array, RecordBatch, StringArray,
    };

    use super::*;

    fn part(column: ArrayRef, timestamps: Option<Vec<i64>>) -> Part {
        let n = column.len();
        Part {
            rows: RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap(),
            timestamps: timestamps.unwrap_or_else(|| vec![-1; n]).into(),
            index: vec![0; n].into(),
            ..crate::sink::conformance::part("t", (0..n as i64).collect(), 0)
        }
    }

    fn sorted(directory: Directory, part: &Part) -> Vec<(String, Vec<u32>)> {
        let sorted = sort(&[directory], part).unwrap();
        sorted.places.into_iter().chain(sorted.refused).collect()
    }

    fn of_times(span: Span, times: &[i64]) -> Vec<(String, Vec<u32>)> {
        let column = Arc::new(Int32Array::from(vec![0; times.len()]));
        sorted(Directory::Date(span, None), &part(column, Some(times.to_vec())))
    }

    fn of_values(column: impl Array + 'static) -> Vec<String> {
        let part = part(Arc::new(column), None);
        sorted(Directory::Column("x".into()), &part).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn a_time_is_its_own_date_or_none_and_never_another() {
        // Two moments of one day, the first of all, one before it, one of long ago, the last with four digits.
        let times = [1_795_413_600_000, 1_795_478_399_999, 0, -2, -11_644_473_600_000, 253_402_300_799_999];
        let expected = [
            ("dt=1601-01-01".to_owned(), vec![4]),
            ("dt=1969-12-31".to_owned(), vec![3]),
            ("dt=1970-01-01".to_owned(), vec![2]),
            ("dt=2026-11-23".to_owned(), vec![0, 1]),
            ("dt=9999-12-31".to_owned(), vec![5]),
        ];
        assert_eq!(of_times(Span::Day, &times), expected);
        assert_eq!(of_times(Span::Month, &times[..1]), [("dt=2026-11".to_owned(), vec![0])]);
        assert_eq!(of_times(Span::Hour, &times[..1]), [("dt=2026-11-23-06".to_owned(), vec![0])]);
        assert_eq!(of_times(Span::Day, &[-1]), [(format!("dt={NOTHING}"), vec![0])]);
    }

    #[test]
    fn a_time_outside_of_the_calendar_is_refused_and_not_wrapped_around() {
        for time in [1_000_000_000_000_000_000, i64::MAX, i64::MIN, 253_402_300_800_000, -62_135_596_800_001]
        {
            let text = format!("the timestamp {time} ms is not in the years 1 to 9999");
            assert_eq!(of_times(Span::Day, &[time]), [(text, vec![0])]);
        }
    }

    #[test]
    fn distinct_values_have_distinct_directories_that_stay_in_their_place() {
        let long = "é".repeat(300);
        let longer = format!("{long}!");
        let hostile = [
            "USA",
            "usa",
            "",
            ".",
            "..",
            "/",
            "a/b",
            "a:b",
            "=",
            "a=b",
            "%",
            "%2F",
            "%25",
            "~",
            NOTHING,
            "🦀",
            "_x",
            "x_",
            " ",
            "\0",
            "\n",
            "%5F_HIVE_DEFAULT_PARTITION__",
            &long,
            &longer,
        ];
        let values: Vec<_> = hostile.into_iter().map(Some).chain([None]).collect();
        let places = of_values(StringArray::from(values.clone()));
        assert_eq!(places.len(), values.len(), "{places:?}");
        for place in &places {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.%~".contains(&b);
            let value = place.strip_prefix("x=").expect("it begins with the column");
            assert!(!value.is_empty() && value.bytes().all(plain) && place.len() <= 255, "{place}");
        }
        for known in
            ["x=USA", "x=%2E.", "x=a%2Fb", "x=a%3Ab", "x=%3D", "x=%F0%9F%A6%80", &format!("x={NOTHING}")]
        {
            assert!(places.iter().any(|place| place == known), "{known}: {places:?}");
        }
    }

    #[test]
    fn a_column_names_directories_by_its_type() {
        assert_eq!(of_values(Int32Array::from(vec![-7])), ["x=-7"]);
        assert_eq!(of_values(BooleanArray::from(vec![true])), ["x=true"]);
        let cents = Decimal128Array::from(vec![-50]).with_precision_and_scale(4, 2).unwrap();
        assert_eq!(of_values(cents), ["x=-0.50"]);
        assert_eq!(of_values(Date32Array::from(vec![-1])), ["x=1969-12-31"]);
        assert_eq!(
            of_values(Date32Array::from(vec![i32::MAX])),
            ["the date of day 2147483647 is not in the years 1 to 9999"]
        );
        let days = part(Arc::new(Date32Array::from(vec![Some(0), None])), None);
        let by_day = sorted(Directory::Date(Span::Day, Some("x".into())), &days);
        assert_eq!(by_day, [("dt=1970-01-01".to_owned(), vec![0]), (format!("dt={NOTHING}"), vec![1])]);
        let missing = sorted(Directory::Column("y".into()), &days);
        assert_eq!(missing, [(format!("y={NOTHING}"), vec![0, 1])]);
        let double = part(Arc::new(arrow::array::Float64Array::from(vec![0.5])), None);
        let text = "column `x` of type Float64 in rows for `t` cannot name a directory";
        assert_eq!(sort(&[Directory::Column("x".into())], &double).unwrap_err().text, text);
    }
}
