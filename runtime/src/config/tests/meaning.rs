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
fn what_is_wrong_with_a_directory_in_hdfs_is_told_where_it_stands() {
    check(
        "path = \"out\"",
        "url = \"s3://bucket/lake\"",
        expect![[r#"
        error: not a URL that a file sink knows
          --> conf/customers.toml:22:7
           |
        22 | url = "s3://bucket/lake"
           |       ^^^^^^^^^^^^^^^^^^
           = help: such as "hdfs://namenode:8020/lake" or "file:///data/lake"; a directory relative to this file is a `path`"#]],
    );
    check(
        "path = \"out\"",
        "url = \"hdfs://namenode:8020/\"",
        expect![[r#"
        error: the HDFS URL names no directory below the root
          --> conf/customers.toml:22:7
           |
        22 | url = "hdfs://namenode:8020/"
           |       ^^^^^^^^^^^^^^^^^^^^^^^
           = help: such as "hdfs://namenode:8020/lake" or "file:///data/lake"; a directory relative to this file is a `path`"#]],
    );
    check(
        "path = \"out\"",
        "url = \"hdfs://namenode:8020/lake\"\nproperties = { \"dfs.replicaton\" = 2, \"dfs.blocksize\" = \"128m\" }",
        expect![[r#"
            error: `dfs.replicaton` is no setting of Hadoop's clients that means something here
              --> conf/customers.toml:23:16
               |
            23 | properties = { "dfs.replicaton" = 2, "dfs.blocksize" = "128m" }
               |                ^^^^^^^^^^^^^^^^
               = help: did you mean `dfs.replication`?

            error: `dfs.blocksize` must be a whole number from 1024 to 1099511627776
              --> conf/customers.toml:23:56
               |
            23 | properties = { "dfs.replicaton" = 2, "dfs.blocksize" = "128m" }
               |                                                        ^^^^^^"#]],
    );
    check(
        "path = \"out\"",
        "url = \"hdfs://namenode:8020/lake\"\nproperties.dfs.replication = 2",
        expect![[r#"
            error: `dfs` in [sinks.lake.files.properties] must be a string or an integer or a boolean, not a table
              --> conf/customers.toml:23:12
               |
            23 | properties.dfs.replication = 2
               |            ^^^"#]],
    );
    check(
        "path = \"out\"",
        "path = \"out\"\nproperties = { \"dfs.replication\" = 2 }",
        expect![[r#"
        error: [sinks.lake.files] has `properties`, which are for HDFS alone
          --> conf/customers.toml:23:14
           |
        23 | properties = { "dfs.replication" = 2 }
           |              ^^^^^^^^^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn a_directory_in_hdfs_has_the_properties_that_are_written_as_text() {
    let text = SMALL.replace(
        "path = \"out\"",
        "url = \"hdfs://namenode:8020/lake\"\nproperties = { \"dfs.replication\" = 2, \"dfs.client.use.datanode.hostname\" = true }",
    );
    let config = parse(&text).expect("it is right");
    let SinkConfig::Files(sink) = config.sinks.values().next().expect("there is a sink") else {
        panic!("it is a sink of files")
    };
    let properties = [("dfs.client.use.datanode.hostname", "true"), ("dfs.replication", "2")];
    let root = HdfsRoot {
        cluster: "hdfs://namenode:8020".to_owned(),
        directory: "/lake".to_owned(),
        properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    assert_eq!(sink.root, Root::Hdfs(root));
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
              = help: known here: `files`, `kafka`

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
        error: a name in a database has no control characters
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

/// What a person sees when the sink of the small file is a PostgreSQL database with these keys.
fn check_server(keys: &str, expected: expect_test::Expect) {
    check("files]\npath = \"out\"", &format!("postgres]\n{keys}"), expected);
}

#[test]
fn a_server_is_said_once_and_as_a_whole() {
    check_server(
        "host = \"db\"",
        expect![[r#"
        error: [sinks.lake.postgres] does not say `database`, `user`
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.postgres]
           | ^^^^^^^^^^^^^^^^^^^^^
           = help: such as `url = "postgres://user@host:5432/database"`"#]],
    );
    check_server(
        "url = \"postgres://ann@db/shop\"\nport = 5433\nuser = \"bob\"",
        expect![[r#"
        error: [sinks.lake.postgres] has both `url` and `port`
          --> conf/customers.toml:23:8
           |
        23 | port = 5433
           |        ^^^^
           = help: say all of it in one of the two ways

        error: [sinks.lake.postgres] has both `url` and `user`
          --> conf/customers.toml:24:8
           |
        24 | user = "bob"
           |        ^^^^^
           = help: say all of it in one of the two ways"#]],
    );
    check_server(
        "url = \"${NOT_SET}\"",
        expect![[r#"
        error: the environment variable `NOT_SET` is not set
          --> conf/customers.toml:22:7
           |
        22 | url = "${NOT_SET}"
           |       ^^^^^^^^^^^^"#]],
    );
    check_server(
        "url = \"postgres://db/shop\"\nuser = \"ann\"\npassword_env = \"NOT_SET\"",
        expect![[r#"
        error: [sinks.lake.postgres] has both `url` and `user`
          --> conf/customers.toml:23:8
           |
        23 | user = "ann"
           |        ^^^^^
           = help: say all of it in one of the two ways

        error: the environment variable `NOT_SET` is not set
          --> conf/customers.toml:24:16
           |
        24 | password_env = "NOT_SET"
           |                ^^^^^^^^^"#]],
    );
    check_server(
        "host = \"db\"\nport = 70000\ntls = \"prefer\"",
        expect![[r#"
        error: `port` in [sinks.lake.postgres]: more than 65535
          --> conf/customers.toml:23:8
           |
        23 | port = 70000
           |        ^^^^^

        error: `tls` in [sinks.lake.postgres]: unknown value `prefer`
          --> conf/customers.toml:24:7
           |
        24 | tls = "prefer"
           |       ^^^^^^^^
           = help: known here: `disable`, `require`, `verify-ca`, `verify-full`"#]],
    );
}

/// The line that it stands in is not shown either.
#[test]
fn a_password_in_the_file_is_refused_and_not_shown() {
    check_server(
        "url = \"postgres://ann:geheim@db/shop\"",
        expect![[r#"
        error: a password stands in the file, where everybody reads it
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.postgres]
           | ^^^^^^^^^^^^^^^^^^^^^
           = help: name the variable that holds it by `password_env`, or its file by `password_file`; or let a variable hold the whole URL: "${DATABASE_URL}""#]],
    );
    check_server(
        "url = \"postgres://ann:geheim@db/shop?sslmode=prefer\"",
        expect![[r#"
        error: the URL has a parameter that is not known here
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.postgres]
           | ^^^^^^^^^^^^^^^^^^^^^
           = help: known in a URL: `sslmode` with `disable`, `require`, `verify-ca` or `verify-full`; `ca_file` is a key of its own"#]],
    );
}

#[test]
fn a_server_far_away_proves_who_it_is_and_one_on_this_machine_need_not() {
    let server = |keys: &str| {
        let text = SMALL.replace("files]\npath = \"out\"", &format!("postgres]\n{keys}"));
        let env = |name: &str| {
            (name == "URL").then(|| "postgres://ann:geheim@db:6543/shop?sslmode=require".to_owned())
        };
        let config =
            PipelineConfig::parse(&text, Path::new("conf/customers.toml"), &env).expect("it is right");
        assert!(!format!("{config:?}").contains("geheim"));
        match config.sinks.into_values().next() {
            Some(SinkConfig::Postgres(sink)) => sink,
            other => panic!("{other:?}"),
        }
    };
    let sink = server("host = \"db\"\ndatabase = \"shop\"\nuser = \"ann\"");
    assert_eq!(
        (sink.server.tls, sink.server.port, &*sink.schema, sink.create),
        (Tls::VerifyFull, 5432, "public", true)
    );
    assert_eq!(server("url = \"postgres://ann@localhost/shop\"").server.tls, Tls::Disable);
    let sink = server("url = \"${URL}\"");
    assert_eq!((sink.server.tls, sink.server.port), (Tls::Require, 6543));
    assert_eq!(sink.server.password, Some(Secret("geheim".to_owned())));
    let sink = server("url = \"${URL}\"\ntls = \"verify-ca\"\nca_file = \"ca.pem\"");
    assert_eq!((sink.server.tls, sink.server.ca_file), (Tls::VerifyCa, Some("conf/ca.pem".into())));
}

/// The source of files of the sample file, and the same as topics of Kafka, with `more` behind it.
fn topics(more: &str) -> (String, String) {
    let files = "[source.files]\npath = \"customers.csv\"\ntopic = \"customers-raw\"".to_owned();
    let kafka = format!("[source.kafka]\nbrokers = \"b:9092\"\ntopics = [\"customers-raw\"]\n{more}");
    (files, kafka)
}

#[test]
fn a_place_to_begin_is_one_that_there_is() {
    let (files, kafka) = topics("start = \"the beginning\"");
    check(
        &files,
        &kafka,
        expect![[r#"
        error: `start`: `the beginning` is no place to begin
         --> conf/customers.toml:8:9
          |
        8 | start = "the beginning"
          |         ^^^^^^^^^^^^^^^
          = help: "earliest", "latest", a time such as "2026-11-01T00:00:00Z", or offsets such as { customers-raw = [12, 40] }"#]],
    );
    let (files, kafka) = topics("start = { customers-raw = [1, -2], others = [] }");
    check(
        &files,
        &kafka,
        expect![[r#"
        error: `start`: an offset of `customers-raw` is less than 0
         --> conf/customers.toml:8:9
          |
        8 | start = { customers-raw = [1, -2], others = [] }
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

        error: `start` has offsets of `others`, which is not read
         --> conf/customers.toml:8:9
          |
        8 | start = { customers-raw = [1, -2], others = [] }
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#]],
    );
    let (files, kafka) = topics("start = \"latest\"\nspark_checkpoint = \"cp\"");
    check(
        &files,
        &kafka,
        expect![[r#"
        error: both `start` and `spark_checkpoint` are given
         --> conf/customers.toml:8:9
          |
        8 | start = "latest"
          |         ^^^^^^^^
          = help: `spark_checkpoint` says where it begins"#]],
    );
    let (files, kafka) = topics("start = \"2026-11-01T00:00:00Z\"");
    let config = parse(&SMALL.replace(&files, &kafka)).unwrap();
    let SourceConfig::Kafka(source) = config.source else { panic!("{:?}", config.source) };
    assert_eq!(source.start, StartAt::Time(1_793_491_200_000));
}

/// What a person sees when the sink of the small file is a Kafka cluster with these keys.
fn check_cluster(keys: &str, expected: expect_test::Expect) {
    check("files]\npath = \"out\"", &format!("kafka]\n{keys}"), expected);
}

#[test]
fn a_password_of_a_cluster_is_not_in_the_file_and_never_shown() {
    check_cluster(
        "brokers = \"b:9092\"\nproperties = { \"sasl.password\" = \"geheim\" }",
        expect![[r#"
        error: the password `sasl.password` stands in the file, where everybody reads it
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.kafka]
           | ^^^^^^^^^^^^^^^^^^
           = help: let an environment variable hold it: "${KAFKA_PASSWORD}""#]],
    );
    check_cluster(
        "brokers = \"b:9092\"\nproperties = { \"sasl.password\" = \"${NOT_SET}\" }",
        expect![[r#"
        error: the environment variable `NOT_SET` is not set
          --> conf/customers.toml:23:34
           |
        23 | properties = { "sasl.password" = "${NOT_SET}" }
           |                                  ^^^^^^^^^^^^"#]],
    );
    let keys = "brokers = \"${BROKERS}\"\nproperties = { \"sasl.password\" = \"${PASSWORD}\" }";
    let text = SMALL.replace("files]\npath = \"out\"", &format!("kafka]\n{keys}"));
    let env = |name: &str| Some(if name == "BROKERS" { "a:1,b:2" } else { "geheim" }.to_owned());
    let config = PipelineConfig::parse(&text, Path::new("conf/customers.toml"), &env).expect("it is right");
    let Some(SinkConfig::Kafka(sink)) = config.sinks.values().next() else { panic!("it is a cluster") };
    assert_eq!(sink.cluster.brokers, "a:1,b:2");
    assert_eq!(sink.cluster.properties["sasl.password"], crate::config::Secret("geheim".to_owned()));
    assert!(!format!("{config:?}").contains("geheim"));
}

#[test]
fn a_topic_is_that_of_one_target_and_none_of_ours() {
    check_cluster(
        "brokers = \"b:9092\"\ntargets.customers_usa.topic = \"dead_letters\"\ntargets.b.topic = \"weir.x.rejects\"\ntargets.c.topic = \"weir.x.rejects\"",
        expect![[r#"
            error: targets `customers_usa` and `dead_letters` have the same topic `dead_letters`
              --> conf/customers.toml:21:1
               |
            21 | [sinks.lake.kafka]
               | ^^^^^^^^^^^^^^^^^^
               = help: let both routes go to one target

            error: `weir.x.rejects` is not a name for a topic: what begins with `weir.` is taken
              --> conf/customers.toml:24:19
               |
            24 | targets.b.topic = "weir.x.rejects"
               |                   ^^^^^^^^^^^^^^^^

            error: targets `b` and `c` have the same topic `weir.x.rejects`
              --> conf/customers.toml:25:9
               |
            25 | targets.c.topic = "weir.x.rejects"
               |         ^
               = help: let both routes go to one target

            error: `weir.x.rejects` is not a name for a topic: what begins with `weir.` is taken
              --> conf/customers.toml:25:19
               |
            25 | targets.c.topic = "weir.x.rejects"
               |                   ^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn what_no_plan_says_counts_from_a_start_on_and_is_named_by_its_keys() {
    let config = |text: &str| parse(text).expect("the file is right");
    let changed = |text: &str| config(SMALL).changed_for_a_start(&config(text));
    let of_plans = SMALL.replace("256 MiB", "64 MiB").replace("lake.dead_letters", "lake.dead");
    assert_eq!(changed(&of_plans), [""; 0]);
    let others = of_plans.replace("[limits]", "[admin]\nlisten = \"none\"\n\n[limits]\nworkers = 3");
    assert_eq!(changed(&others), ["admin.listen", "limits.workers"]);
    let changed = config(&others).changed_for_a_start(&config(&others.replace("workers = 3", "workers = 4")));
    assert_eq!(changed, ["limits.workers"]);
}

#[test]
fn the_topic_of_files_is_none_of_ours() {
    check(
        "topic = \"customers-raw\"",
        "topic = \"weir.customers.replay\"",
        expect![[r#"
        error: `weir.customers.replay` is not a name for a topic: what begins with `weir.` is taken
         --> conf/customers.toml:7:9
          |
        7 | topic = "weir.customers.replay"
          |         ^^^^^^^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn in_haste_the_clients_of_all_clusters_connect_sooner_unless_the_file_says_when() {
    const KEY: &str = "reconnect.backoff.ms";
    let (files, kafka) = topics("");
    let text = SMALL.replace(&files, &kafka).replace(
        "files]\npath = \"out\"",
        "kafka]\nbrokers = \"b:9092\"\nproperties = { \"reconnect.backoff.ms\" = \"500\" }",
    );
    let config = parse(&text).expect("it is right").in_haste();
    let SourceConfig::Kafka(source) = &config.source else { panic!("it is a source of topics") };
    let Some(SinkConfig::Kafka(sink)) = config.sinks.values().next() else {
        panic!("it is a sink of topics")
    };
    let of = |cluster: &KafkaCluster| cluster.properties[KEY].0.clone();
    assert_eq!((of(&source.cluster), of(&sink.cluster)), ("20".to_owned(), "500".to_owned()));
}
