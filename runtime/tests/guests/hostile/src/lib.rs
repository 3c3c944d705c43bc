//! A transform that misbehaves on request: what a record's value names is done to the batch it is in. Any other
//! value goes to route `ok` as a row. It never misbehaves unasked, and under the setting `when = "never"` not at all. Under
//! `when = "slow"` it does what it does under `never`, and takes its time for every record. Under `wide`, `renamed` and
//! `retyped` it does that without taking its time, and its rows have a column more, or one of another name or type.
#![cfg(target_family = "wasm")]

wit_bindgen::generate!({ path: "../../../../wit", world: "transform-component" });

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use exports::weir::transform::transform::*;

/// What no transform may keep: how many records it was asked to count.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Where it misbehaves, as the settings say.
static WHEN: OnceLock<String> = OnceLock::new();

struct Hostile;
export!(Hostile);

impl Guest for Hostile {
    fn describe(settings: Vec<(String, String)>) -> Result<Description, String> {
        let when = when(&settings);
        match when.as_str() {
            "describe-loop" => spin(),
            "describe-err" => return Err("described badly on request".into()),
            _ => {}
        }
        let name = match when.as_str() {
            "bad-name" => "../x",
            "renamed" => "text",
            _ => "value",
        };
        let offset = if when == "retyped" { DataType::Double } else { DataType::Int64 };
        let mut fields = vec![field(name, DataType::Utf8), field("offset", offset)];
        if when == "wide" {
            fields.push(Field { nullable: true, ..field("twice", DataType::Int64) });
        }
        Ok(Description {
            name: "hostile".into(),
            version: "1".into(),
            doc: String::new(),
            needs: Envelope::OFFSETS,
            settings: vec![Setting {
                key: "when".into(),
                default_value: Some("process".into()),
                doc: "where it misbehaves".into(),
                annotations: vec![],
            }],
            tables: vec![],
            routes: vec![route("ok", RouteContent::Rows(fields)), route("raw", RouteContent::Records)],
            reasons: vec![Reason {
                code: "refused".into(),
                field: None,
                message: "refused on request".into(),
                annotations: vec![],
            }],
            annotations: vec![],
        })
    }

    fn init(settings: Vec<(String, String)>, _tables: Vec<Table>) -> Result<(), String> {
        match WHEN.get_or_init(|| when(&settings)).as_str() {
            "init-err" => Err("started badly on request".into()),
            "init-trap" => panic!("started badly on request"),
            "init-loop" => spin(),
            _ => Ok(()),
        }
    }

    fn process(input: Batch) -> Result<Output, String> {
        let offsets = input.offsets.ok_or("the offsets were asked for")?;
        let mut made = Made::default();
        for row in 0..input.count {
            let (start, end) = (input.values.offsets[row as usize], input.values.offsets[row as usize + 1]);
            let value =
                String::from_utf8_lossy(&input.values.data[start as usize..end as usize]).into_owned();
            made.take(row, &value, offsets[row as usize])?;
        }
        Ok(made.finish())
    }
}

fn work(steps: u64) {
    _ = (0..steps).fold(1, |n, i| std::hint::black_box(n) ^ i);
}

fn when(settings: &[(String, String)]) -> String {
    settings.iter().find(|(key, _)| key == "when").map(|(_, value)| value.clone()).unwrap_or_default()
}

fn field(name: &str, data_type: DataType) -> Field {
    Field { name: name.into(), data_type, nullable: false, doc: String::new(), annotations: vec![] }
}

fn route(name: &str, content: RouteContent) -> Route {
    Route { name: name.into(), content, doc: String::new(), annotations: vec![] }
}

#[derive(Default)]
struct Made {
    rows: Vec<u32>,
    ends: Vec<u32>,
    data: Vec<u8>,
    offsets: Vec<i64>,
    raw: Vec<u32>,
    rejected: Vec<u32>,
    dropped: Vec<u32>,
    lies: Vec<String>,
}

