//! `weir pause` and `weir resume`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use crossbeam_channel::after;
use serde_json::json;

use super::Ended;
use crate::admin::Followed;
use crate::admin::ask::{self, Error, Place};
use crate::config::PipelineConfig;
use crate::offset::TopicPartition;
use crate::pipeline::What;
use crate::pipeline::status::{State, Status};

/// How often it is asked whether all is committed, and how long.
const EVERY: Duration = Duration::from_millis(100);
const TIMES: u32 = 300;

/// Stop reading, until it is resumed
///
/// What was read is finished and committed; the command waits for that, half a minute at most. The process goes on and keeps
/// its partitions. It is written down: started again, it is still paused. With --partition the others go on.
///
/// It asks every process on this machine that runs the pipeline, through its socket; only the user who runs it may. Exit
/// codes: 0 it is paused; 1 it was refused; 3 nothing runs.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Only this partition; `weir status` shows which there are
    #[arg(long, value_name = "TOPIC:N", value_parser = partition)]
    partition: Option<TopicPartition>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Let what is paused go on where it stands
///
/// Without --partition everything goes on, also partitions that were paused one by one. Exit codes: 0 it goes on; 1 it was
/// refused; 3 nothing runs.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Only this partition
    #[arg(long, value_name = "TOPIC:N", value_parser = partition)]
    partition: Option<TopicPartition>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// `customers-raw:3`, or as `weir status` shows it, `customers-raw/3`. A topic's name has neither.
fn partition(text: &str) -> Result<TopicPartition, String> {
    let wrong =
        || format!("`{text}` is no partition: write the topic and the number, such as customers-raw:3");
    let (topic, number) = text.rsplit_once([':', '/']).ok_or_else(wrong)?;
    let number: i32 = number.parse().map_err(|_| wrong())?;
    match topic.is_empty() || number < 0 {
        true => Err(wrong()),
        false => Ok(TopicPartition::new(topic, number)),
    }
}

pub(super) fn pause(args: &PauseArgs) -> Result<Ended> {
    let Some(mut followed) = give(&args.pipeline, What::Pause, args.partition.as_ref(), args.json)? else {
        return Ok(Ended::Outside);
    };
    for (place, followed) in &mut followed {
        followed.status = when_all_is_committed(place, followed.status.clone())?;
    }
    tell(&followed, args.json, |name, followed| {
        let was = if followed.changed { "" } else { " already" };
        match &args.partition {
            Some(at) => println!("{at} is paused{was} in {name}"),
            None => println!("{name} is paused{was}"),
        }
        match under_way(&followed.status) {
            0 => println!("  all that was read is committed; it stays paused until `weir resume`"),
            n => {
                println!("  {n} partitions are still committing what was read: look again with `weir status`")
            }
        }
    });
    Ok(Ended::Done)
}

pub(super) fn resume(args: &ResumeArgs) -> Result<Ended> {
    let Some(followed) = give(&args.pipeline, What::Resume, args.partition.as_ref(), args.json)? else {
        return Ok(Ended::Outside);
    };
    tell(&followed, args.json, |name, followed| match followed.changed {
        true => println!("{name} goes on"),
        false => println!("{name} was not paused"),
    });
    Ok(Ended::Done)
}

/// Gives an order to every process; `None` if there is none. That one does not have a partition is no error as long as
/// another does.
fn give(
    file: &Path,
    what: What,
    of: Option<&TopicPartition>,
    in_json: bool,
) -> Result<Option<Vec<(Place, Followed)>>> {
    let config = PipelineConfig::load(file)?;
    let processes = ask::processes(&config.admin.socket, config.name.as_str())?;
    if processes.is_empty() {
        match in_json {
            true => println!("{}", json!({ "processes": [] })),
            false => println!("{}: nothing runs on this machine", config.name),
        }
        return Ok(None);
    }
    let (mut followed, mut refused) = (Vec::new(), None);
    for (place, _) in processes {
        match ask::order(&place, what, of) {
            Ok(done) => followed.push((place, done)),
            Err(error @ Error::Refused { .. }) if of.is_some() => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    // Those that were told later may have followed the one that was told first already.
    let changed = followed.iter().any(|(_, followed)| followed.changed);
    followed.iter_mut().for_each(|(_, followed)| followed.changed = changed);
    match refused.filter(|_| followed.is_empty()) {
        Some(refused) => Err(refused.into()),
        None => Ok(Some(followed)),
    }
}

fn under_way(status: &Status) -> usize {
    status.partitions.iter().filter(|partition| partition.state == State::Pausing).count()
}

fn when_all_is_committed(place: &Place, mut status: Status) -> Result<Status> {
    for _ in 0..TIMES {
        if under_way(&status) == 0 {
            break;
        }
        after(EVERY).recv().expect("the time comes");
        status = ask::status(place)?.status;
    }
    Ok(status)
}

fn tell(followed: &[(Place, Followed)], in_json: bool, one: impl Fn(&str, &Followed)) {
    if in_json {
        let all: Vec<_> = followed.iter().map(|(_, followed)| followed).collect();
        return println!("{}", json!({ "processes": all }));
    }
    for (_, followed) in followed {
        one(&format!("{}: process {}", followed.status.pipeline, followed.process.pid), followed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_written_as_people_write_it_or_as_it_is_shown() {
        for good in ["a.b-c:3", "a.b-c/3"] {
            assert_eq!(partition(good), Ok(TopicPartition::new("a.b-c", 3)));
        }
        for bad in ["a", "a:", ":3", "a:-1", "a:x", "3"] {
            assert!(partition(bad).is_err(), "{bad}");
        }
    }
}
