//! The law of the pipeline file: any text is a configuration or a report of what is wrong, and never the end of the
//! program.

use std::path::Path;

use crate::config::{DeclaredRoute, DeclaredSetting, DeclaredTable, Error, PipelineConfig};

/// Any text is a configuration, or refused with findings that can be shown; so is what a transform declares, held
/// against it.
///
/// # Panics
/// If not.
pub fn any_pipeline_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read = || PipelineConfig::parse(&text, Path::new("dir/pipeline.toml"), &variable);
    match read() {
        Ok(config) => {
            assert!(read().is_ok_and(|again| again == config), "the same text gives another configuration");
            check_places(&text, &config.warnings());
            declared(&config).into_iter().for_each(|found| refused(&text, found));
        }
        Err(error) => refused(&text, Err(error)),
    }
}

/// Some variables are set, to things that look like more of the same.
fn variable(name: &str) -> Option<String> {
    match name {
        "DATA" | "COPY" => Some("/data".to_owned()),
        "EMPTY" => Some(String::new()),
        "ODD" => Some("${DATA}\"\n]é".to_owned()),
        _ => None,
    }
}

fn declared(config: &PipelineConfig) -> Vec<Result<(), Error>> {
    let settings = [
        DeclaredSetting { key: "oldest", required: true, choices: vec![] },
        DeclaredSetting { key: "non_usa", required: false, choices: vec!["other", "reject"] },
    ];
    let tables = [DeclaredTable { name: "us_cities", required: true, columns: vec!["city", "state"] }];
    let route = |(name, to)| DeclaredRoute { name, to, columns: vec!["id", "country"] };
    let routes: Vec<DeclaredRoute<'_>> =
        config.routes.iter().map(|(name, to)| route((name.as_str(), to.as_slice()))).collect();
    vec![
        config.check_routes(&["usa", "alerts"]),
        config.check_settings(&settings),
        config.check_tables(&tables),
        config.check_directories(&routes, &|directory, _| format!("{directory:?}").len() % 2 == 0),
    ]
}

fn refused(text: &str, found: Result<(), Error>) {
    match found {
        Ok(()) => {}
        Err(Error::Refused(report)) => {
            assert!(!report.is_empty(), "refused without a reason");
            check_places(text, &report);
        }
        Err(Error::Read { .. } | Error::Component { .. }) => panic!("it read a file"),
    }
}

fn check_places(text: &str, report: &crate::config::Report) {
    for found in report.diagnostics() {
        assert!(!found.message.is_empty());
        assert!(found.place.clone().is_none_or(|place| text.get(place).is_some()), "{found:?}");
    }
    let (plain, coloured) = (report.render(false), report.render(true));
    assert!(plain.len() <= coloured.len());
    assert_eq!(plain.is_empty(), report.is_empty());
    assert!(!plain.contains('\u{1b}'), "an escape sequence of the file reaches the terminal");
}
