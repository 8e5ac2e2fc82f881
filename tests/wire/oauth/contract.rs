//! The OpenAPI document, and whether an answer is as it says. Every answer that a test of this module
//! gets is held against it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;

use crate::oauth::call::Answer;

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../src/server/oauth/openapi.json")).expect("JSON")
});

/// What a `$ref` points to, or the value itself.
pub fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref") {
        Some(pointer) => {
            let pointer = pointer.as_str().and_then(|text| text.strip_prefix('#'));
            let pointer = pointer.expect("only parts of the document itself are referred to");
            DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not there"))
        }
        None => value,
    }
}

/// The methods of a path, as an `Allow` header has them; none for a path that is not there.
pub fn methods(path: &str) -> BTreeSet<String> {
    let item = DOCUMENT["paths"].get(path).map(resolved);
    let operations = item.and_then(Value::as_object).into_iter().flatten();
    let mut methods: BTreeSet<String> = operations.map(|(name, _)| name.to_uppercase()).collect();
    if methods.contains("GET") {
        methods.insert("HEAD".to_owned());
    }
    methods
}

/// Holds an answer against the document.
#[track_caller]
pub fn assert_described(method: &str, path: &str, answer: &Answer) {
    let path = path.split('?').next().expect("the part before a query");
    let allowed = methods(path);
    if allowed.is_empty() {
        assert_eq!(answer.status, 404, "{method} {path} is not described: {answer:?}");
        return;
    }
    if !allowed.contains(method) {
        assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
        let allow = answer.header("allow").expect("405 comes with Allow");
        let allow: BTreeSet<String> = allow.split(',').map(|name| name.trim().to_owned()).collect();
        assert_eq!(allow, allowed, "{path}");
        return;
    }
    let described = if method == "HEAD" { "get" } else { &method.to_lowercase() };
    let operation = &resolved(&DOCUMENT["paths"][path])[described];
    let response = operation["responses"].get(answer.status.to_string());
    let response = response.unwrap_or_else(|| panic!("{method} {path} is not to do {answer:?}"));
    let response = resolved(response);
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let header = resolved(header);
        let value = answer.header(&name.to_lowercase());
        let value = value.unwrap_or_else(|| panic!("{method} {path} lacks {name}: {answer:?}"));
        assert_fits(&header["schema"], &Value::from(value));
    }
    if method == "HEAD" {
        assert!(answer.body.is_empty(), "{answer:?}");
        return;
    }
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        assert!(answer.body.is_empty(), "{method} {path} has no body: {answer:?}");
        return;
    };
    let content_type = answer.header("content-type").expect("a body has a type");
    let media = content.get(content_type).unwrap_or_else(|| panic!("not {content_type}"));
    let value = match content_type {
        "text/plain; charset=utf-8" => Value::from(answer.body.as_str()),
        _ => serde_json::from_str(&answer.body).expect("JSON"),
    };
    assert_fits(&media["schema"], &value);
}

#[track_caller]
fn assert_fits(schema: &'static Value, value: &Value) {
    if let Err(problem) = fits(schema, value) {
        panic!("{problem}: {value}");
    }
}

/// As much of JSON Schema as the document uses.
fn fits(schema: &'static Value, value: &Value) -> Result<(), String> {
    let schema = resolved(schema);
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let holds = match keyword.as_str() {
            "type" => match rule.as_str().expect("one type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "boolean" => value.is_boolean(),
                other => panic!("the type {other} is not known here"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().expect("an array").contains(value),
            "required" => rule
                .as_array()
                .into_iter()
                .flatten()
                .all(|name| value.get(name.as_str().expect("a name")).is_some()),
            "properties" => {
                for (name, part) in rule.as_object().into_iter().flatten() {
                    if let Some(member) = value.get(name) {
                        fits(part, member)?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().expect("properties");
                value
                    .as_object()
                    .is_some_and(|object| object.keys().all(|name| known.contains_key(name)))
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(rule, item)?;
                }
                true
            }
            "oneOf" => {
                let all = rule.as_array().into_iter().flatten();
                all.filter(|one| fits(one, value).is_ok()).count() == 1
            }
            "pattern" => {
                assert_eq!(rule, "^[0-9]+$", "the only pattern that is known here");
                value.as_str().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            }
            "description" | "format" => true,
            other => panic!("the keyword {other} is not known here"),
        };
        if !holds {
            return Err(format!("it does not fit {keyword} {rule}"));
        }
    }
    Ok(())
}
