//! What is wrong only in the light of the rest of the file or of the environment.

use expect_test::expect;

use super::*;

#[test]
fn a_target_in_an_unknown_sink_is_refused_with_the_nearest_name() {
    check(
        "lake.customers_usa",
        "leak.customers_usa",
        expect![[r#"
        error: unknown sink `leak` in `leak.customers_usa`
          --> conf/customers.toml:16:7
           |
        16 | usa = "leak.customers_usa"
           |       ^^^^^^^^^^^^^^^^^^^^
           = help: known here: `lake`"#]],
    );
    check(
        "\"lake.customers_usa\"",
        "[\"lake.customers_usa\", \"warehouse.usa\"]",
        expect![[r#"
        error: unknown sink `warehouse` in `warehouse.usa`
          --> conf/customers.toml:16:30
           |
        16 | usa = ["lake.customers_usa", "warehouse.usa"]
           |                              ^^^^^^^^^^^^^^^
           = help: known here: `lake`"#]],
    );
    check(
        "lake.dead_letters",
        "lakes.dead_letters",
        expect![[r#"
        error: unknown sink `lakes` in `lakes.dead_letters`
          --> conf/customers.toml:19:6
           |
        19 | to = "lakes.dead_letters"
           |      ^^^^^^^^^^^^^^^^^^^^
           = help: did you mean `lake`?"#]],
    );
}

#[test]
fn rows_go_to_a_target_once_and_nowhere_only_on_purpose() {
    check(
        "\"lake.customers_usa\"",
        "[]",
        expect![[r#"
        error: route `usa` has an empty list of targets
          --> conf/customers.toml:16:7
           |
        16 | usa = []
           |       ^^
           = help: to leave its rows out on purpose, write "none""#]],
    );
    check(
        "\"lake.customers_usa\"",
        "[\"none\", \"lake.a\"]",
        expect![[r#"
        error: "none" is not a target of route `usa`
          --> conf/customers.toml:16:8
           |
        16 | usa = ["none", "lake.a"]
           |        ^^^^^^
           = help: "none" stands alone, without a list"#]],
    );
    check(
        "\"lake.customers_usa\"",
        "[\"lake.a\", \"lake.a\"]",
        expect![[r#"
        error: route `usa` goes to `lake.a` twice
          --> conf/customers.toml:16:18
           |
        16 | usa = ["lake.a", "lake.a"]
           |                  ^^^^^^^^"#]],
    );
    check(
        "lake.dead_letters",
        "lake.customers_usa",
        expect![[r#"
        error: dead letters and route `usa` both go to `lake.customers_usa`
          --> conf/customers.toml:19:6
           |
        19 | to = "lake.customers_usa"
           |      ^^^^^^^^^^^^^^^^^^^^
           = help: dead letters have columns of their own: give them a target of their own"#]],
    );
    check(
        "lake.dead_letters",
        "none",
        expect![[r#"
            error: `to` in [dead_letter]: "none" is not a target
              --> conf/customers.toml:19:6
               |
            19 | to = "none"
               |      ^^^^^^
               = help: only a route can be bound to "none""#]],
    );
}

#[test]
fn a_variable_stands_only_in_a_path_or_url_and_must_be_set() {
    check(
        "path = \"out\"",
        "path = \"${LAKE}/out\"",
        expect![[r#"
        error: the environment variable `LAKE` is not set
          --> conf/customers.toml:22:8
           |
        22 | path = "${LAKE}/out"
           |        ^^^^^^^^^^^^^"#]],
    );
    check(
        "path = \"out\"",
        "path = \"${LAKE/out\"",
        expect![[r#"
        error: `${` has no `}` behind it
          --> conf/customers.toml:22:8
           |
        22 | path = "${LAKE/out"
           |        ^^^^^^^^^^^^"#]],
    );
    let text = SMALL.replace("[limits]", "[transform.settings]\ngreeting = \"${LAKE}\"\n[limits]");
    assert_eq!(parse(&text).expect("a setting is left alone").transform.settings["greeting"], "${LAKE}");
}

#[test]
fn the_value_of_a_variable_is_never_shown() {
    let text = SMALL.replace("path = \"out\"", "url = \"s3://${SECRET}\"");
    let result = PipelineConfig::parse(&text, Path::new("p.toml"), &|_| Some("hunter2".to_owned()));
    let shown = result.expect_err("not a file URL").to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_sink_that_no_route_goes_to_is_a_warning() {
    let text = format!(
        "{SMALL}targets.dead_leters = {{ format = \"jsonl\" }}\n\n[sinks.spare.files]\npath = \"spare\"\n"
    );
    let config = parse(&text).expect("a warning refuses nothing");
    expect![[r#"
        warning: no route goes to `lake.dead_leters`
          --> conf/customers.toml:23:9
           |
        23 | targets.dead_leters = { format = "jsonl" }
           |         ^^^^^^^^^^^
           = help: did you mean `dead_letters`?

        warning: no route goes to sink `spare`
          --> conf/customers.toml:25:8
           |
        25 | [sinks.spare.files]
           |        ^^^^^"#]]
    .assert_eq(&config.warnings().to_string());
}

#[test]
fn directories_by_the_time_of_records_that_have_none_are_a_warning() {
    let text = format!(
        "{SMALL}directories = [{{ column = \"state\" }}, {{ date = \"day\" }}]\ntargets.customers_usa = {{ directories = [{{ date = \"day\", column = \"at\" }}] }}\ntargets.dead_letters = {{ directories = [{{ date = \"hour\" }}] }}\n"
    );
    let config = parse(&text).expect("a warning refuses nothing");
    expect![[r#"
        warning: records from files have no time: all rows go to the same `dt=` directory
          --> conf/customers.toml:23:38
           |
        23 | directories = [{ column = "state" }, { date = "day" }]
           |                                      ^^^^^^^^^^^^^^^^
           = help: name the column that has a date or a time: `{ date = ..., column = ... }`

        warning: records from files have no time: all rows go to the same `dt=` directory
          --> conf/customers.toml:25:41
           |
        25 | targets.dead_letters = { directories = [{ date = "hour" }] }
           |                                         ^^^^^^^^^^^^^^^^^
           = help: name the column that has a date or a time: `{ date = ..., column = ... }`"#]]
    .assert_eq(&config.warnings().to_string());
}

/// What a person sees when the sink of the small file is a database with these keys.
fn check_tables(keys: &str, expected: expect_test::Expect) {
    check("files]\npath = \"out\"", &format!("sqlite]\npath = \"lake.db\"\n{keys}"), expected);
}

#[test]
fn upsert_needs_a_key_and_append_has_none() {
    check_tables(
        "targets.customers_usa = { mode = \"upsert\" }",
        expect![[r#"
        error: target `customers_usa` has mode "upsert" and no key
          --> conf/customers.toml:23:34
           |
        23 | targets.customers_usa = { mode = "upsert" }
           |                                  ^^^^^^^^
           = help: add the columns by which a row is known, such as `key = ["id"]`"#]],
    );
    check_tables(
        "targets.customers_usa = { key = [\"id\"] }",
        expect![[r#"
        error: target `customers_usa` has a key, which mode "append" does not use
          --> conf/customers.toml:23:33
           |
        23 | targets.customers_usa = { key = ["id"] }
           |                                 ^^^^^^
           = help: write `mode = "upsert"`, or leave `key` out"#]],
    );
    check_tables(
        "targets.customers_usa = { mode = \"upsert\", key = [\"id\", \"ID\"] }",
        expect![[r#"
        error: column `ID` is in the key twice
          --> conf/customers.toml:23:50
           |
        23 | targets.customers_usa = { mode = "upsert", key = ["id", "ID"] }
           |                                                  ^^^^^^^^^^^^"#]],
    );
    check_tables(
        "targets.customers_usa = { mode = \"merge\", keys = [\"id\"] }",
        expect![[r#"
        error: `mode` in [sinks.lake.sqlite.targets.customers_usa]: unknown value `merge`
          --> conf/customers.toml:23:34
           |
        23 | targets.customers_usa = { mode = "merge", keys = ["id"] }
           |                                  ^^^^^^^
           = help: known here: `append`, `upsert`

        error: unknown key `keys` in [sinks.lake.sqlite.targets.customers_usa]
          --> conf/customers.toml:23:43
           |
        23 | targets.customers_usa = { mode = "merge", keys = ["id"] }
           |                                           ^^^^
           = help: did you mean `key`?"#]],
    );
}

#[test]
fn a_table_has_one_target_and_a_name_that_nobody_else_needs() {
    check_tables(
        "targets.customers_usa = { table = \"Dead_Letters\" }\ntargets.dead_letters = {}",
        expect![[r#"
            error: targets `customers_usa` and `dead_letters` have the same table `dead_letters`
              --> conf/customers.toml:24:24
               |
            24 | targets.dead_letters = {}
               |                        ^^
               = help: let both routes go to one target"#]],
    );
    check_tables(
        "targets.customers_usa = { table = \"Dead_letters\" }",
        expect![[r#"
        error: targets `customers_usa` and `dead_letters` have the same table `dead_letters`
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.sqlite]
           | ^^^^^^^^^^^^^^^^^^^
           = help: let both routes go to one target"#]],
    );
    let text = SMALL.replace("files]\npath", "sqlite]\npath").replace("lake.dead_letters", "lake.sqlite_x");
    refused(
        parse(&text),
        expect![[r#"
        error: unknown key `sqlite` in [source]
         --> conf/customers.toml:5:9
          |
        5 | [source.sqlite]
          |         ^^^^^^
          = help: known here: `files`

        error: `sqlite_x` is not a name for a table: what begins with `sqlite_` is taken
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.sqlite]
           | ^^^^^^^^^^^^^^^^^^^"#]],
    );
    check_tables(
        "targets.customers_usa = { table = \"weir_position\" }",
        expect![[r#"
        error: `weir_position` is not a name for a table: what begins with `weir_` is taken
          --> conf/customers.toml:23:35
           |
        23 | targets.customers_usa = { table = "weir_position" }
           |                                   ^^^^^^^^^^^^^^^"#]],
    );
    check_tables(
        "targets.customers_usa = { table = \"\" }",
        expect![[r#"
        error: `table` in [sinks.lake.sqlite.targets.customers_usa]: nothing is written here
          --> conf/customers.toml:23:35
           |
        23 | targets.customers_usa = { table = "" }
           |                                   ^^"#]],
    );
    check_tables(
        "targets.customers_usa = { table = \"a\\u0000b\" }",
        expect![[r#"
        error: a name of a table has no control characters
          --> conf/customers.toml:23:35
           |
        23 | targets.customers_usa = { table = "a\u0000b" }
           |                                   ^^^^^^^^^^"#]],
    );
}

#[test]
fn a_table_that_no_route_goes_to_is_warned_of() {
    let text = SMALL.replace("files]\npath = \"out\"", "sqlite]\npath = \"lake.db\"\ntargets.usa = {}");
    let config = parse(&text).expect("it is right but for a warning");
    expect![[r#"
        warning: no route goes to `lake.usa`
          --> conf/customers.toml:23:9
           |
        23 | targets.usa = {}
           |         ^^^
           = help: known here: `customers_usa`, `dead_letters`"#]]
    .assert_eq(&config.warnings().to_string());
}