impl Made {
    fn take(&mut self, row: u32, value: &str, offset: i64) -> Result<(), String> {
        match WHEN.get().map(String::as_str) {
            Some("never" | "wide" | "renamed" | "retyped") => return Ok(self.row(row, value, offset)),
            Some("slow") => {
                work(6_000_000);
                return Ok(self.row(row, value, offset));
            }
            _ => {}
        }
        match value {
            "loop" => spin(),
            "long" => work(50_000_000),
            "churn" => churn(),
            "recurse" => drop(recurse(1)),
            "eat" => eat(),
            "flood" => (0..5_000).for_each(|i| eprintln!("flood {i} \u{1b}[31m")),
            "panic" => panic!("panicked on request"),
            "err-long" => return Err("x".repeat(1 << 20)),
            "nan" => return Ok(self.row(row, &nan(), offset)),
            "handles" => leak(),
            "err" => return Err("failed on request".into()),
            "socket" => drop(std::net::TcpStream::connect("127.0.0.1:1")),
            "exit" => std::process::exit(3),
            "file" => drop(std::fs::read("/etc/hostname").expect("there are no files")),
            "lose" => return Ok(()),
            "raw" => return Ok(self.raw.push(row)),
            "reject" => return Ok(self.rejected.push(row)),
            "drop" => return Ok(self.dropped.push(row)),
            "twice" => self.dropped.push(row),
            "count" => return Ok(self.row(row, &COUNT.fetch_add(1, Ordering::Relaxed).to_string(), offset)),
            "clock" => return Ok(self.row(row, &format!("{:?}", std::time::SystemTime::now()), offset)),
            "many" => return Ok((0..600_000).for_each(|_| self.row(row, "0123456789", offset))),
            "route" | "short-column" | "bad-utf8" | "bad-offsets" => self.lies.push(value.into()),
            _ => {}
        }
        self.row(row, value, offset);
        Ok(())
    }

    fn row(&mut self, row: u32, value: &str, offset: i64) {
        self.rows.push(row);
        self.data.extend_from_slice(value.as_bytes());
        self.ends.push(self.data.len() as u32);
        self.offsets.push(offset);
    }

    fn finish(mut self) -> Output {
        self.ends.insert(0, 0);
        let mut route = 0;
        for lie in std::mem::take(&mut self.lies) {
            match lie.as_str() {
                "route" => route = 77,
                "short-column" => drop(self.offsets.pop()),
                "bad-utf8" => self.data[0] = 0xff,
                _ => self.ends[0] = 9,
            }
        }
        let values = VarBytes { offsets: self.ends, data: self.data, validity: vec![] };
        let none = || VarBytes { offsets: vec![], data: vec![], validity: vec![] };
        let column = |data| Column { data, validity: vec![] };
        let when = WHEN.get().map(String::as_str);
        let twice = self.offsets.iter().map(|offset| 2 * offset).collect();
        let offsets = match when {
            Some("retyped") => ColumnData::F64s(self.offsets.iter().map(|offset| *offset as f64).collect()),
            _ => ColumnData::S64s(self.offsets),
        };
        let mut columns = vec![column(ColumnData::VarBytes(values)), column(offsets)];
        if when == Some("wide") {
            columns.push(column(ColumnData::S64s(twice)));
        }
        let part = |route, rows, columns| RouteBatch {
            route,
            rows,
            columns,
            keys: None,
            headers: None,
            deletes: vec![],
        };
        Output {
            routes: vec![part(route, self.rows, columns), part(1, self.raw, vec![])],
            rejects: Rejects { reasons: vec![0; self.rejected.len()], rows: self.rejected, details: none() },
            dropped: self.dropped,
        }
    }
}

fn spin<T>() -> T {
    loop {
        std::hint::black_box(());
    }
}

/// What arithmetic makes of a NaN with other bits in it.
fn nan() -> String {
    let odd = std::hint::black_box(f64::from_bits(0x7ff0_0000_dead_beef));
    format!("{:x}", (odd * std::hint::black_box(2.0)).to_bits())
}

/// Asks for the same handle over and over and drops none.
fn leak() {
    loop {
        std::mem::forget(wasip2::cli::stderr::get_stderr());
    }
}

/// Few instructions that each take long.
fn churn() {
    let mut all = vec![1_u8; 32 << 20];
    loop {
        std::hint::black_box(&mut all).copy_within(0..16 << 20, 16 << 20);
    }
}

#[expect(unconditional_recursion, reason = "that is its purpose")]
fn recurse(n: u64) -> u64 {
    let kept = std::hint::black_box([n; 64]);
    std::hint::black_box(recurse(kept[3] + 1)) + kept[5]
}

fn eat() {
    let mut all = Vec::new();
    loop {
        all.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}
