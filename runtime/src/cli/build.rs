//! `weir build`: a project becomes a component. What cargo says goes to stderr, the answer to stdout.

use std::path::PathBuf;

use super::{Ended, sandbox_options, screen};
use crate::description::RouteContent;
use crate::project::cargo::TARGET;
use crate::project::{self, Announce, Built};
use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// Build a project to a component, and check that it loads
///
/// A Rust project is built with cargo in its release profile; the target wasm32-wasip2 is added to the toolchain
/// where it is missing. The component is loaded in the sandbox and asked what it is before it takes the place of
/// the last one. What the sandbox compiled for that, within the limits of every component, is kept: the other
/// commands of this user do not compile it again.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// The project's directory
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where the component goes [default: NAME.wasm in the project's directory]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn build(args: &BuildArgs) -> Result<Ended> {
    match project::build(&args.dir, args.output.as_deref(), sandbox_options(), &mut announce) {
        Ok(built) if args.json => println!("{}", as_json(&built)),
        Ok(built) => print!("{}", told(&built)),
        Err(e) if e.is_of_project() => {
            let (text, ..) = screen::told(&e.into());
            eprintln!("error: {text}");
            if args.json {
                println!("{}", json!({ "built": false, "error": text }));
            }
            return Ok(Ended::No);
        }
        Err(e) => return Err(e.into()),
    }
    Ok(Ended::Done)
}

fn announce(what: Announce) {
    match what {
        Announce::AddsTarget => {
            eprintln!("The Rust toolchain lacks the target {TARGET}: adding it with rustup")
        }
        Announce::Ignores(name) => eprintln!(
            "{name} is not passed on: it is for this machine. Flags for {TARGET} go into .cargo/config.toml"
        ),
    }
}

fn as_json(built: &Built) -> Value {
    let imports = built.transform.imports().iter();
    let imports = imports.map(|i| json!({ "interface": i.interface, "answer": i.answer }));
    json!({
        "built": true,
        "component": built.path.display().to_string(),
        "bytes": built.bytes,
        "digest": built.transform.digest().as_ref(),
        "name": built.description.name,
        "version": built.description.version,
        "routes": built.description.routes.iter().map(|route| route.name.as_ref()).collect::<Vec<_>>(),
        "imports": imports.collect::<Vec<_>>(),
    })
}

fn told(built: &Built) -> String {
    let Built { path, bytes, transform, description } = built;
    let path = path.strip_prefix(".").unwrap_or(path).display();
    let (name, version, digest) = (&description.name, &description.version, transform.digest());
    let routes: Vec<_> =
        description.routes.iter().map(|r| format!("{} ({})", r.name, content(&r.content))).collect();
    format!(
        "Built {name} {version}: {path}, {kib} KiB\n  \
           digest  {digest}\n  \
           routes  {routes}\n  \
           imports {imports}\n",
        kib = bytes.div_ceil(1024),
        routes = routes.join(", "),
        imports = imports(built),
    )
}

fn content(content: &RouteContent) -> String {
    match content {
        RouteContent::Rows(fields) => format!("rows of {} columns", fields.len()),
        RouteContent::Records => "records".to_owned(),
    }
}

/// A table of what the component imports and what it gets.
fn imports(built: &Built) -> String {
    let imports = built.transform.imports();
    if imports.is_empty() {
        return "nothing".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for import in imports {
        table.add_row([format!("    {}", import.interface), import.answer.to_owned()]);
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}, all answered inside the sandbox\n{}", imports.len(), lines.join("\n"))
}
