//! From annotations in a `.proto` to rules and errors.

use countersign_build::annotations::{
    AnnotationError, MethodRule, Problem, Rule, ServiceRule, read_annotations,
};
use countersign_mesh::claims::{Audience, Scope};
use prost_reflect::DescriptorPool;
use protox::Compiler;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

/// Files that a test wrote, by name.
struct Sources(Vec<(String, String)>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, source)) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn compile(files: &[(&str, &str)]) -> Result<DescriptorPool, protox::Error> {
    let owned = |(name, source): &(&str, &str)| (name.to_string(), source.to_string());
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(files.iter().map(owned).collect()));
    resolver.add(IncludeFileResolver::new(concat!(env!("CARGO_MANIFEST_DIR"), "/proto").into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files.iter().map(|(name, _)| name))?;
    Ok(compiler.descriptor_pool())
}

fn read(source: &str) -> Result<Vec<ServiceRule>, Vec<AnnotationError>> {
    let pool = compile(&[("inventory.proto", source)]).expect("a proto that compiles");
    read_annotations(&pool, &["inventory.proto"])
}

/// A proto that imports the annotations, with these services in a package.
fn proto(package: &str, services: &str) -> String {
    format!(
        "syntax = \"proto3\";\npackage {package};\nimport \"countersign/v1/auth.proto\";\n\
         message Empty {{}}\n{services}\n"
    )
}

/// The proto of one service with an audience, whose methods begin at line 7.
fn service(methods: &str) -> String {
    let audience = "option (countersign.v1.service).audience = \"inventory\";";
    proto("inventory.v1", &format!("service Inventory {{\n{audience}\n{methods}\n}}"))
}

/// One method with these options.
fn method(options: &str) -> String {
    service(&format!("rpc CheckStock(Empty) returns (Empty) {{ {options} }}"))
}

fn scopes(scopes: &[&str]) -> Rule {
    Rule::Scopes(scopes.iter().map(ToString::to_string).collect())
}

fn rule_of(source: &str) -> Rule {
    let mut rules = read(source).expect("annotations that are right");
    rules.remove(0).methods.remove(0).rule
}

