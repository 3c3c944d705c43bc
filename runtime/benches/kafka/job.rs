//! The customers of the job: invented, the same ones every time, with what must become of each. It sends nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Of these many records, which routes must have how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) usa: u64,
    pub(crate) alerts: u64,
    pub(crate) other: u64,
}

impl Counts {
    /// Of each route, what `count` says of it.
    pub(crate) fn of(mut count: impl FnMut(&str) -> u64) -> Self {
        let [usa, alerts, other] = ROUTES.map(&mut count);
        Self { usa, alerts, other }
    }

    fn add(&mut self, route: Route) {
        match route {
            Route::Usa => self.usa += 1,
            Route::Alerts => self.alerts += 1,
            Route::Other => self.other += 1,
        }
    }
}

/// The routes of the transform.
pub(crate) const ROUTES: [&str; 3] = ["usa", "alerts", "other"];

#[derive(Clone, Copy, Debug)]
enum Route {
    Usa,
    Alerts,
    Other,
}

const CITIES: usize = 18_853;
const STATES: [&str; 8] = ["ID", "CA", "NY", "TX", "WA", "OR", "FL", "OH"];
const CONSONANTS: &[u8] = b"bcdfghklmnprstvw";
const VOWELS: &[u8] = b"aeiou";

/// What customers are made of.
pub(crate) struct Job {
    cities: Vec<String>,
    foreign: Vec<String>,
    names: Vec<String>,
    domains: Vec<String>,
}

impl Job {
    pub(crate) fn new() -> Self {
        let mut random = Random(1);
        let mut cities = BTreeSet::new();
        while cities.len() < CITIES {
            let two = random.below(4) == 0;
            let city = random.word(2, 4);
            cities.insert(if two { format!("{city} {}", random.word(2, 2)) } else { city });
        }
        let mut words = |n, from, to| (0..n).map(|_| random.word(from, to)).collect::<Vec<_>>();
        let names = words(1_024, 2, 4);
        let domains = words(2_048, 3, 5).iter().map(|word| word.to_lowercase()).collect();
        // No city of the table begins so.
        let foreign = words(4_096, 2, 4).iter().map(|word| format!("X{}", word.to_lowercase())).collect();
        Self { cities: cities.into_iter().collect(), foreign, names, domains }
    }

    /// The reference table.
    pub(crate) fn cities_csv(&self) -> String {
        let lines = self.cities.iter().map(|city| format!("{}\n", city.to_uppercase()));
        "city\n".to_owned() + &lines.collect::<String>()
    }

    /// Hands the first `n` customers to `each`, and says what must become of them.
    pub(crate) fn customers(&self, n: u64, mut each: impl FnMut(u64, &str)) -> Counts {
        let (mut random, mut counts, mut record) = (Random(2), Counts::default(), String::new());
        for i in 0..n {
            record.clear();
            counts.add(self.customer(i, &mut random, &mut record));
            each(i, &record);
        }
        counts
    }

    /// An American with this id.
    pub(crate) fn american(&self, id: &str, random: &mut Random) -> String {
        let mut record = String::new();
        let city = format!("\"{}, {}\"", random.one_of(&self.cities), random.one_of(&STATES));
        self.write(&format!("\"{id}\""), Some(&city), random, &mut record);
        record
    }

    /// Half are American, 5 % broken or without a place, 2 % American without an id, the others foreign.
    fn customer(&self, i: u64, random: &mut Random, record: &mut String) -> Route {
        let id = format!("\"{i}\"");
        match random.below(200) {
            0..100 => {
                let (city, state) = (random.one_of(&self.cities), random.one_of(&STATES));
                let place = match random.below(4) {
                    0 => format!("\"{city}\""),
                    1 => format!("\" {city} , {state}\""),
                    _ => format!("\"{city}, {state}\""),
                };
                self.write(&id, Some(&place), random, record);
                Route::Usa
            }
            100..105 => {
                let nowhere = [None, Some("null"), Some("\"\"")];
                self.write(&id, *random.one_of(&nowhere), random, record);
                Route::Alerts
            }
            105..110 => {
                self.write(&id, Some("\"Xanadu\""), random, record);
                break_json(random, record);
                Route::Alerts
            }
            110..114 => {
                let place = format!("\"{}, ID\"", random.one_of(&self.cities));
                self.write("null", Some(&place), random, record);
                Route::Other
            }
            _ => {
                let (city, country) = (random.one_of(&self.foreign), random.one_of(&self.names));
                let place = format!("\"{city}, {country}\"");
                self.write(&id, Some(&place), random, record);
                Route::Other
            }
        }
    }

    fn write(&self, id: &str, place: Option<&str>, random: &mut Random, record: &mut String) {
        let (first, last) = (random.one_of(&self.names), random.one_of(&self.names));
        let (domain, age) = (random.one_of(&self.domains), 18 + random.below(73));
        let (first_lower, last_lower) = (first.to_lowercase(), last.to_lowercase());
        write!(
            record,
            r#"{{"id":{id},"first_name":"{first}","last_name":"{last}","email":"{first_lower}.{last_lower}@{domain}.org","age":"{age}""#
        )
        .expect("memory takes text");
        if let Some(place) = place {
            record.push_str(",\"location\":");
            record.push_str(place);
        }
        record.push('}');
    }
}

/// Cut off inside a text, without its colons, or no JSON to begin with.
fn break_json(random: &mut Random, record: &mut String) {
    match random.below(3) {
        0 => record.truncate(record.len() - 4),
        1 => *record = record.replace("\":", "\" "),
        _ => record.insert_str(0, "customer "),
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % n as u64) as usize
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Of so many syllables, with a capital letter.
    fn word(&mut self, from: usize, to: usize) -> String {
        let syllables = from + self.below(to - from + 1);
        let letters = (0..syllables).flat_map(|_| [*self.one_of(CONSONANTS), *self.one_of(VOWELS)]);
        let mut word: Vec<u8> = letters.collect();
        word[0].make_ascii_uppercase();
        String::from_utf8(word).expect("letters are text")
    }
}
