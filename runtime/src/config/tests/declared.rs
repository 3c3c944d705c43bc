//! What is wrong in the light of what the transform declares.

use expect_test::expect;

use super::*;

#[test]
fn every_route_of_the_transform_is_bound_and_no_other() {
    let config = small();
    assert!(config.check_routes(&["usa"]).is_ok());
    refused(
        config.check_routes(&["usa", "alerts"]),
        expect![[r#"
            error: route `alerts` of the transform is bound nowhere
              --> conf/customers.toml:15:1
               |
            15 | [routes]
               | ^^^^^^^^
               = help: add `alerts = "sink.target"`, or `alerts = "none"` to leave its rows out"#]],
    );
    refused(
        config.check_routes(&["us"]),
        expect![[r#"
            error: route `us` of the transform is bound nowhere
              --> conf/customers.toml:15:1
               |
            15 | [routes]
               | ^^^^^^^^
               = help: add `us = "sink.target"`, or `us = "none"` to leave its rows out

            error: the transform has no route `usa`
              --> conf/customers.toml:16:1
               |
            16 | usa = "lake.customers_usa"
               | ^^^
               = help: did you mean `us`?"#]],
    );
}

#[test]
fn settings_are_those_that_the_transform_declares() {
    let config = parse(FULL).expect("the full file is right");
    let setting =
        |key, choices: &[&'static str]| DeclaredSetting { key, required: false, choices: choices.to_vec() };
    let (oldest, strict) = (setting("oldest", &[]), setting("strict", &["true", "false"]));
    let good = [setting("non_usa", &["other", "alerts", "drop"]), oldest.clone(), strict.clone()];
    assert!(config.check_settings(&good).is_ok());
    let bad_choice = [setting("non_usa", &["others", "drop"]), oldest.clone(), strict.clone()];
    refused(
        config.check_settings(&bad_choice),
        expect![[r#"
        error: the setting `non_usa` cannot be `other`
          --> conf/customers.toml:14:11
           |
        14 | non_usa = "other"
           |           ^^^^^^^
           = help: did you mean `others`?"#]],
    );
    let region = DeclaredSetting { required: true, ..setting("region", &[]) };
    refused(
        config.check_settings(&[setting("non_us", &[]), oldest, strict, region.clone()]),
        expect![[r#"
            error: the transform requires the setting `region`
              --> conf/customers.toml:13:1
               |
            13 | [transform.settings]
               | ^^^^^^^^^^^^^^^^^^^^
               = help: add `region = "..."` to [transform.settings]

            error: the transform has no setting `non_usa`
              --> conf/customers.toml:14:1
               |
            14 | non_usa = "other"
               | ^^^^^^^
               = help: did you mean `non_us`?"#]],
    );
    refused(
        small().check_settings(&[region]),
        expect![[r#"
            error: the transform requires the setting `region`
             --> conf/customers.toml:9:1
              |
            9 | [transform]
              | ^^^^^^^^^^^
              = help: add `region = "..."` to [transform.settings]"#]],
    );
}

#[test]
fn what_a_plan_or_an_option_says_is_told_as_theirs_and_shows_no_line_of_the_file() {
    let mut config = parse(FULL).expect("the full file is right");
    config.say_by("plan 3");
    config.say_by_option(&["transform", "settings", "non_usa"], "--set non_usa=other");
    let of = |key, required, choices| DeclaredSetting { key, required, choices };
    refused(
        config.check_settings(&[of("non_usa", false, vec!["others", "drop"]), of("region", true, vec![])]),
        expect![[r#"
            error: the transform requires the setting `region`
             --> plan 3
              = help: give it with `--set region=VALUE`

            error: the setting `non_usa` cannot be `other`
             --> --set non_usa=other
              = help: did you mean `others`?

            error: the transform has no setting `oldest`
             --> plan 3
              = help: known here: `non_usa`, `region`

            error: the transform has no setting `strict`
             --> plan 3
              = help: known here: `non_usa`, `region`"#]],
    );
    refused(
        config.check_routes(&["usa", "alerts", "other", "new"]),
        expect![[r#"
        error: route `new` of the transform is bound nowhere
         --> plan 3
          = help: write into the file which component it is, and in [routes] `new = "sink.target"`, or `new = "none"` to leave its rows out; then deploy the file"#]],
    );
    refused(
        config.refuse_absent(vec![Absent {
            path: vec!["source", "files", "path"],
            message: "there is no directory `in`".to_owned(),
            help: None,
        }]),
        expect![[r#"
            error: there is no directory `in`
             --> conf/customers.toml:7:8
              |
            7 | path = "${DATA}/customers.csv"
              |        ^^^^^^^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn tables_are_those_that_the_transform_declares() {
    let config = parse(FULL).expect("the full file is right");
    let table =
        |name, columns: &[&'static str]| DeclaredTable { name, required: true, columns: columns.to_vec() };
    assert!(config.check_tables(&[table("us_cities", &["city"])]).is_ok());
    refused(
        config.check_tables(&[table("us_cities", &["town"])]),
        expect![[r#"
            error: the transform has a table `us_cities` without the column `city`
              --> conf/customers.toml:21:13
               |
            21 | columns = { city = "City" }
               |             ^^^^
               = help: known here: `town`"#]],
    );
    refused(
        config.check_tables(&[
            table("cities_us", &[]),
            DeclaredTable { required: false, ..table("us_city", &[]) },
        ]),
        expect![[r#"
            error: the transform requires the table `cities_us`
              --> conf/customers.toml:10:1
               |
            10 | [transform]
               | ^^^^^^^^^^^
               = help: add [transform.tables.cities_us] with its `file`

            error: the transform has no table `us_cities`
              --> conf/customers.toml:18:19
               |
            18 | [transform.tables.us_cities]
               |                   ^^^^^^^^^
               = help: did you mean `us_city`?"#]],
    );
}

#[test]
fn directories_go_by_columns_that_all_rows_have() {
    let text = SMALL.replace(
        "path = \"out\"",
        "path = \"out\"\ndirectories = [{ date = \"day\" }, { column = \"country\" }]",
    );
    let config = parse(&text).expect("the small file is right");
    let dead = [config.dead_letter.to.clone()];
    let route = |columns: &[&'static str]| DeclaredRoute {
        name: "usa",
        to: &config.routes["usa"],
        columns: columns.to_vec(),
    };
    let letters = DeclaredRoute { name: "dead letters", to: &dead, columns: vec!["value"] };
    assert!(config.check_directories(&[route(&["id", "country"])], &|_, _| true).is_ok());
    refused(
        config.check_directories(&[route(&["county"]), letters], &|_, _| true),
        expect![[r#"
            error: `usa`, which goes to `lake.customers_usa`, has no column `country` for its directories
              --> conf/customers.toml:21:1
               |
            21 | [sinks.lake.files]
               | ^^^^^^^^^^^^^^^^^^
               = help: did you mean `county`?

            error: `dead letters`, which goes to `lake.dead_letters`, has no column `country` for its directories
              --> conf/customers.toml:21:1
               |
            21 | [sinks.lake.files]
               | ^^^^^^^^^^^^^^^^^^
               = help: give [sinks.lake.files.targets.dead_letters] `directories` of its own"#]],
    );
    refused(
        config.check_directories(&[route(&["country"])], &|_, _| false),
        expect![[r#"
        error: column `country` of `usa`, which goes to `lake.customers_usa`, is of a type that names no directory
          --> conf/customers.toml:21:1
           |
        21 | [sinks.lake.files]
           | ^^^^^^^^^^^^^^^^^^
           = help: give [sinks.lake.files.targets.customers_usa] `directories` of its own"#]],
    );
}
