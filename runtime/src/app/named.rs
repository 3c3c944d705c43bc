//! Whether the files are there that the pipeline file names. One that is not is shown in the line that names it, since
//! that is where it is mended. It reads none of them.

use std::fs;
use std::path::Path;

use crate::config::{Absent, Error, PipelineConfig, SinkName, SourceConfig, is_misnamed, nearest};

/// All that has to be there before anything is opened, all that is missing at once.
pub(super) fn all(config: &PipelineConfig) -> Result<(), Error> {
    config.refuse_absent(of_transform(config).into_iter().chain(of_source(config)).collect())
}

/// The component and the tables.
pub(super) fn transform(config: &PipelineConfig) -> Result<(), Error> {
    config.refuse_absent(of_transform(config))
}

/// The file or the directory with the records, where they come from files.
pub(super) fn source(config: &PipelineConfig) -> Result<(), Error> {
    config.refuse_absent(of_source(config).into_iter().collect())
}

/// A file of a PostgreSQL sink, by its key.
pub(super) fn of_database(
    config: &PipelineConfig,
    sink: &SinkName,
    key: &str,
    path: Option<&Path>,
) -> Result<(), Error> {
    let absent = path.and_then(|path| file(vec!["sinks", sink.as_str(), "postgres", key], path));
    config.refuse_absent(absent.into_iter().collect())
}

fn of_transform(config: &PipelineConfig) -> Vec<Absent<'_>> {
    let transform = &config.transform;
    let table = |name, path| file(vec!["transform", "tables", name, "file"], path);
    let tables = transform.tables.iter().filter_map(|(name, of)| table(name, &of.file));
    component(&transform.component).into_iter().chain(tables).collect()
}

fn component(path: &Path) -> Option<Absent<'static>> {
    let absent = file(vec!["transform", "component"], path)?;
    Some(Absent { help: meant_component(path), ..absent })
}

/// What to do where no component is at `path`: which may be meant, or how to build it.
pub fn meant_component(path: &Path) -> Option<String> {
    let (dir, near) = if path.is_dir() { (path, None) } else { (directory(path)?, meant(path)) };
    let build = || {
        let dir = dir.join("Cargo.toml").is_file().then(|| dir.display())?;
        Some(format!("`weir build {dir}` makes the component of the project there"))
    };
    near.or_else(build)
}

fn of_source(config: &PipelineConfig) -> Option<Absent<'_>> {
    let SourceConfig::Files(files) = &config.source else { return None };
    let path = &files.path;
    let message = format!("there is no file and no directory `{}`", path.display());
    let keys = vec!["source", "files", "path"];
    (is_there(path) == Some(false)).then(|| Absent { path: keys, message, help: meant(path) })
}

fn file<'a>(keys: Vec<&'a str>, path: &Path) -> Option<Absent<'a>> {
    let shown = path.display();
    let (message, help) = match is_there(path) {
        Some(false) => (format!("there is no file `{shown}`"), meant(path)),
        Some(true) if path.is_dir() => (format!("`{shown}` is a directory, and no file"), None),
        // What cannot be looked at is told by whoever reads it.
        Some(true) | None => return None,
    };
    Some(Absent { path: keys, message, help })
}

/// Whether something is at `path`, if the system says so.
fn is_there(path: &Path) -> Option<bool> {
    match fs::metadata(path) {
        Ok(_) => Some(true),
        Err(error) => is_misnamed(&error).then_some(false),
    }
}

/// The one in which `path` stands.
fn directory(path: &Path) -> Option<&Path> {
    path.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
}

/// What stands beside it under a name like that.
fn meant(path: &Path) -> Option<String> {
    let beside = fs::read_dir(directory(path)?).ok()?;
    let names: Vec<_> = beside.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let near = nearest::nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(format!("did you mean `{near}`?"))
}
