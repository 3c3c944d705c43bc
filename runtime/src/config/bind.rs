//! What goes where: routes and dead letters to the targets of sinks. Never knows what the transform declares.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Directory, SinkConfig, SinkName, TargetName, TargetRef, TargetTable,
    diagnostic::Diagnostic,
    file::Targets,
    kafka::topic_name,
    nearest,
    resolve::{Resolver, table_name},
};

impl Resolver<'_> {
    pub(super) fn routes(&mut self, routes: BTreeMap<String, Targets>) -> BTreeMap<String, Vec<TargetRef>> {
        let mut resolved = BTreeMap::new();
        for (route, targets) in routes {
            let bound = match targets {
                Targets::One(none) if none == "none" => Vec::new(),
                Targets::One(target) => self.target(&["routes", &route], &target).into_iter().collect(),
                Targets::Several(targets) => self.targets(&route, &targets),
            };
            resolved.insert(route, bound);
        }
        resolved
    }

    fn targets(&mut self, route: &str, targets: &[String]) -> Vec<TargetRef> {
        if targets.is_empty() {
            let help = "to leave its rows out on purpose, write \"none\"".to_owned();
            self.report(
                &["routes", route],
                format!("route `{route}` has an empty list of targets"),
                Some(help),
            );
        }
        let mut bound = Vec::new();
        for (i, target) in targets.iter().enumerate() {
            let place = ["routes", route, &i.to_string()];
            if target == "none" {
                let help = Some("\"none\" stands alone, without a list".to_owned());
                self.report(&place, format!("\"none\" is not a target of route `{route}`"), help);
            } else if targets[..i].contains(target) {
                self.report(&place, format!("route `{route}` goes to `{target}` twice"), None);
            } else {
                bound.extend(self.target(&place, target));
            }
        }
        bound
    }

    fn target(&mut self, place: &[&str], target: &str) -> Option<TargetRef> {
        let target = TargetRef::parse(target);
        match target {
            Ok(target) => self.known(place, target),
            Err(complaint) => {
                self.complain(place, complaint);
                None
            }
        }
    }

    fn known(&mut self, place: &[&str], target: TargetRef) -> Option<TargetRef> {
        let sink = target.sink.as_str();
        if self.sinks.iter().any(|known| known == sink) {
            return Some(target);
        }
        let help = nearest::hint(sink, self.sinks.iter().map(String::as_str));
        self.report(place, format!("unknown sink `{sink}` in `{target}`"), help);
        None
    }

    pub(super) fn dead_letter(&mut self, to: &TargetRef, routes: &BTreeMap<String, Vec<TargetRef>>) {
        let place = ["dead_letter", "to"];
        self.known(&place, to.clone());
        if let Some((route, _)) = routes.iter().find(|(_, targets)| targets.contains(to)) {
            let message = format!("dead letters and route `{route}` both go to `{to}`");
            self.report(
                &place,
                message,
                Some("dead letters have columns of their own: give them a target of their own".to_owned()),
            );
        }
    }

    /// Targets of which nothing is said have the tables, or topics, of their own names: those have to be free as well.
    pub(super) fn unnamed_targets(
        &mut self,
        sinks: &BTreeMap<SinkName, SinkConfig>,
        routes: &BTreeMap<String, Vec<TargetRef>>,
        dead_letter: &TargetRef,
    ) {
        let bound: BTreeSet<_> = routes.values().flatten().chain([dead_letter]).collect();
        for TargetRef { sink, target } in bound {
            let Some(config) = sinks.get(sink) else { continue };
            let name = target.as_str();
            let same_table = |tables: &BTreeMap<TargetName, TargetTable>| {
                let twin = tables.iter().find(|(_, other)| other.table.eq_ignore_ascii_case(name));
                (tables.contains_key(target), twin.map(|(twin, _)| twin.clone()))
            };
            let (what, complaint, (named, twin)) = match config {
                SinkConfig::Files(_) => continue,
                SinkConfig::Sqlite(config) => ("table", table_name(name), same_table(&config.tables)),
                SinkConfig::Postgres(config) => ("table", table_name(name), same_table(&config.tables)),
                SinkConfig::Kafka(config) => {
                    let twin = config.topics.iter().find(|(_, other)| other.as_str() == name);
                    let twin = twin.map(|(twin, _)| twin.clone());
                    ("topic", topic_name(name), (config.topics.contains_key(target), twin))
                }
            };
            if named {
                continue;
            }
            let place = ["sinks", sink.as_str(), config.kind()];
            if let Some(complaint) = complaint {
                self.complain(&place, complaint);
            }
            if let Some(twin) = twin {
                let message = format!("targets `{twin}` and `{target}` have the same {what} `{target}`");
                self.report(&place, message, Some("let both routes go to one target".to_owned()));
            }
        }
    }

    pub(super) fn warnings(
        &self,
        sinks: &BTreeMap<SinkName, SinkConfig>,
        routes: &BTreeMap<String, Vec<TargetRef>>,
        dead_letter: &TargetRef,
    ) -> Vec<Diagnostic> {
        let bound: Vec<_> = routes.values().flatten().chain([dead_letter]).collect();
        let mut warnings = Vec::new();
        for (name, sink) in sinks {
            if !bound.iter().any(|target| target.sink == *name) {
                let place = self.document.key(&["sinks", name.as_str()]);
                warnings.push(Diagnostic::warning(place, format!("no route goes to sink `{name}`")));
                continue;
            }
            let targets = || bound.iter().filter(|bound| bound.sink == *name).map(|bound| &bound.target);
            for target in sink.targets().into_iter().filter(|target| !targets().any(|bound| bound == *target))
            {
                let path = ["sinks", name.as_str(), sink.kind(), "targets", target.as_str()];
                let place = self.document.key(&path);
                let help = nearest::hint(target.as_str(), targets().map(TargetName::as_str));
                warnings.push(
                    Diagnostic::warning(place, format!("no route goes to `{name}.{target}`"))
                        .maybe_help(help),
                );
            }
        }
        warnings
    }

    /// Directories by the time of the record are of no use where no record has one.
    pub(super) fn timeless(&self, sinks: &BTreeMap<SinkName, SinkConfig>) -> Vec<Diagnostic> {
        let mut warnings = Vec::new();
        let mut look = |directories: &[Directory], path: &[&str]| {
            for (i, directory) in directories.iter().enumerate() {
                if directory.date.is_none() || directory.column.is_some() {
                    continue;
                }
                let i = i.to_string();
                let place = self.document.place(&[path, &["directories", &i]].concat());
                let message = "records from files have no time: all rows go to the same `dt=` directory";
                let help = "name the column that has a date or a time: `{ date = ..., column = ... }`";
                warnings.push(Diagnostic::warning(place, message).help(help));
            }
        };
        for (name, sink) in sinks {
            let SinkConfig::Files(sink) = sink else { continue };
            let path = ["sinks", name.as_str(), "files"];
            look(&sink.directories, &path);
            for (target, of) in &sink.targets {
                let path = [&path[..], &["targets", target.as_str()]].concat();
                look(of.directories.as_deref().unwrap_or_default(), &path);
            }
        }
        warnings
    }
}
