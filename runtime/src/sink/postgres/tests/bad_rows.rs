//! Rows that a database refuses, or seems to have reason to; numbered as in the list of bad records.

use std::collections::HashMap;

use arrow::array::TimestampMicrosecondArray;

use super::*;
use crate::description::JSON_MARK;

/// Of 5,000 rows, those that the table cannot take; by COPY and by arrays, and wherever commits begin and end.
#[test]
fn one_poison_row_of_each_kind_among_5000_is_refused_alone() {
    for (base, most) in [(Base::new(), 5000), (Base::upsert(&["id"]), 5000), (Base::new(), 777)] {
        let mut sink = base.claimed(1);
        base.ask("CREATE TABLE parent (id bigint PRIMARY KEY); INSERT INTO parent VALUES (1)");
        base.ask("CREATE FUNCTION no_bob() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.name = 'bob' THEN RAISE 'no bob'; END IF; IF NEW.name = 'eve' THEN RETURN NULL; END IF; RETURN NEW; END$$");
        base.ask(&format!(
            "CREATE TABLE a (id bigint PRIMARY KEY, code bigint UNIQUE DEFERRABLE INITIALLY DEFERRED,
             parent bigint REFERENCES parent DEFERRABLE INITIALLY DEFERRED, name varchar(10) NOT NULL,
             n int CHECK (n <> 13), {OURS});
             CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION no_bob()"
        ));
        let n = 5000_usize;
        let ids: Vec<i64> = (0..n as i64).collect();
        let codes: Vec<i64> = (0..n as i64).map(|i| if i == 4000 { 3 } else { i }).collect();
        let parents: Vec<i64> = (0..n).map(|i| if i == 2500 { 9 } else { 1 }).collect();
        let names = (0..n).map(|i| match i {
            17 => Some("b\0b".to_owned()),
            18 => Some("Bartholomew".to_owned()),
            1300 => None,
            1301 => Some("bob".to_owned()),
            1302 => Some("eve".to_owned()),
            _ => Some(format!("n{i}")),
        });
        let ns: Vec<i64> = (0..n)
            .map(|i| match i {
                3000 => 1 << 31,
                4999 => 13,
                _ => 1,
            })
            .collect();
        let part = rows(vec![
            ("id", numbers(&ids)),
            ("code", numbers(&codes)),
            ("parent", numbers(&parents)),
            ("name", Arc::new(StringArray::from_iter(names)) as _),
            ("n", numbers(&ns)),
        ]);
        deliver_cut(&mut sink, &part, most);
        let rejects = base.ask("SELECT weir_offset, reason, sqlstate FROM weir_reject ORDER BY weir_offset");
        assert_eq!(
            rejects,
            [
                "17|0x00 is not allowed in text: column `name`|null",
                "18|too long for varchar(10): column `name`|null",
                "1300|null value in column \"name\" of relation \"a\" violates not-null constraint|23502",
                "1301|no bob|P0001",
                "1302|a trigger ignores the row|null",
                "2500|insert or update on table \"a\" violates foreign key constraint \"a_parent_fkey\"|23503",
                "3000|out of range for integer: column `n`|null",
                "4000|duplicate key value violates unique constraint \"a_code_key\"|23505",
                "4999|new row for relation \"a\" violates check constraint \"a_n_check\"|23514",
            ]
        );
        assert_eq!(base.ask("SELECT count(*), count(DISTINCT weir_offset) FROM a"), ["4991|4991"]);
        assert_eq!(sink.tally().rejected.get(), 9);
        let reject = r#"SELECT pipeline, sink, weir_topic, weir_partition, weir_index, weir_plan, target, route, "row" FROM weir_reject WHERE weir_offset = 17"#;
        let row = r#"{"id":17,"code":17,"parent":1,"name":"b\u0000b","n":1}"#;
        assert_eq!(base.ask(reject), [format!("p|base|customers|0|0|7|a|to-a|{row}")]);
    }
}

