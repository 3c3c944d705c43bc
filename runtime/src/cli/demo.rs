//! `weir demo`.

mod live;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Ended;
use super::run::run_pipeline;
use crate::app::{Options, Sharing, StateDir};
use crate::config::PipelineConfig;
use crate::project;

/// Run the customers pipeline on the sample data that comes with the program
///
/// Writes a pipeline file, its component, its table and the input into a directory, runs it there to the end of the
/// input and shows what became of every record. Run again, it goes on where it stood and finds nothing new. What you
/// change in that directory stays changed, and is taken over by the next run.
///
/// With --live, records go on coming until the rule was replaced twice and taken back once while they flow. Each time it tells
/// which plan each file is at, and where the records are that were read; then the rows are read back, and it shows whether a
/// record is missing or there twice.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The directory: one that is not there yet, an empty one, or that of a demo before [default: weir-demo, or weir-demo-live]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Begin anew: remove what an earlier demo left in the directory
    #[arg(long)]
    fresh: bool,
    /// Replace the rule while records flow, and prove that none is lost; always begins anew, and writes some 300 MB
    #[arg(long)]
    live: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

type Files = [(&'static str, &'static [u8])];

const COMPONENT: (&str, &[u8]) = ("customers.wasm", include_bytes!(env!("WEIR_CUSTOMERS_WASM")));
const CITIES: (&str, &[u8]) = ("us_cities.csv", include_bytes!("../../../data/us_cities.csv"));

/// What the demo consists of, by where it goes.
const FILES: [(&str, &[u8]); 5] = [
    ("pipeline.toml", include_bytes!("../../../transforms/customers/pipeline.toml")),
    COMPONENT,
    CITIES,
    ("input/customers.csv", include_bytes!("../../../data/customers.csv")),
    ("input/hostile.jsonl", include_bytes!("../../../data/hostile.jsonl")),
];

/// The same of the one with a stream.
const LIVE_FILES: [(&str, &[u8]); 3] = [("pipeline.toml", live::PIPELINE.as_bytes()), COMPONENT, CITIES];

/// Says that a directory is a demo's.
const MARK: &str = ".weir-demo";

/// What a run makes in the directory, the stream that it reads among it.
const MADE: [&str; 4] = ["state", "out", "db", "stream"];

pub(super) fn demo(args: &DemoArgs) -> Result<Ended> {
    let default = if args.live { "weir-demo-live" } else { "weir-demo" };
    let dir = args.dir.as_deref().unwrap_or(Path::new(default));
    ensure!(
        is_ours(dir) || project::is_free(dir),
        "`{}` is there already and not empty, and no demo made it: nothing was written; name another one with --dir",
        dir.display()
    );
    if args.fresh || args.live {
        remove(dir)?;
    }
    if args.live {
        write(dir, &LIVE_FILES)?;
        let stream = dir.join("stream");
        fs::create_dir_all(&stream).with_context(|| format!("making {}", stream.display()))?;
        return live::live(dir, args.json);
    }
    write(dir, &FILES)?;
    let config = PipelineConfig::load(&dir.join("pipeline.toml"))?;
    let options = Options {
        adopt: true,
        once: true,
        cache_dir: super::cache_dir(),
        compiler: super::this_program(),
        // It is over before anybody could look.
        admin: false,
    };
    let done = run_pipeline(&config, &options, false)?;
    if args.json {
        println!("{}", done.to_json());
    } else {
        done.print();
        print_next(dir);
    }
    Ok(done.ended())
}

fn is_ours(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

/// Removes what a demo wrote and made, in a directory that a demo made, while nothing runs there.
fn remove(dir: &Path) -> Result<()> {
    if !is_ours(dir) {
        return Ok(());
    }
    let _held = StateDir::open(&dir.join("state"), Sharing::Alone)?;
    for made in MADE {
        let path = dir.join(made);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    for (name, _) in FILES {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Writes what is not there yet: what somebody changed stays.
fn write(dir: &Path, files: &Files) -> Result<()> {
    if !is_ours(dir) {
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(dir.join(MARK), ""))
            .with_context(|| format!("making {}", dir.display()))?;
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        if path.exists() {
            continue;
        }
        let parent = path.parent().expect("it is in the directory");
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        // Under another name first: a source never sees half a file.
        let temp = path.with_extension("tmp");
        fs::write(&temp, bytes)
            .and_then(|()| fs::rename(&temp, &path))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn print_next(dir: &Path) {
    let dir = dir.display();
    println!();
    println!("{dir}/out/usa            American customers, typed, as Parquet");
    println!(
        "{dir}/db/customers.db    the same in a SQLite database, table customers_usa; but for a name with a NUL"
    );
    println!("                         byte, which SQL would cut: table weir_reject");
    println!("{dir}/out/other          the others, as they came, as Parquet");
    println!("{dir}/out/alerts         what is no customer at all, as JSON lines");
    println!("{dir}/out/dead_letters   what was rejected, and why, as JSON lines");
    println!();
    println!("Next:");
    println!("  1. see what went nowhere else, and why:  weir dlq ls {dir}/pipeline.toml");
    println!(
        "     one whole, and what became of it:     weir dlq show {dir}/pipeline.toml customers-raw/1/13"
    );
    println!(
        "                                           weir explain {dir}/pipeline.toml customers-raw/1/13"
    );
    println!("  2. ask the table, where sqlite3 is installed:");
    println!("     sqlite3 {dir}/db/customers.db \"select country, count(*), avg(age) from customers_usa\"");
    println!("  3. swap the rule:  weir deploy {dir}/pipeline.toml --set non_usa=alerts");
    println!("     put another CSV file into {dir}/input, run the demo again, and see which plan made what:");
    println!("     weir history {dir}/pipeline.toml; and see it done while records flow:  weir demo --live");
    println!("  4. write your own rule:  weir new my-rule");
}
