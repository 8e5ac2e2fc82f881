//! Reads the annotations of `countersign/v1/auth.proto` from compiled descriptors. Both the build
//! script's code generator and `countersign policy show` read them here, so that they agree.

use std::fmt;

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FileDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

/// What one service demands, as its `.proto` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRule {
    /// The full name, `inventory.v1.Inventory`.
    pub service: String,
    /// The audience that tokens must name.
    pub audience: String,
    /// One rule a method, in the order of the file.
    pub methods: Vec<MethodRule>,
}

/// What one method demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodRule {
    /// The method's name, `CheckStock`.
    pub method: String,
    /// What it demands.
    pub rule: Rule,
}

/// Who may call a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Anyone, without a token.
    Public,
    /// Bearers of a token that carries all of these scopes, sorted.
    Scopes(Vec<String>),
}

/// What the annotations of one service say, and where they fall short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// What is declared. A method that declares nothing is not in it.
    pub rule: ServiceRule,
    /// What is not declared yet: methods without an annotation, and an audience that such methods will
    /// need.
    pub gaps: Vec<AnnotationError>,
    /// What is declared, but cannot be valid.
    pub mistakes: Vec<AnnotationError>,
}

/// An annotation that cannot be compiled, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationError {
    /// The file, as the compiler was given it.
    pub file: String,
    /// The line, from 1; 0 when the descriptors carry no source positions.
    pub line: usize,
    /// The service, or the service and method, `Inventory.CheckStock`.
    pub element: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with an annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A service that has methods with scopes, but no audience.
    AudienceMissing,
    /// An audience that has a character which no audience may have, or is too long.
    AudienceMalformed(String),
    /// Neither scopes nor `public`.
    RuleMissing,
    /// Both scopes and `public`.
    RuleContradictory,
    /// A scope with a character that RFC 6749 §3.3 excludes, or too long.
    ScopeMalformed(String),
}

impl fmt::Display for AnnotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} ", self.file, self.line, self.element)?;
        match &self.problem {
            Problem::AudienceMissing => f.write_str(
                "has no audience; add `option (countersign.v1.service).audience = \"...\";` to the service",
            ),
            Problem::AudienceMalformed(audience) => write!(
                f,
                "has the audience {audience:?}; an audience is 1 to 255 of the characters A-Z a-z 0-9 . _ ~ : / -",
            ),
            Problem::RuleMissing => f.write_str(
                "says neither which scopes it demands nor that it is public; \
                 add `option (countersign.v1.auth).scopes = \"...\";` or `option (countersign.v1.auth).public = true;`",
            ),
            Problem::RuleContradictory => {
                f.write_str("demands scopes and is public; remove one of the two")
            }
            Problem::ScopeMalformed(scope) => write!(
                f,
                "demands the scope {scope:?}; a scope is 1 to 128 printable ASCII characters \
                 without space, quote and backslash (RFC 6749 section 3.3)",
            ),
        }
    }
}

impl std::error::Error for AnnotationError {}