/// Commits the rows of a part `most` at a time.
fn deliver_cut(sink: &mut PostgresSink, part: &Part, most: usize) {
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

#[test]
fn row_16_ten_mebibytes_into_ten_characters_refuse_that_row() {
    let base = Base::new();
    let mut sink = base.claimed(1);
    base.ask(&format!("CREATE TABLE a (text varchar(10), {OURS})"));
    let long = "x".repeat(10 << 20);
    deliver(&mut sink, 3, vec![rows(vec![("text", texts(&["a", &long, "b"]))])]).unwrap();
    assert_eq!(base.ask("SELECT text FROM a ORDER BY 1"), ["a", "b"]);
    assert_eq!(base.rejects(), ["1|too long for varchar(10): column `text`"]);
    let length = base.ask(r#"SELECT length("row"::json ->> 'text') FROM weir_reject"#);
    assert_eq!(length, [(10 << 20).to_string()]);
}

#[test]
fn row_18_a_time_beyond_the_calendar_refuses_that_row() {
    let base = Base::new();
    let times = TimestampMicrosecondArray::from(vec![-1, i64::MIN, 0]).with_timezone("UTC");
    deliver(&mut base.claimed(1), 3, vec![rows(vec![("t", Arc::new(times) as _)])]).unwrap();
    assert_eq!(base.ask("SELECT weir_offset FROM a ORDER BY 1"), ["0", "2"]);
    assert_eq!(base.rejects(), ["1|out of range for timestamp with time zone: column `t`"]);
}

/// Valid JSON of which jsonb makes nothing: a lone surrogate, a number without end, too deep.
#[test]
fn json_that_jsonb_cannot_hold_refuses_that_row() {
    for base in [Base::new(), Base::upsert(&["k"])] {
        let mark = HashMap::from([(JSON_MARK.to_owned(), "1".to_owned())]);
        let doc = Field::new("doc", DataType::Utf8, true).with_metadata(mark);
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let docs = ["{}", r#""\u0000""#, r#""\ud800""#, "1e400000", &deep, "[1]"];
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, true), doc]);
        let part = of(schema, vec![numbers(&[0, 1, 2, 3, 4, 5]), texts(&docs)]);
        deliver(&mut base.claimed(1), 6, vec![part]).unwrap();
        assert_eq!(base.ask("SELECT k, doc FROM a ORDER BY k"), ["0|{}", "5|[1]"]);
        let states = base.ask("SELECT weir_offset, sqlstate FROM weir_reject ORDER BY 1");
        assert_eq!(states, ["1|null", "2|22P02", "3|22003", "4|54001"]);
    }
}

#[test]
fn a_trigger_that_cannot_run_stops_the_partition_and_rejects_nothing() {
    for event in ["INSERT", "DELETE"] {
        let base = Base::upsert(&["text"]);
        let mut sink = base.claimed(1);
        deliver(&mut sink, 1, vec![part("a", vec![0], 0)]).unwrap();
        base.ask(&format!("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO gone VALUES (1); RETURN NULL; END'; CREATE TRIGGER t AFTER {event} ON a EXECUTE FUNCTION f()"));
        let mut next = batch(1, 2);
        next.parts[0] = crate::sink::conformance::deleting(next.parts[0].clone(), &[event == "DELETE"]);
        sink.write(next).unwrap();
        let text = permanent(sink.commit(&at(), &commit(1, 2)).unwrap_err());
        assert!(text.starts_with("E_SINK_SCHEMA") && text.contains("\"gone\" does not exist"), "{text}");
        assert_eq!(base.rejects(), [""; 0]);
    }
}

/// What is there already is no row that a trigger ignores.
#[test]
fn a_row_that_is_nothing_but_its_key_may_come_again() {
    let base = Base::upsert(&["k"]);
    let mut sink = PostgresSink::open(PostgresConfig { provenance: false, ..base.config() }).unwrap();
    sink.claim(&claim(1)).unwrap();
    deliver(&mut sink, 3, vec![rows(vec![("k", numbers(&[1, 2, 1]))])]).unwrap();
    assert_eq!((base.ask("SELECT k FROM a ORDER BY k").concat(), base.rejects().len()), ("12".to_owned(), 0));
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
    for mode in [Mode::Append, Mode::Upsert { key: vec!["x\" TEXT); DROP TABLE weir_reject; --".to_owned()] }]
    {
        let mut base = Base::new();
        let table = "a\"); DROP TABLE weir_position; --".to_owned();
        base.targets.insert("a".into(), TableConfig { table, mode });
        let column = "x\" TEXT); DROP TABLE weir_reject; --";
        let mut sink = base.claimed(1);
        deliver(&mut sink, NAUGHTY.len() as i64, vec![rows(vec![(column, texts(&NAUGHTY))])]).unwrap();
        let stored = r#"SELECT "x"" TEXT); DROP TABLE weir_reject; --" FROM "a""); DROP TABLE weir_position; --" ORDER BY weir_offset"#;
        assert_eq!(base.ask(stored), NAUGHTY);
        assert_eq!(base.rejects(), [""; 0]);
    }
}