#[track_caller]
fn only_error(source: &str) -> AnnotationError {
    let mut errors = read(source).expect_err("an annotation that is wrong");
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn scopes_and_public_are_read_in_every_spelling() {
    let one = r#"option (countersign.v1.auth).scopes = "stock:read";"#;
    assert_eq!(rule_of(&method(one)), scopes(&["stock:read"]));
    let list = r#"option (countersign.v1.auth) = { scopes: ["b", "a", "b"] };"#;
    assert_eq!(rule_of(&method(list)), scopes(&["a", "b"]), "sorted, each once");
    let repeated = r#"option (countersign.v1.auth).scopes = "b";
                      option (countersign.v1.auth).scopes = "a";"#;
    assert_eq!(rule_of(&method(repeated)), scopes(&["a", "b"]));
    let public = "option (countersign.v1.auth).public = true;";
    assert_eq!(rule_of(&method(public)), Rule::Public);
    let not_public = r#"option (countersign.v1.auth) = { scopes: "a" public: false };"#;
    assert_eq!(rule_of(&method(not_public)), scopes(&["a"]));
}

#[test]
fn a_method_says_one_of_the_two() {
    for neither in [
        "",
        "option deprecated = true;",
        "option (countersign.v1.auth).public = false;",
        "option (countersign.v1.auth) = {};",
    ] {
        assert_eq!(only_error(&method(neither)).problem, Problem::RuleMissing, "{neither}");
    }
    let both = r#"option (countersign.v1.auth) = { scopes: "a" public: true };"#;
    assert_eq!(only_error(&method(both)).problem, Problem::RuleContradictory);
}

#[test]
fn a_proto_that_does_not_import_the_annotations_opens_nothing() {
    let source = "syntax = \"proto3\";\nmessage Empty {}\n\
                  service Inventory { rpc Ping(Empty) returns (Empty); }\n";
    let errors = read(source).expect_err("nothing is declared");
    let problems: Vec<&Problem> = errors.iter().map(|error| &error.problem).collect();
    assert_eq!(problems, [&Problem::RuleMissing, &Problem::AudienceMissing]);
}

#[test]
fn a_service_whose_methods_demand_tokens_names_its_audience() {
    let one = |options: &str, rule: &str| {
        let method =
            format!("rpc Ping(Empty) returns (Empty) {{ option (countersign.v1.auth).{rule}; }}");
        proto("inventory.v1", &format!("service Inventory {{ {options} {method} }}"))
    };
    let audience = |text: &str| format!("option (countersign.v1.service).audience = \"{text}\";");
    let scoped = "scopes = \"a\"";

    assert!(read(&one(&audience("inventory"), scoped)).is_ok());
    assert_eq!(only_error(&one("", scoped)).problem, Problem::AudienceMissing);
    assert_eq!(only_error(&one(&audience(""), scoped)).problem, Problem::AudienceMissing);
    let malformed = Problem::AudienceMalformed("in ventory".to_owned());
    assert_eq!(only_error(&one(&audience("in ventory"), scoped)).problem, malformed);
    assert_eq!(only_error(&one(&audience("in ventory"), "public = true")).problem, malformed);
    let open = read(&one("", "public = true")).expect("nobody needs a token for it");
    assert_eq!(open[0].audience, "");
}

#[test]
fn an_error_names_the_place_and_the_fix() {
    let source = proto(
        "inventory.v1",
        r#"service Inventory {
  option (countersign.v1.service).audience = "in ventory";
  rpc CheckStock(Empty) returns (Empty);
  rpc Restock(Empty) returns (Empty) {
    option (countersign.v1.auth) = { scopes: "a" public: true };
  }
  rpc Order(Empty) returns (Empty) {
    option (countersign.v1.auth).scopes = "stock order";
  }
}
service Warehouse {
  rpc Ship(Empty) returns (Empty) { option (countersign.v1.auth).scopes = "ship"; }
}"#,
    );
    let errors = read(&source).expect_err("annotations that are wrong");
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "inventory.proto:7: Inventory.CheckStock says neither which scopes it demands nor that it is \
             public; add `option (countersign.v1.auth).scopes = \"...\";` or \
             `option (countersign.v1.auth).public = true;`",
            "inventory.proto:8: Inventory.Restock demands scopes and is public; remove one of the two",
            "inventory.proto:11: Inventory.Order demands the scope \"stock order\"; a scope is 1 to 128 \
             printable ASCII characters without space, quote and backslash (RFC 6749 section 3.3)",
            "inventory.proto:5: Inventory has the audience \"in ventory\"; an audience is 1 to 255 of the \
             characters A-Z a-z 0-9 . _ ~ : / -",
            "inventory.proto:15: Warehouse has no audience; add \
             `option (countersign.v1.service).audience = \"...\";` to the service",
        ],
    );
}

#[test]
fn a_misspelt_option_is_an_error_of_the_compiler_with_its_place() {
    for misspelt in [
        r#"option (countersign.v1.auth).scope = "a";"#,
        r#"option (countersign.v1.authn).scopes = "a";"#,
        "option (countersign.v1.auth).public = \"yes\";",
        "option (countersign.v1.service).audience = \"a\";",
    ] {
        let error = compile(&[("inventory.proto", &method(misspelt))]).expect_err("misspelt");
        // Cargo shows what a build script fails with by its `Debug`.
        let told = format!("{error:?}");
        assert!(told.contains("inventory.proto:7"), "{told}");
    }
}

