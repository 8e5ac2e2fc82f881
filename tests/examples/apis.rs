//! The servers that scripts and partners call.

use serde_json::{Value, json};

use crate::shop::{Shop, call};

#[test]
fn an_admin_script_with_the_scope_removes_expired_sessions_and_others_are_refused() {
    let shop = Shop::open();
    let cleanup = shop.client("cleanup", &["admin=admin:cleanup,admin:read"]);
    let server = shop.serve("admin_api", "admin", &[]);
    assert_eq!(call(&server, "GET /health/live", None, "").status, 200);

    let delete = |token: Option<&str>| call(&server, "DELETE /sessions/expired", token, "");
    let refused = delete(None);
    assert_eq!(refused.status, 401, "{refused:?}");
    assert!(refused.head.contains("www-authenticate: bearer realm=\"admin\""), "{refused:?}");
    let refused = delete(Some(&shop.token(&cleanup, "admin", "admin:read")));
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.head.contains("scope=\"admin:cleanup\""), "{refused:?}");

    let token = shop.token(&cleanup, "admin", "admin:cleanup");
    for removed in [3, 0] {
        let answer = delete(Some(&token));
        let told: Value = serde_json::from_str(&answer.body).expect("it answers JSON");
        assert_eq!((answer.status, told), (200, json!({ "removed": removed, "left": 1 })));
    }
}

#[test]
fn a_partner_reads_all_customers_page_by_page_and_nobody_else_reads_any() {
    let shop = Shop::open();
    let crm = shop.client("crm", &["customers=read:customers", "orders=read:customers"]);
    let server = shop.serve("customers_api", "customers", &[]);
    let token = shop.token(&crm, "customers", "read:customers");

    let mut names = Vec::new();
    let mut page = Some(1);
    while let Some(number) = page {
        let answer = call(&server, &format!("GET /customers?page={number}"), Some(&token), "");
        let told: Value = serde_json::from_str(&answer.body).expect("it answers JSON");
        let customers = told["customers"].as_array().expect("a page has customers");
        names.extend(customers.iter().map(|customer| customer["name"].to_string()));
        page = told["next_page"].as_u64();
    }
    assert_eq!((names.len(), names.first().map(String::as_str)), (5, Some("\"Ada Lovelace\"")));

    let first = call(&server, "GET /customers", Some(&token), "");
    assert!(first.body.contains("Ada Lovelace"), "{first:?}");
    for page in ["0", "4"] {
        let beyond = call(&server, &format!("GET /customers?page={page}"), Some(&token), "");
        assert_eq!(beyond.status, 404, "{beyond:?}");
    }
    assert_eq!(call(&server, "GET /customers?page=1", None, "").status, 401);
    let elsewhere = shop.token(&crm, "orders", "read:customers");
    assert_eq!(call(&server, "GET /customers?page=1", Some(&elsewhere), "").status, 401);
}
