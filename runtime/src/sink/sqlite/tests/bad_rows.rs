//! Rows that a database refuses, or seems to have reason to; numbered as in the list of bad records.

use super::*;

#[test]
fn row_6_a_nul_byte_in_text_refuses_that_row_with_the_column() {
    let file = File::new();
    let part = rows(vec![("text", texts(&["a", "b\0c", "d"]))]);
    deliver(&mut file.claimed(1), 3, vec![part]).unwrap();
    assert_eq!(file.rows("SELECT text FROM a"), ["a", "d"]);
    assert_eq!(file.rejects(), ["1|0x00 is not allowed in text: column `text`"]);
    assert_eq!(file.rows(r#"SELECT "row" ->> 'text' = 'b' || char(0) || 'c' FROM weir_reject"#), ["1"]);
}

/// SQLite would store null.
#[test]
fn row_11_not_a_number_refuses_that_row_and_infinity_is_stored() {
    let file = File::new();
    let doubles = Arc::new(Float64Array::from(vec![1.5, f64::NAN, f64::INFINITY]));
    deliver(&mut file.claimed(1), 3, vec![rows(vec![("x", doubles as _)])]).unwrap();
    assert_eq!(file.rows("SELECT x FROM a"), ["1.5", "Inf"]);
    assert_eq!(file.rejects(), ["1|NaN has no REAL: column `x`"]);
}

#[test]
fn row_16_ten_mebibytes_into_ten_characters_refuse_that_row() {
    let file = File::new();
    let mut sink = file.claimed(1);
    file.run("CREATE TABLE a (text TEXT CHECK (length(text) <= 10), weir_topic, weir_partition, weir_offset, weir_index, weir_plan)");
    let long = "x".repeat(10 << 20);
    deliver(&mut sink, 3, vec![rows(vec![("text", texts(&["a", &long, "b"]))])]).unwrap();
    assert_eq!(file.rows("SELECT text FROM a"), ["a", "b"]);
    assert_eq!(file.rejects(), ["1|CHECK constraint failed: length(text) <= 10"]);
    assert_eq!(file.rows(r#"SELECT length("row" ->> 'text') FROM weir_reject"#), [(10 << 20).to_string()]);
}

#[test]
fn row_17_a_number_out_of_range_refuses_that_row() {
    let file = File::new();
    let mut sink = file.claimed(1);
    file.run("CREATE TABLE a (n INTEGER CHECK (n BETWEEN -2147483648 AND 2147483647), weir_topic, weir_partition, weir_offset, weir_index, weir_plan)");
    deliver(&mut sink, 3, vec![rows(vec![("n", numbers(&[1, 1 << 31, 2]))])]).unwrap();
    assert_eq!(file.rows("SELECT n FROM a"), ["1", "2"]);
    assert_eq!(file.rejects().len(), 1);
}

/// Commits the rows of a part `most` at a time.
fn deliver_cut(sink: &mut SqliteSink, part: &Part, most: usize) {
    let n = part.rows.num_rows();
    for start in (0..n).step_by(most) {
        let len = most.min(n - start);
        let (from, to) = (start as i64, (start + len) as i64);
        let rows = part.rows.slice(start, len);
        let part = Part { rows, offsets: (from..to).collect(), index: vec![0; len].into(), ..part.clone() };
        let part = Part { timestamps: vec![-1; len].into(), ..part };
        sink.write(RoutedBatch { parts: vec![part], ..batch(from, to) }).unwrap();
        assert_eq!(sink.commit(&at(), &commit(from, to)).unwrap(), Committed::Done);
    }
}

/// Unique, foreign key, not null, a trigger: each refuses its row and no other.
#[test]
fn row_19_a_broken_constraint_refuses_that_row_wherever_commits_begin_and_end() {
    [1000, 37].into_iter().for_each(check_constraints);
}

fn check_constraints(most: usize) {
    let file = File::new();
    let mut sink = file.claimed(1);
    file.run("CREATE TABLE parent (id INTEGER PRIMARY KEY)");
    file.run("INSERT INTO parent VALUES (1)");
    file.run(
        "CREATE TABLE a (id INTEGER UNIQUE ON CONFLICT REPLACE, parent INTEGER REFERENCES parent, name TEXT NOT NULL ON CONFLICT IGNORE,
         weir_topic, weir_partition, weir_offset, weir_index, weir_plan)",
    );
    file.run("CREATE TRIGGER no_bob BEFORE INSERT ON a WHEN new.name = 'bob' BEGIN SELECT RAISE(ABORT, 'no bob'); END");
    let n = 1000_usize;
    let ids: Vec<i64> = (0..n as i64).map(|i| if i == 700 { 3 } else { i }).collect();
    let parents: Vec<i64> = (0..n).map(|i| if i == 500 { 9 } else { 1 }).collect();
    let names = (0..n).map(|i| match i {
        300 => None,
        301 => Some("bob".to_owned()),
        _ => Some(format!("n{i}")),
    });
    let part = rows(vec![
        ("id", numbers(&ids)),
        ("parent", numbers(&parents)),
        ("name", Arc::new(StringArray::from_iter(names)) as _),
    ]);
    deliver_cut(&mut sink, &part, most);
    assert_eq!(
        file.rejects(),
        [
            "300|NOT NULL constraint failed: a.name",
            "301|no bob",
            "500|FOREIGN KEY constraint failed",
            "700|UNIQUE constraint failed: a.id",
        ]
    );
    assert_eq!(file.rows("SELECT count(*), count(DISTINCT weir_offset) FROM a"), ["996|996"]);
    assert_eq!(sink.tally().rejected.get(), 4);
    let reject = r#"SELECT pipeline, sink, weir_topic, weir_partition, weir_index, weir_plan, target, route, "row" FROM weir_reject WHERE weir_offset = 500"#;
    assert_eq!(file.rows(reject), [r#"p|base|customers|0|0|7|a|to-a|{"id":500,"parent":9,"name":"n500"}"#]);
}

/// `FAIL` keeps what the statement did before, `IGNORE` leaves the row out without a word.
#[test]
fn row_19_whatever_way_a_trigger_refuses_a_row_it_is_that_row_once_and_no_other() {
    for (when, raise, reason) in [
        ("BEFORE", "FAIL, 'no'", "no"),
        ("AFTER", "FAIL, 'no'", "no"),
        ("AFTER", "ABORT, 'no'", "no"),
        ("BEFORE", "IGNORE", "a trigger ignores the row"),
    ] {
        for (key, event) in [(&[][..], "INSERT"), (&["k"], "INSERT"), (&["k"], "UPDATE")] {
            for most in [10, 1] {
                let file = if key.is_empty() { File::new() } else { File::upsert(key) };
                let mut sink = file.claimed(1);
                file.run("CREATE TABLE a (k INTEGER PRIMARY KEY, n INTEGER, weir_topic, weir_partition, weir_offset, weir_index, weir_plan)");
                if event == "UPDATE" {
                    file.run("WITH RECURSIVE r(k) AS (VALUES (0) UNION ALL SELECT k + 1 FROM r WHERE k < 9) INSERT INTO a (k, n) SELECT k, -1 FROM r");
                }
                file.run(&format!("CREATE TRIGGER t {when} {event} ON a WHEN new.n IN (3, 4, 8) BEGIN SELECT RAISE({raise}); END"));
                let all: Vec<i64> = (0..10).collect();
                deliver_cut(&mut sink, &rows(vec![("k", numbers(&all)), ("n", numbers(&all))]), most);
                let case = format!("{when} {event} {raise} {most}");
                let stored = file.rows("SELECT n FROM a WHERE n >= 0 ORDER BY n").concat();
                assert_eq!(stored, "0125679", "{case}");
                let refused = [3, 4, 8].map(|n| format!("{n}|{reason}"));
                assert_eq!(file.rejects(), refused, "{case}");
            }
        }
    }
}

/// SQLite says of it what it says of a statement that makes no sense.
#[test]
fn row_19_a_value_of_which_an_index_makes_no_sense_refuses_that_row() {
    for key in [&[][..], &["k"]] {
        let file = if key.is_empty() { File::new() } else { File::upsert(key) };
        let mut sink = file.claimed(1);
        file.run("CREATE TABLE a (k INTEGER PRIMARY KEY, doc TEXT, weir_topic, weir_partition, weir_offset, weir_index, weir_plan)");
        file.run("CREATE INDEX ids ON a (doc ->> '$.id')");
        let docs = [r#"{"id":1}"#, "{", r#"{"id":3}"#, "", r#"{"id":5}"#];
        let part = rows(vec![("k", numbers(&[0, 1, 2, 3, 4])), ("doc", texts(&docs))]);
        deliver(&mut sink, 5, vec![part]).unwrap();
        assert_eq!(file.rows("SELECT k, doc ->> '$.id' FROM a ORDER BY k"), ["0|1", "2|3", "4|5"]);
        assert_eq!(file.rejects(), ["1|malformed JSON", "3|malformed JSON"]);
    }
}

/// It would refuse each row.
#[test]
fn a_trigger_that_cannot_run_stops_the_partition_and_rejects_nothing() {
    for event in ["INSERT", "DELETE"] {
        let file = File::upsert(&["text"]);
        let mut sink = file.claimed(1);
        deliver(&mut sink, 1, vec![part("a", vec![0], 0)]).unwrap();
        file.run(&format!("CREATE TRIGGER t AFTER {event} ON a BEGIN INSERT INTO gone VALUES (1); END"));
        sink.write(batch(1, 2)).unwrap();
        let text = permanent(sink.commit(&at(), &commit(1, 2)).unwrap_err());
        assert!(text.starts_with("E_SINK_SCHEMA") && text.contains("no such table: main.gone"), "{text}");
        assert_eq!(file.rejects(), [""; 0]);
    }
}

/// What is there already is no row that a trigger ignores.
#[test]
fn a_row_that_is_nothing_but_its_key_may_come_again() {
    let file = File::upsert(&["k"]);
    let mut sink = SqliteSink::open(SqliteConfig { provenance: false, ..file.config() }).unwrap();
    sink.claim(&claim(1)).unwrap();
    deliver(&mut sink, 3, vec![rows(vec![("k", numbers(&[1, 2, 1]))])]).unwrap();
    assert_eq!((file.rows("SELECT k FROM a"), file.rejects().len()), (vec!["1".into(), "2".into()], 0));
}

/// Values are parameters, names are quoted.
#[test]
fn row_20_whatever_looks_like_sql_is_text() {
    const NAUGHTY: [&str; 8] = [
        "'); DROP TABLE a;--",
        "\"; DELETE FROM weir_position; --",
        "Robert'); DROP TABLE Students;--",
        "1;DROP TABLE users",
        "' OR 1=1 -- 1",
        "%00 ?1 :x @y $z",
        "\u{202e}\u{feff}田中さんにあげて下さい 👩‍👩‍👧‍👦 Ṱ̺̺̕o͞",
        "",
    ];
    let mut file = File::new();
    let table = "a\"); DROP TABLE weir_position; --".to_owned();
    file.targets.insert("a".into(), TableConfig::append(table));
    let column = "x\" TEXT); DROP TABLE weir_reject; --";
    let mut sink = file.claimed(1);
    deliver(&mut sink, NAUGHTY.len() as i64, vec![rows(vec![(column, texts(&NAUGHTY))])]).unwrap();
    let stored =
        r#"SELECT "x"" TEXT); DROP TABLE weir_reject; --" FROM "a""); DROP TABLE weir_position; --""#;
    assert_eq!(file.rows(stored), NAUGHTY);
    assert_eq!(file.rejects(), [""; 0]);
}
