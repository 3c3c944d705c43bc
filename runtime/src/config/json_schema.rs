//! The schema of the pipeline file for editors: the one that the file is held against, without what only this machine
//! or no JSON schema knows. It is made from the comments in `file.rs`, never by hand.

use serde_json::{Map, Value as Json};

use super::schema::SCHEMA;

/// A JSON Schema, draft 2020-12. Every key has a description; names and quantities are checked more strictly when the
/// file is read.
pub fn json_schema() -> Json {
    let mut schema = SCHEMA.clone();
    schema["title"] = "Weir pipeline file".into();
    walk(&mut schema, &mut without_defaults_of_this_machine);
    schema
}

/// A table's default says again what its keys say, and counts the processors of this machine.
fn without_defaults_of_this_machine(schema: &mut Map<String, Json>) {
    let numeric = schema.get("type").is_some_and(|kind| kind == "integer");
    if schema.get("default").is_some_and(|default| default.is_object() || numeric && default.is_string()) {
        schema.remove("default");
    }
}

/// Calls `change` for every schema in `schema`, the outermost first.
fn walk(schema: &mut Json, change: &mut impl FnMut(&mut Map<String, Json>)) {
    let Some(schema) = schema.as_object_mut() else { return };
    change(schema);
    for (keyword, below) in schema {
        match (keyword.as_str(), below) {
            ("properties", Json::Object(keys)) => keys.values_mut().for_each(|key| walk(key, change)),
            ("additionalProperties" | "items", below) => walk(below, change),
            ("anyOf" | "oneOf", Json::Array(several)) => several.iter_mut().for_each(|one| walk(one, change)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `value` breaks of `schema`. Knows the keywords that the schema uses, and no other.
    fn broken(schema: &Json, value: &Json) -> Result<(), String> {
        let Some(keywords) = schema.as_object() else {
            return if schema == &Json::Bool(false) {
                Err(format!("{value} is not expected"))
            } else {
                Ok(())
            };
        };
        for (keyword, says) in keywords {
            let list = || says.as_array().into_iter().flatten();
            let matching = || list().filter(|one| broken(one, value).is_ok()).count();
            let holds = match keyword.as_str() {
                "$schema" | "title" | "description" | "default" | "format" => true,
                "type" => list().chain([says]).any(|kind| kind.as_str().is_some_and(|kind| is(kind, value))),
                "const" => says == value,
                "anyOf" => matching() > 0,
                "oneOf" => matching() == 1,
                "minimum" => value.as_f64().is_none_or(|n| Some(n) >= says.as_f64()),
                "maximum" => value.as_f64().is_none_or(|n| Some(n) <= says.as_f64()),
                "minLength" => {
                    value.as_str().is_none_or(|text| Some(text.chars().count() as u64) >= says.as_u64())
                }
                "maxLength" => {
                    value.as_str().is_none_or(|text| Some(text.chars().count() as u64) <= says.as_u64())
                }
                "minProperties" => {
                    value.as_object().is_none_or(|table| Some(table.len() as u64) >= says.as_u64())
                }
                "required" => value
                    .as_object()
                    .is_none_or(|table| list().all(|key| table.contains_key(key.as_str().unwrap()))),
                "items" => value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .try_for_each(|one| broken(says, one))
                    .map(|()| true)?,
                "properties" | "additionalProperties" => true,
                other => return Err(format!("the keyword {other} is new")),
            };
            if !holds {
                return Err(format!("{value} breaks {keyword}: {says}"));
            }
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            let own = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
            own.map_or(Ok(()), |own| broken(own, value)).map_err(|error| format!("{key}: {error}"))?;
        }
        Ok(())
    }

    fn is(kind: &str, value: &Json) -> bool {
        match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            _ => false,
        }
    }

    fn shipped() -> Json {
        let text = include_str!("../../../transforms/customers/pipeline.toml");
        toml::from_str(text).expect("the shipped file is TOML")
    }

    #[test]
    fn the_shipped_pipeline_file_is_what_the_schema_asks_for() {
        assert_eq!(broken(&json_schema(), &shipped()), Ok(()));
    }

    #[test]
    fn what_the_program_refuses_is_refused_by_the_schema() {
        let refused = |change: &dyn Fn(&mut Json)| {
            let mut file = shipped();
            change(&mut file);
            broken(&json_schema(), &file).expect_err("it is refused")
        };
        assert!(refused(&|file| file["limits"]["memroy"] = "1 MiB".into()).contains("memroy"));
        assert!(refused(&|file| drop(file.as_object_mut().unwrap().remove("source"))).contains("required"));
        assert!(refused(&|file| file["source"]["files"]["format"] = "xml".into()).contains("xml"));
        assert!(refused(&|file| file["sinks"]["lake"] = serde_json::json!({})).contains("minProperties"));
        assert!(refused(&|file| file["pipeline"]["name"] = 1.into()).contains("type"));
    }

    #[test]
    fn every_key_is_described_wherever_it_stands_and_nothing_is_of_this_machine() {
        let mut schema = json_schema();
        let mut n_keys = 0;
        walk(&mut schema, &mut |schema| {
            for (key, below) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
                let described = below["description"].is_string() || below["properties"].is_object();
                assert!(described, "{key} has no description");
                n_keys += 1;
            }
            assert!(!schema.get("default").is_some_and(Json::is_object), "{schema:?}");
        });
        assert!(n_keys > 40, "{n_keys}");
        assert!(json_schema()["$schema"].as_str().is_some_and(|draft| draft.contains("2020-12")));
        assert_eq!(json_schema()["properties"]["limits"]["properties"]["workers"].get("default"), None);
    }
}
