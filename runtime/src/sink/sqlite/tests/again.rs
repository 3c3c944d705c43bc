//! Rows of records that come again by the replay input: what they say of themselves, and whose place they take.

use super::*;

#[test]
fn a_row_of_a_record_that_comes_again_says_where_it_came_first_and_which_attempt_it_is() {
    for key in [&[][..], &["k"]] {
        let file = if key.is_empty() { File::new() } else { File::upsert(key) };
        let rows = |texts_: &[&str]| rows(vec![("k", texts(texts_))]);
        let parts = vec![rows(&["x"]), again(rows(&["y", "z"]), &["orders/3/1042/1", "weir.p.replay/0/1/0"])];
        deliver(&mut file.claimed(1), 2, parts).unwrap();
        let all =
            "SELECT k, weir_topic, weir_partition, weir_offset, weir_plan, weir_attempt FROM a ORDER BY k";
        let expected = ["x|customers|0|0|7|null", "y|orders|3|1042|7|1", "z|weir.p.replay|0|1|7|0"];
        assert_eq!(file.rows(all), expected);
    }
}

#[test]
fn a_record_that_comes_again_takes_no_place_of_one_that_stood_behind_it() {
    let file = File::upsert(&["k"]);
    let mut sink = file.claimed(1);
    let keyed = |keys: &[&str], values: &[i64]| rows(vec![("k", texts(keys)), ("n", numbers(values))]);
    deliver(&mut sink, 4, vec![keyed(&["a", "b", "c", "d"], &[0, 1, 2, 3])]).unwrap();
    let late = keyed(&["a", "b", "c", "e"], &[10, 11, 12, 13]);
    let late = again(late, &["customers/0/9/1", "customers/0/0/1", "customers/1/0/1", "customers/0/0/1"]);
    let gone = deleting(keyed(&["d", "e"], &[0, 0]), &[true, true]);
    let gone = Part { offsets: vec![4, 5].into(), ..again(gone, &["customers/0/2/1", "customers/0/1/1"]) };
    sink.write(RoutedBatch { parts: vec![late, gone], ..batch(4, 10) }).unwrap();
    sink.commit(&at(), &commit(4, 10)).unwrap();
    let all = "SELECT k, n, weir_partition, weir_offset, weir_attempt FROM a ORDER BY k";
    assert_eq!(file.rows(all), ["a|10|0|9|1", "b|1|0|1|null", "c|12|1|0|1", "d|3|0|3|null"]);
    assert_eq!(sink.tally().superseded.get(), 2);
    // One that came only once has no attempt, whatever it replaces.
    sink.write(RoutedBatch { parts: vec![keyed(&["a"], &[20])], ..batch(10, 11) }).unwrap();
    sink.commit(&at(), &commit(10, 11)).unwrap();
    assert_eq!(file.rows("SELECT n, weir_attempt FROM a WHERE k = 'a'"), ["20|null"]);
}

#[test]
fn a_table_without_a_column_for_attempts_takes_all_else_of_a_record_that_comes_again() {
    for key in [&[][..], &["k"]] {
        let file = if key.is_empty() { File::new() } else { File::upsert(key) };
        file.run("CREATE TABLE a (k TEXT UNIQUE CHECK (k <> 'no'), weir_topic, weir_partition, weir_offset, weir_index, weir_plan)");
        let part = again(rows(vec![("k", texts(&["x", "no"]))]), &["orders/3/1042/1", "orders/3/1043/2"]);
        deliver(&mut file.claimed(1), 2, vec![part]).unwrap();
        let all = "SELECT k, weir_topic, weir_partition, weir_offset FROM a";
        assert_eq!(file.rows(all), ["x|orders|3|1042"]);
        let rejects = "SELECT weir_topic, weir_partition, weir_offset FROM weir_reject";
        assert_eq!(file.rows(rejects), ["orders|3|1043"]);
    }
}

#[test]
fn a_row_that_is_refused_says_which_attempt_it_is_if_the_table_of_refused_rows_can() {
    let file = File::new();
    file.run("CREATE TABLE a (k TEXT CHECK (k <> 'no'), weir_topic TEXT, weir_partition integer, weir_offset integer, weir_index integer, weir_plan integer)");
    let mut sink = file.claimed(1);
    let refused = |origins: &[&str]| again(rows(vec![("k", texts(&["no", "no"]))]), origins);
    deliver(&mut sink, 2, vec![refused(&["orders/3/1/1", "weir.p.replay/0/1/0"])]).unwrap();
    let rejects =
        "SELECT weir_topic, weir_offset, weir_attempt FROM weir_reject ORDER BY weir_topic, weir_offset";
    assert_eq!(file.rows(rejects), ["orders|1|1", "weir.p.replay|1|null"]);
    assert_eq!(rejects_lack(&file.config()).unwrap(), None);

    file.run("ALTER TABLE weir_reject DROP COLUMN weir_attempt");
    let part = Part { offsets: vec![2, 3].into(), ..refused(&["orders/3/2/1", "orders/3/3/2"]) };
    sink.write(RoutedBatch { parts: vec![part], ..batch(2, 4) }).unwrap();
    sink.commit(&at(), &commit(2, 4)).unwrap();
    file.run(&rejects_lack(&file.config()).unwrap().unwrap());
    let expected = ["orders|1|null", "orders|2|null", "orders|3|null", "weir.p.replay|1|null"];
    assert_eq!(file.rows(rejects), expected);
}
