//! Writes rules down as Rust.

use std::fmt::Write;

use super::annotations::Rule;
use super::annotations::ServiceRule;

/// The policy table of some services as the source of a `POLICIES` constant.
///
/// `guard` is the path by which the generated code reaches the guard room,
/// `::countersign::guard` for everyone but this crate itself.
pub fn policy_table(rules: &[ServiceRule], guard: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, rules, guard);
    out
}

fn write_table(out: &mut String, rules: &[ServiceRule], guard: &str) -> std::fmt::Result {
    writeln!(
        out,
        "/// What each method demands of its caller, from the annotations in the `.proto`."
    )?;
    writeln!(out, "pub const POLICIES: &[{guard}::ServicePolicy] = &[")?;
    for rule in rules {
        writeln!(out, "    {guard}::ServicePolicy {{")?;
        writeln!(out, "        service: {:?},", rule.service)?;
        writeln!(out, "        audience: {:?},", rule.audience)?;
        writeln!(out, "        methods: &[")?;
        for method in &rule.methods {
            let path = format!("/{}/{}", rule.service, method.method);
            let access = match &method.rule {
                Rule::Public => format!("{guard}::Access::Public"),
                Rule::Scopes(scopes) => format!("{guard}::Access::Scopes(&{scopes:?})"),
            };
            writeln!(
                out,
                "            {guard}::MethodPolicy {{ path: {path:?}, access: {access} }},"
            )?;
        }
        writeln!(out, "        ],")?;
        writeln!(out, "    }},")?;
    }
    writeln!(out, "];")
}
