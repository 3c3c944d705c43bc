//! What the text, the schema and single values can have wrong.

use expect_test::expect;

use super::*;

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    check(
        "memory",
        "memroy",
        expect![[r#"
        error: unknown key `memroy` in [limits]
          --> conf/customers.toml:13:1
           |
        13 | memroy = "256 MiB"
           | ^^^^^^
           = help: did you mean `memory`?"#]],
    );
    check(
        "path = \"out\"",
        "path = \"out\"\n\n[sinks.copy.fiels]",
        expect![[r#"
            error: unknown key `fiels` in [sinks.copy]
              --> conf/customers.toml:24:13
               |
            24 | [sinks.copy.fiels]
               |             ^^^^^
               = help: known here: `files`, `kafka`, `postgres`, `sqlite`"#]],
    );
    check(
        "[limits]",
        "[limts]",
        expect![[r#"
        error: unknown table [limts]
          --> conf/customers.toml:12:2
           |
        12 | [limts]
           |  ^^^^^
           = help: did you mean `limits`?"#]],
    );
    check(
        "state = ",
        "directory = ",
        expect![[r#"
            error: `state` is missing in [pipeline]
             --> conf/customers.toml:1:1
              |
            1 | [pipeline]
              | ^^^^^^^^^^
              = help: `state`: the directory for what the pipeline remembers itself: compiled transforms and, where records come from files, the plan log, with the bytes of every component and table that a plan names, and which file is which partition

            error: unknown key `directory` in [pipeline]
             --> conf/customers.toml:3:1
              |
            3 | directory = "state"
              | ^^^^^^^^^
              = help: known here: `name`, `state`"#]],
    );
    check(
        "[pipeline]",
        "name = 1\n[pipeline]",
        expect![[r#"
        error: unknown key `name` before the first table
         --> conf/customers.toml:1:1
          |
        1 | name = 1
          | ^^^^"#]],
    );
    check(
        "path = \"out\"",
        "path = \"out\"\nroll = { row = 1 }",
        expect![[r#"
        error: unknown key `row` in [sinks.lake.files.roll]
          --> conf/customers.toml:23:10
           |
        23 | roll = { row = 1 }
           |          ^^^
           = help: did you mean `rows`?"#]],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    check(
        "\"256 MiB\"",
        "true",
        expect![[r#"
        error: `memory` in [limits] must be a size such as "256 MiB", not a boolean
          --> conf/customers.toml:13:10
           |
        13 | memory = true
           |          ^^^^"#]],
    );
    check(
        "name = \"customers\"",
        "name = 7",
        expect![[r#"
        error: `name` in [pipeline] must be a pipeline name, not an integer
         --> conf/customers.toml:2:8
          |
        2 | name = 7
          |        ^"#]],
    );
    check(
        "[limits]",
        "[limits]\nworkers = \"two\"",
        expect![[r#"
        error: `workers` in [limits] must be an integer, not a string
          --> conf/customers.toml:13:11
           |
        13 | workers = "two"
           |           ^^^^^"#]],
    );
    check(
        "usa = \"lake.customers_usa\"",
        "usa = 1\nalerts = [\"lake.a\", 2]",
        expect![[r#"
        error: `usa` in [routes] must be a string or a list, not an integer
          --> conf/customers.toml:16:7
           |
        16 | usa = 1
           |       ^

        error: an entry of `alerts` in [routes] must be a string, not an integer
          --> conf/customers.toml:17:21
           |
        17 | alerts = ["lake.a", 2]
           |                     ^"#]],
    );
    check(
        "[routes]",
        "[[routes]]",
        expect![[r#"
        error: [routes] must be a table, not a list
          --> conf/customers.toml:15:1
           |
        15 | [[routes]]
           | ^^^^^^^^^^"#]],
    );
    check(
        "[limits]",
        "[transform.settings]\nratio = 0.5\n[limits]",
        expect![[r#"
        error: `ratio` in [transform.settings] must be a string or an integer or a boolean, not a float
          --> conf/customers.toml:13:9
           |
        13 | ratio = 0.5
           |         ^^^"#]],
    );
    check(
        "component = \"customers.wasm\"",
        "component = \"\"",
        expect![[r#"
        error: `component` in [transform]: nothing is written here
          --> conf/customers.toml:10:13
           |
        10 | component = ""
           |             ^^"#]],
    );
    check(
        "topic = ",
        "format = \"xml\"\ntopic = ",
        expect![[r#"
        error: `format` in [source.files]: unknown value `xml`
         --> conf/customers.toml:7:10
          |
        7 | format = "xml"
          |          ^^^^^
          = help: known here: `csv`, `jsonl`, `raw`"#]],
    );
}

#[test]
fn a_bad_quantity_is_refused_with_what_to_write() {
    check(
        "256 MiB",
        "256 MIB",
        expect![[r#"
        error: `memory` in [limits]: unknown unit `MIB`
          --> conf/customers.toml:13:10
           |
        13 | memory = "256 MIB"
           |          ^^^^^^^^^
           = help: did you mean `MiB`?"#]],
    );
    check(
        "\"256 MiB\"",
        "0",
        expect![[r#"
        error: `memory` in [limits]: 0 is less than 1
          --> conf/customers.toml:13:10
           |
        13 | memory = 0
           |          ^"#]],
    );
    check(
        "256 MiB",
        "5 GiB",
        expect![[r#"
        error: `memory` in [limits]: 5 GiB is more than 4 GiB
          --> conf/customers.toml:13:10
           |
        13 | memory = "5 GiB"
           |          ^^^^^^^"#]],
    );
    check(
        "memory = \"256 MiB\"",
        "deadline = \"5 sec\"",
        expect![[r#"
        error: `deadline` in [limits]: unknown unit `sec`
          --> conf/customers.toml:13:12
           |
        13 | deadline = "5 sec"
           |            ^^^^^^^
           = help: known here: `ms`, `s`, `min`, `h`, `d`"#]],
    );
    check(
        "memory = \"256 MiB\"",
        "deadline = 5",
        expect![[r#"
        error: `deadline` in [limits] must be a time such as "5 s", not an integer
          --> conf/customers.toml:13:12
           |
        13 | deadline = 5
           |            ^"#]],
    );
    check(
        "memory = \"256 MiB\"",
        "batch_bytes = \"128 MiB\"",
        expect![[r#"
        error: a batch of `batch_bytes` = 128 MiB does not fit into `in_flight_bytes` = 16 MiB
          --> conf/customers.toml:13:15
           |
        13 | batch_bytes = "128 MiB"
           |               ^^^^^^^^^"#]],
    );
    check(
        "memory = \"256 MiB\"",
        "batch_records = 0\nworkers = 5_000_000_000",
        expect![[r#"
        error: `batch_records` in [limits]: 0 is less than 1
          --> conf/customers.toml:13:17
           |
        13 | batch_records = 0
           |                 ^

        error: `workers` in [limits]: more than 4294967295
          --> conf/customers.toml:14:11
           |
        14 | workers = 5_000_000_000
           |           ^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn a_bad_name_is_refused_with_the_rule() {
    check(
        "name = \"customers\"",
        "name = \"Customers USA\"",
        expect![[r#"
        error: `name` in [pipeline]: `Customers USA` is not a pipeline name
         --> conf/customers.toml:2:8
          |
        2 | name = "Customers USA"
          |        ^^^^^^^^^^^^^^^
          = help: a pipeline name is 1 to 63 of a-z, 0-9, `-` and begins with a letter or digit"#]],
    );
    check(
        "lake.customers_usa",
        "lake",
        expect![[r#"
        error: `lake` names no target
          --> conf/customers.toml:16:7
           |
        16 | usa = "lake"
           |       ^^^^^^
           = help: write the sink, a dot and what it calls the place, such as "lake.customers""#]],
    );
    check(
        "lake.customers_usa",
        "lake.../etc",
        expect![[r#"
        error: `../etc` is not a target name
          --> conf/customers.toml:16:7
           |
        16 | usa = "lake.../etc"
           |       ^^^^^^^^^^^^^
           = help: a target name is 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-` and begins with a letter or digit"#]],
    );
    check(
        "[sinks.lake.files]",
        "[sinks.Lake.files]\npath = \"x\"\n[sinks.lake.files]",
        expect![[r#"
        error: `Lake` is not a sink name
          --> conf/customers.toml:21:8
           |
        21 | [sinks.Lake.files]
           |        ^^^^
           = help: a sink name is 1 to 63 of a-z, 0-9, `-`, `_` and begins with a letter or digit"#]],
    );
}

#[test]
fn a_missing_key_is_refused_at_its_table() {
    check(
        "name = \"customers\"\n",
        "",
        expect![[r#"
            error: `name` is missing in [pipeline]
             --> conf/customers.toml:1:1
              |
            1 | [pipeline]
              | ^^^^^^^^^^
              = help: `name`: the name under which sinks remember positions"#]],
    );
    check(
        "[dead_letter]\nto = \"lake.dead_letters\"\n",
        "",
        expect![[r#"
            error: the table [dead_letter] is missing
             --> conf/customers.toml
              = help: `dead_letter`: where records go that the transform rejects or fails on"#]],
    );
    check(
        "[sinks.lake.files]\npath = \"out\"",
        "[sinks.lake]",
        expect![[r#"
            error: [sinks.lake] has no kind
              --> conf/customers.toml:21:8
               |
            21 | [sinks.lake]
               |        ^^^^
               = help: add one of [sinks.lake.files], [sinks.lake.kafka], [sinks.lake.postgres], [sinks.lake.sqlite]"#]],
    );
    check(
        "path = \"out\"",
        "",
        expect![[r#"
            error: [sinks.lake.files] has neither `path` nor `url`
              --> conf/customers.toml:21:1
               |
            21 | [sinks.lake.files]
               | ^^^^^^^^^^^^^^^^^^
               = help: `path` is a directory relative to this file, `url` is hdfs://namenode:8020/directory or file:///absolute/path"#]],
    );
}

#[test]
fn a_name_given_twice_is_refused_with_both_lines() {
    check(
        "path = \"out\"",
        "path = \"out\"\n\n[sinks.lake.files]\npath = \"other\"",
        expect![[r#"
            error: duplicate key `files`
              --> conf/customers.toml:24:13
               |
            24 | [sinks.lake.files]
               |             ^^^^^
               = help: [sinks.lake.files] is already on line 21"#]],
    );
    check(
        "state = ",
        "name = \"again\"\nstate = ",
        expect![[r#"
        error: duplicate key `name`
         --> conf/customers.toml:3:1
          |
        3 | name = "again"
          | ^^^^
          = help: `name` is already on line 2"#]],
    );
    check(
        "path = \"out\"",
        "path = \"out\"\n\n[sinks.copy.files]\npath = \"out\"",
        expect![[r#"
        error: sinks `copy` and `lake` have the same directory
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.files]
           | ^^^^^^^^^^^^^^^^^^
           = help: a sink keeps its positions in its directory: use one sink with two targets"#]],
    );
}

#[test]
fn text_that_is_not_toml_is_refused_where_it_stops_being_toml() {
    check(
        "name = \"customers\"",
        "name = \"customers",
        expect![[r#"
        error: invalid basic string, expected `"`
         --> conf/customers.toml:2:18
          |
        2 | name = "customers
          |                  ^"#]],
    );
    check(
        "[limits]",
        "[limits",
        expect![[r#"
        error: unclosed table, expected `]`
          --> conf/customers.toml:12:8
           |
        12 | [limits
           |        ^"#]],
    );
}

#[test]
fn directories_go_by_a_date_or_a_column_each_by_another() {
    check(
        "path = \"out\"",
        "path = \"out\"\ndirectories = [{ date = \"week\" }, { colum = \"x\" }, 1]",
        expect![[r#"
            error: `date` in [sinks.lake.files.directories.0]: unknown value `week`
              --> conf/customers.toml:23:25
               |
            23 | directories = [{ date = "week" }, { colum = "x" }, 1]
               |                         ^^^^^^
               = help: known here: `month`, `day`, `hour`

            error: unknown key `colum` in [sinks.lake.files.directories.1]
              --> conf/customers.toml:23:37
               |
            23 | directories = [{ date = "week" }, { colum = "x" }, 1]
               |                                     ^^^^^
               = help: did you mean `column`?

            error: an entry of `directories` in [sinks.lake.files] must be a table, not an integer
              --> conf/customers.toml:23:52
               |
            23 | directories = [{ date = "week" }, { colum = "x" }, 1]
               |                                                    ^"#]],
    );
    check(
        "path = \"out\"",
        "path = \"out\"\ndirectories = [{}, { date = \"day\" }, { column = \"DT\" }]",
        expect![[r#"
            error: a directory goes by neither `date` nor `column`
              --> conf/customers.toml:23:16
               |
            23 | directories = [{}, { date = "day" }, { column = "DT" }]
               |                ^^
               = help: such as `{ date = "day" }` or `{ column = "country" }`

            error: two directories are called `DT=...`
              --> conf/customers.toml:23:38
               |
            23 | directories = [{}, { date = "day" }, { column = "DT" }]
               |                                      ^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn a_sink_is_of_one_kind() {
    check(
        "path = \"out\"",
        "path = \"out\"\n\n[sinks.lake.postgres]",
        expect![[r#"
            error: [sinks.lake] has 2 kinds: `files`, `postgres`
              --> conf/customers.toml:21:8
               |
            21 | [sinks.lake.files]
               |        ^^^^
               = help: keep one of [sinks.lake.files], [sinks.lake.kafka], [sinks.lake.postgres], [sinks.lake.sqlite]"#]],
    );
}
