//! Writes rules as Rust source.

use std::fmt::Write;

use crate::annotations::{Rule, ServiceRule};

/// The policy of one service as the source of an expression.
pub fn service_policy(rule: &ServiceRule, guard: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_policy(&mut out, rule, guard);
    out
}

/// These lines, four spaces further in.
pub fn indented(lines: &str) -> String {
    lines
        .split_inclusive('\n')
        .map(|line| if line.trim().is_empty() { line.to_owned() } else { format!("    {line}") })
        .collect()
}

fn write_policy(out: &mut String, rule: &ServiceRule, guard: &str) -> std::fmt::Result {
    writeln!(out, "{guard}::ServicePolicy {{")?;
    writeln!(out, "    service: {:?},", rule.service)?;
    writeln!(out, "    audience: {:?},", rule.audience)?;
    writeln!(out, "    methods: &[")?;
    for method in &rule.methods {
        let path = format!("/{}/{}", rule.service, method.method);
        let access = match &method.rule {
            Rule::Public => format!("{guard}::Access::Public"),
            Rule::Scopes(scopes) => format!("{guard}::Access::Scopes(&{scopes:?})"),
        };
        writeln!(out, "        {guard}::MethodPolicy {{ path: {path:?}, access: {access} }},")?;
    }
    writeln!(out, "    ],")?;
    write!(out, "}}")
}
