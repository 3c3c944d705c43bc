//! Which orders become rows: reads an order, cleans its types and picks its route. Change it to your own rule.
//!
//! A record comes as JSON, such as `{"id":"1001","amount":"19.90","currency":"EUR"}`; a row of a CSV file comes
//! the same way, with every value a text.

use weir_sdk::json::Object;
use weir_sdk::{
    Date, Decimal, Description, Emitter, Reason, Record, Records, Rows, Settings, Tables, Text,
    Transform, clean,
};

// What comes out: a struct is a row, its fields are the columns, `Option` makes one nullable. The comments become
// the documentation of the route and its columns.
weir_sdk::row! {
    /// Orders, cleaned and typed.
    pub struct Order<'a> {
        /// The order's number, as it came.
        pub id: &'a str,
        pub customer: Option<&'a str>,
        /// At most 12 digits, 2 of them after the point; never rounded.
        #[annotate("unit", "the currency of the setting")]
        pub amount: Decimal<12, 2>,
        pub ordered_at: Option<Date>,
    }
}

// Where records can go. A pipeline binds each route to files, tables or topics by its name.
const ORDERS: Rows<Order> = Rows::route("orders");
const REST: Records = Records::route("rest", "Other records, byte for byte as they came.");

// Why a record can be rejected. Rejects are not lost: they go to the dead letters, with the reason and the value.
const BAD_VALUE: Reason = Reason::new("bad-value", "a value is not of the type of its column");

// What a pipeline can set.
const CURRENCY: Text = Text::new("currency", "EUR", "Orders in this currency become rows");

// What is read of the JSON object; whatever else is in it is skipped.
const ORDER: Object<5> = Object::with(["id", "customer", "amount", "currency", "ordered_at"]);

/// What stays from one record to the next: settings and tables only.
#[derive(Debug)]
pub struct Orders {
    currency: String,
}

weir_sdk::export!(Orders);

impl Transform for Orders {
    /// Lists what is declared above. What is used and not listed fails the batch.
    fn describe(_: &Settings) -> Result<Description, String> {
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let described = Description::new(name, version, env!("CARGO_PKG_DESCRIPTION"))
            .settings(&[&CURRENCY])
            .routes(&[&ORDERS, &REST])
            .reasons(&[BAD_VALUE]);
        Ok(described)
    }

    /// Called once, before the first record. An error here keeps the pipeline from starting.
    fn init(settings: &Settings, _: &Tables) -> Result<Self, String> {
        let currency = settings.get(&CURRENCY)?;
        Ok(Self { currency })
    }

    /// Decides one record: it is routed, rejected or dropped. It can see nothing but the record and `self`.
    fn record(&self, record: &Record<'_>, out: &mut Emitter<'_>) {
        let Ok([id, customer, amount, currency, ordered_at]) = record.json(&ORDER) else {
            return out.record(&REST);
        };
        if clean::text(&currency) != Ok(Some(&self.currency)) {
            return out.record(&REST);
        }
        // What is missing, null or blank is `None`; what is not exactly of the type rejects the record.
        let id = out.clean(&id, clean::text_or_integer, &BAD_VALUE);
        let customer = out.clean(&customer, clean::text, &BAD_VALUE);
        let amount = out.clean(&amount, clean::decimal, &BAD_VALUE);
        let ordered_at = out.clean(&ordered_at, clean::date, &BAD_VALUE);
        match (id, amount) {
            _ if out.is_rejected() => {}
            (Some(id), Some(amount)) => {
                out.row(
                    &ORDERS,
                    Order {
                        id,
                        customer,
                        amount,
                        ordered_at,
                    },
                );
            }
            _ => out.record(&REST),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_sdk::Instance;
    use weir_sdk::testing::{Fate, Scalar, fates};

    use super::*;

    /// What becomes of one record where the setting is `currency`.
    fn fate(currency: &str, record: &str) -> Fate {
        let settings = vec![("currency".to_owned(), currency.to_owned())];
        let instance = Instance::<Orders>::init(settings, vec![]).unwrap();
        let mut fates = fates(&instance, [Some(record.as_bytes())]).unwrap();
        fates.remove(0)
    }

    fn check_route(currency: &str, record: &str, expected: &str) {
        match fate(currency, record) {
            Fate::Routed(rows) => assert_eq!(rows[0].route, expected, "{record}"),
            other => panic!("{record}: {other:?}"),
        }
    }

    #[test]
    fn an_order_becomes_a_typed_row() {
        let order = r#"{"id":"7","amount":"19.9","currency":"EUR","ordered_at":"1970-01-02"}"#;
        let Fate::Routed(rows) = fate("EUR", order) else {
            panic!("not routed");
        };
        let values: Vec<&Scalar> = rows[0].fields.iter().map(|(_, value)| value).collect();
        let id = Scalar::Text("7".to_owned());
        let (amount, day) = (Scalar::Decimal(1990), Scalar::Integer(1));
        assert_eq!(values, [&id, &Scalar::Null, &amount, &day]);
    }

    #[test]
    fn the_setting_picks_the_currency() {
        let order = r#"{"id":"7","amount":"12","currency":"USD"}"#;
        check_route("USD", order, "orders");
        check_route("EUR", order, "rest");
    }

    #[test]
    fn what_is_no_order_goes_on_as_it_came() {
        check_route("EUR", "no JSON", "rest");
        check_route("EUR", r#"{"id":"7","currency":"EUR"}"#, "rest");
        check_route("EUR", r#"{"amount":"12","currency":"EUR"}"#, "rest");
    }

    #[test]
    fn a_wrong_type_is_a_reject_that_tells_the_value() {
        let order = r#"{"id":"7","amount":"twelve","currency":"EUR"}"#;
        let reason = ("bad-value".to_owned(), Some(r#""twelve""#.to_owned()));
        assert_eq!(fate("EUR", order), Fate::Rejected(vec![reason]));
    }
}