/// Reads the rules of every service in the named files, in the order of the files.
///
/// `files` are names as they stand in the pool; imported files are read only when named.
///
/// # Errors
/// Every problem found, not just the first, so that one build shows them all.
pub fn read_annotations(
    pool: &DescriptorPool,
    files: &[&str],
) -> Result<Vec<ServiceRule>, Vec<AnnotationError>> {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    for file in pool.files().filter(|file| files.contains(&file.name())) {
        for Declared { rule, gaps, mistakes } in read_file(pool, &file) {
            rules.push(rule);
            errors.extend(gaps);
            errors.extend(mistakes);
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

/// Reads what each service of a file declares, right or wrong.
pub fn read_file(pool: &DescriptorPool, file: &FileDescriptor) -> Vec<Declared> {
    file.services().map(|service| read_service(pool, file, &service)).collect()
}

fn read_service(
    pool: &DescriptorPool,
    file: &FileDescriptor,
    service: &ServiceDescriptor,
) -> Declared {
    let audience = option(pool, "countersign.v1.service", &service.options())
        .map(|rule| string_field(&rule, "audience"))
        .unwrap_or_default();
    let rule = ServiceRule {
        service: service.full_name().to_owned(),
        audience: audience.clone(),
        methods: Vec::new(),
    };
    let mut declared = Declared { rule, gaps: Vec::new(), mistakes: Vec::new() };
    for method in service.methods() {
        read_method(pool, file, &method, &mut declared);
    }

    let error = |problem| AnnotationError {
        file: file.name().to_owned(),
        line: line(file, service.path()),
        element: service.name().to_owned(),
        problem,
    };
    let demands_tokens = declared.rule.methods.iter().any(|method| method.rule != Rule::Public);
    match audience.as_str() {
        "" if demands_tokens => declared.mistakes.push(error(Problem::AudienceMissing)),
        // The methods that lack scopes will need an audience once they have some.
        "" if !declared.gaps.is_empty() => declared.gaps.push(error(Problem::AudienceMissing)),
        "" => {}
        malformed if !is_audience(malformed) => {
            declared.mistakes.push(error(Problem::AudienceMalformed(malformed.to_owned())));
        }
        _ => {}
    }
    declared
}

fn read_method(
    pool: &DescriptorPool,
    file: &FileDescriptor,
    method: &MethodDescriptor,
    declared: &mut Declared,
) {
    let options = option(pool, "countersign.v1.auth", &method.options());
    let mut scopes = options.as_ref().map(|rule| strings_field(rule, "scopes")).unwrap_or_default();
    scopes.sort();
    scopes.dedup();
    let public = options.as_ref().is_some_and(|rule| bool_field(rule, "public"));
    let error = |problem| AnnotationError {
        file: file.name().to_owned(),
        line: line(file, method.path()),
        element: format!("{}.{}", method.parent_service().name(), method.name()),
        problem,
    };
    let rule = match (public, scopes.is_empty()) {
        (false, true) => return declared.gaps.push(error(Problem::RuleMissing)),
        (true, false) => {
            declared.mistakes.push(error(Problem::RuleContradictory));
            Rule::Public
        }
        (true, true) => Rule::Public,
        (false, false) => {
            if let Some(scope) = scopes.iter().find(|scope| !is_scope(scope)) {
                declared.mistakes.push(error(Problem::ScopeMalformed(scope.clone())));
            }
            Rule::Scopes(scopes)
        }
    };
    declared.rule.methods.push(MethodRule { method: method.name().to_owned(), rule });
}

/// The message that an extension of the options holds, when it is set.
fn option(
    pool: &DescriptorPool,
    extension: &str,
    options: &DynamicMessage,
) -> Option<DynamicMessage> {
    let extension: ExtensionDescriptor = pool.get_extension_by_name(extension)?;
    if !options.has_extension(&extension) {
        return None;
    }
    match options.get_extension(&extension).into_owned() {
        Value::Message(rule) => Some(rule),
        _ => None,
    }
}

fn string_field(message: &DynamicMessage, name: &str) -> String {
    message
        .get_field_by_name(name)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn strings_field(message: &DynamicMessage, name: &str) -> Vec<String> {
    message
        .get_field_by_name(name)
        .and_then(|value| {
            value.as_list().map(|list| {
                list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
            })
        })
        .unwrap_or_default()
}

fn bool_field(message: &DynamicMessage, name: &str) -> bool {
    message.get_field_by_name(name).and_then(|value| value.as_bool()).unwrap_or_default()
}

/// The line of the element at `path` in its file (`SourceCodeInfo.Location.path`).
fn line(file: &FileDescriptor, path: &[i32]) -> usize {
    file.file_descriptor_proto()
        .source_code_info
        .iter()
        .flat_map(|info| &info.location)
        .find(|location| location.path == path)
        .and_then(|location| location.span.first())
        .map_or(0, |first| *first as usize + 1)
}

// The same alphabets as `claims::Scope` and `claims::Audience`, which this crate cannot see;
// `tests/annotations.rs` holds the two against each other.

fn is_scope(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

fn is_audience(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~:/-".contains(&byte))
}