#[test]
fn packages_services_and_streams_are_told_apart() {
    let stock = proto(
        "acme.inventory.v1.deep",
        r#"service Stock {
  option (countersign.v1.service).audience = "stock";
  rpc Watch(stream Empty) returns (stream Empty) { option (countersign.v1.auth).scopes = "watch"; }
  rpc Upload(stream Empty) returns (Empty) { option (countersign.v1.auth).public = true; }
}
service Orders {
  option (countersign.v1.service).audience = "https://orders.example/v1";
  rpc List(Empty) returns (stream Empty) { option (countersign.v1.auth).scopes = "list"; }
}
service Nothing {}"#,
    );
    // Imported and not named: someone else's to read.
    let other = proto("acme.other.v1", "service Stock { rpc Open(Empty) returns (Empty); }");
    let stock = stock.replace("message Empty", "import \"other.proto\";\nmessage Empty");
    let pool = compile(&[("a/stock.proto", &stock), ("other.proto", &other)]).expect("it compiles");
    let rules = read_annotations(&pool, &["a/stock.proto"]).expect("annotations that are right");

    let method = |method: &str, rule| MethodRule { method: method.to_owned(), rule };
    let service = |service: &str, audience: &str, methods| ServiceRule {
        service: format!("acme.inventory.v1.deep.{service}"),
        audience: audience.to_owned(),
        methods,
    };
    assert_eq!(
        rules,
        [
            service(
                "Stock",
                "stock",
                vec![method("Watch", scopes(&["watch"])), method("Upload", Rule::Public)],
            ),
            service("Orders", "https://orders.example/v1", vec![method("List", scopes(&["list"]))],),
            service("Nothing", "", vec![]),
        ],
    );

    let errors =
        read_annotations(&pool, &["a/stock.proto", "other.proto"]).expect_err("now it is named");
    let places: Vec<(&str, &str)> =
        errors.iter().map(|error| (error.file.as_str(), error.element.as_str())).collect();
    assert_eq!(places, [("other.proto", "Stock.Open"), ("other.proto", "Stock")]);
}

/// Texts to hold two alphabets against each other: each ASCII character, and the limits of length.
fn texts(longest: usize) -> Vec<String> {
    let characters = (0..=127u8).map(|byte| char::from(byte).to_string());
    let lengths = [2, longest, longest + 1].map(|length| "a".repeat(length));
    let foreign = ["ä", "a\u{a0}", "\u{ff41}"].map(str::to_owned);
    characters.chain(lengths).chain(foreign).collect()
}

/// A string literal of the proto language.
fn literal(text: &str) -> String {
    let escaped: String = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{escaped}\"")
}

#[test]
fn scopes_here_are_scopes_in_tokens() {
    // The empty text too: a list with nothing in it is not a list of nothing.
    let texts: Vec<String> = texts(128).into_iter().chain([String::new()]).collect();
    let methods: String = (0..)
        .zip(&texts)
        .map(|(n, text)| {
            let scope = literal(text);
            format!("rpc M{n}(Empty) returns (Empty) {{ option (countersign.v1.auth).scopes = {scope}; }}\n")
        })
        .collect();
    let errors = read(&service(&methods)).expect_err("some are malformed");
    let malformed = |text: &String| {
        errors.iter().any(|error| error.problem == Problem::ScopeMalformed(text.clone()))
    };
    for text in &texts {
        assert_eq!(malformed(text), Scope::new(text).is_err(), "{text:?}");
    }
    assert!(errors.len() < texts.len() - 80, "some are well-formed");
}

#[test]
fn audiences_here_are_audiences_in_tokens() {
    let texts = texts(255);
    let services: String = (0..)
        .zip(&texts)
        .map(|(n, text)| {
            let audience = literal(text);
            format!("service S{n} {{ option (countersign.v1.service).audience = {audience}; }}\n")
        })
        .collect();
    let errors = read(&proto("inventory.v1", &services)).expect_err("some are malformed");
    let malformed = |text: &String| {
        errors.iter().any(|error| error.problem == Problem::AudienceMalformed(text.clone()))
    };
    for text in &texts {
        assert_eq!(malformed(text), Audience::new(text).is_err(), "{text:?}");
    }
    assert!(errors.len() < texts.len() - 60, "some are well-formed");
}
