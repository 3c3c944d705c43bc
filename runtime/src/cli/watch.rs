//! `weir run --watch`: what the pipeline file names is looked at while it runs, and deployed when it changed and is valid. For
//! whoever writes a rule and wants to see what becomes of it. What no plan says takes another start, and is told once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::Ended;
use super::progress;
use super::screen;
use crate::app::Options;
use crate::app::deploy::{Changes, Deployment, Overtaken};
use crate::config::PipelineConfig;

/// How often the files are looked at. One that changed is taken once it stood still for as long.
const EVERY: Duration = Duration::from_millis(300);

/// Looks at the files of a pipeline until it is dropped.
pub(super) struct Watch {
    /// Closed, it ends the thread.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at the file of a pipeline that was started with what `begun` says.
    pub(super) fn start(begun: PipelineConfig, options: Options) -> io::Result<Self> {
        let (running, ended) = bounded::<()>(0);
        let file = begun.file.clone();
        let mut seen = looks(&file);
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let (mut taken, mut refused) = (seen.clone(), false);
            let (mut last, mut left) = (None, Vec::new());
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = looks(&file);
                let stands_still = now == seen;
                seen = now;
                if stands_still && seen != taken {
                    let before = std::mem::replace(&mut taken, seen.clone());
                    let deployed = deploy(&file, &options);
                    let was_refused = std::mem::replace(&mut refused, deployed.is_err());
                    let said = match deployed {
                        Ok(None) => was_refused.then(|| {
                            "the file can be taken over again, and asks for no other plan".to_owned()
                        }),
                        Ok(said) => said,
                        Err(error) => {
                            let (text, hint, ended) = screen::told(&error);
                            // Somebody else was faster, or does not answer: that passes.
                            if ended == Ended::Outside || error.is::<Overtaken>() {
                                taken = before;
                            }
                            let hint = hint.map_or_else(String::new, |hint| format!("\nhint: {hint}"));
                            Some(format!("not taken over: {text}{hint}"))
                        }
                    };
                    if said.is_some() && said != last {
                        said.iter().for_each(|line| progress::tell(line));
                    }
                    last = said;
                    let now = left_out(&file, &begun);
                    if now != left && !now.is_empty() {
                        let keys = now.join(", ");
                        progress::tell(&format!(
                            "not taken over before the next start: what {keys} says now"
                        ));
                    }
                    left = now;
                }
            }
        })?;
        Ok(Self { running: Some(running), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.running.take());
        // It has nothing to say of itself; had it panicked, that would have been told.
        self.thread.take().map(JoinHandle::join);
    }
}

/// Makes what the file says the next plan, if that is another; what is told of it.
fn deploy(file: &Path, options: &Options) -> Result<Option<String>> {
    let config = PipelineConfig::load(file)?;
    let mut deployment = Deployment::prepare(&config, options, &Changes::default())?;
    let differences = deployment.differences();
    if differences.is_empty() {
        return Ok(None);
    }
    let refused = deployment.refused_by_sinks();
    if !refused.is_empty() {
        let told = refused.iter().map(|(what, error)| format!("{what}: {}", screen::told(error).0));
        bail!(told.collect::<Vec<_>>().join("\n"));
    }
    // Whoever writes a rule sees what becomes of it.
    let number = deployment.put("a file changed (--watch)", false)?;
    let lines = differences.iter().map(|difference| format!("\n  {difference}"));
    Ok(Some(format!("plan {number}:{}", lines.collect::<String>())))
}

/// The keys that say something else than at the start, and that no plan holds; none as long as the file is not valid.
fn left_out(file: &Path, begun: &PipelineConfig) -> Vec<String> {
    PipelineConfig::load(file).map(|config| begun.changed_for_a_start(&config)).unwrap_or_default()
}

/// When each file was changed last, and how long it is; none that cannot be looked at.
type Looks = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// The pipeline file, and what it names as far as it can be read.
fn looks(file: &Path) -> Looks {
    let config = PipelineConfig::load(file).ok();
    let named = config.into_iter().flat_map(|config| {
        let tables = config.transform.tables.into_values().map(|table| table.file);
        [config.transform.component].into_iter().chain(tables)
    });
    let look = |path: PathBuf| {
        let found = fs::metadata(&path).ok()?;
        Some((path, (found.modified().ok(), found.len())))
    };
    named.chain([file.to_owned()]).filter_map(look).collect()
}
