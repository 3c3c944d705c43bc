//! Which customers are American: reads a customer, cleans its types and picks its route. Never guesses a value.

use weir_sdk::clean::{self, Wrong};
use weir_sdk::json::{Object, Value};
use weir_sdk::{
    Case, Choice, DataType, Description, Emitter, Lookup, Reason, Record, Records, Rows, Settings, Table,
    TableColumn, Tables, Transform,
};

weir_sdk::row! {
    /// Customers in a city of the USA, cleaned and typed.
    pub struct Usa<'a> {
        /// As it came, trimmed; text, because nobody counts with it.
        pub id: &'a str,
        pub first_name: Option<&'a str>,
        pub last_name: Option<&'a str>,
        #[annotate("unit", "years")]
        pub age: Option<i64>,
        pub email: Option<&'a str>,
        /// Always `USA`.
        pub country: &'a str,
    }
}

const USA: Rows<Usa> = Rows::route("usa");
const ALERTS: Records = Records::route("alerts", "What is no JSON object, or tells no location.");
const OTHER: Records = Records::route("other", "Customers who are not American.");

const ID_NOT_TEXT: Reason = Reason::of("id", "id-not-text", "the id is neither text nor a whole number");
const NAME_NOT_TEXT: Reason = Reason::new("name-not-text", "the first or last name is not a text");
const EMAIL_NOT_TEXT: Reason = Reason::of("email", "email-not-text", "the email address is not a text");
const LOCATION_NOT_TEXT: Reason = Reason::of("location", "location-not-text", "the location is not a text");
const AGE_NOT_INTEGER: Reason = Reason::of("age", "age-not-integer", "the age is not a whole number");
const AGE_OUT_OF_RANGE: Reason = Reason::of("age", "age-out-of-range", "the age is not from 0 to 150");

const CITY: TableColumn = TableColumn::new("city", DataType::Utf8, "The name, in upper or lower case");
const US_CITIES: Table = Table::required("us_cities", &[CITY], "The cities of the USA");

const NON_USA: Choice<Option<Records>> = Choice::new(
    "non_usa",
    &[("other", Some(OTHER)), ("alerts", Some(ALERTS)), ("drop", None)],
    "Where customers go who are not American",
);
const ON_BAD_AGE: Choice<bool> = Choice::new(
    "on_bad_age",
    &[("reject", true), ("null", false)],
    "What becomes of an American whose age is not a number of years",
);
const CUSTOMER: Object<6> = Object::with(["id", "first_name", "last_name", "email", "age", "location"]);

#[derive(Debug)]
pub struct Customers {
    cities: Lookup,
    non_usa: Option<Records>,
    rejects_bad_age: bool,
}

weir_sdk::export!(Customers);

impl Transform for Customers {
    fn describe(_: &Settings) -> Result<Description, String> {
        Ok(Description::new("customers", env!("CARGO_PKG_VERSION"), "American customers as typed rows")
            .settings(&[&NON_USA, &ON_BAD_AGE])
            .tables(&[&US_CITIES])
            .routes(&[&USA, &ALERTS, &OTHER])
            .reasons(&[ID_NOT_TEXT, NAME_NOT_TEXT, EMAIL_NOT_TEXT, LOCATION_NOT_TEXT])
            .reasons(&[AGE_NOT_INTEGER, AGE_OUT_OF_RANGE]))
    }

    fn init(settings: &Settings, tables: &Tables) -> Result<Self, String> {
        let cities = tables.get(&US_CITIES)?.lookup("city", Case::Ignored)?;
        Ok(Self { cities, non_usa: settings.get(&NON_USA)?, rejects_bad_age: settings.get(&ON_BAD_AGE)? })
    }

    fn record(&self, record: &Record<'_>, out: &mut Emitter<'_>) {
        let read = record.json(&CUSTOMER);
        let Ok([id, first_name, last_name, email, age, location]) = &read else {
            return out.record(&ALERTS);
        };
        let place = match clean::text(location) {
            Ok(Some(place)) => place,
            Ok(None) => return out.record(&ALERTS),
            Err(_) => return out.reject_with(&LOCATION_NOT_TEXT, location),
        };
        if !self.is_american(place) || clean::text(id) == Ok(None) {
            return match self.non_usa {
                Some(route) => out.record(&route),
                None => out.drop_record(),
            };
        }
        let id = out.clean(id, clean::text_or_integer, &ID_NOT_TEXT);
        let first_name = out.clean(first_name, clean::text, &NAME_NOT_TEXT);
        let last_name = out.clean(last_name, clean::text, &NAME_NOT_TEXT);
        let email = out.clean(email, clean::text, &EMAIL_NOT_TEXT);
        let age = self.age(age, out);
        if let (Some(id), false) = (id, out.is_rejected()) {
            out.row(&USA, Usa { id, first_name, last_name, age, email, country: "USA" });
        }
    }
}

impl Customers {
    fn is_american(&self, location: &str) -> bool {
        self.cities.contains(location)
            || clean::before(location, ',').is_some_and(|city| self.cities.contains(city))
    }

    fn age(&self, age: &Value<'_>, out: &mut Emitter<'_>) -> Option<i64> {
        let reason = match clean::integer(age) {
            Ok(None) => return None,
            Ok(Some(years @ 0..=150)) => return Some(years),
            Ok(Some(_)) | Err(Wrong::OutOfRange) => &AGE_OUT_OF_RANGE,
            Err(_) => &AGE_NOT_INTEGER,
        };
        if self.rejects_bad_age {
            out.reject_with(reason, age);
        }
        None
    }
}
