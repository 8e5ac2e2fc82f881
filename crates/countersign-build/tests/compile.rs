//! What build scripts of others get: the code that is generated, and the errors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use countersign_build as build;
use countersign_build::{prost_build, tonic_prost_build};
use prost_reflect::DescriptorPool;
use tempfile::TempDir;

const PROTOS: [&str; 2] = ["shop/inventory/v1/inventory.proto", "shop/gateway/gateway.proto"];

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn temp_dir() -> TempDir {
    tempfile::tempdir().expect("the temp directory is writable")
}

/// The generated files of a directory, by name.
fn sources(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect()
}

/// Compiles the protos of `tests/fixtures/shop`, which that crate compiles for real.
fn compile_shop(builder: build::Builder) -> (TempDir, BTreeMap<String, String>) {
    let dir = temp_dir();
    let include = manifest_dir().join("../../tests/fixtures/shop/proto");
    let protos = PROTOS.map(|proto| include.join(proto));
    builder.out_dir(dir.path()).compile(&protos, &[include]).expect("the shop compiles");
    let sources = sources(dir.path());
    (dir, sources)
}

/// What tonic writes by itself of the same descriptors, by the way that otherwise runs `protoc`.
fn compile_plainly(
    descriptors: &Path,
    tonic: tonic_prost_build::Builder,
    prost: prost_build::Config,
) -> BTreeMap<String, String> {
    let dir = temp_dir();
    tonic
        .out_dir(dir.path())
        .file_descriptor_set_path(descriptors)
        .skip_protoc_run()
        .compile_with_config(prost, &[] as &[&str], &[])
        .expect("the shop compiles without us too");
    sources(dir.path())
}

/// What each file has after all that tonic wrote.
fn ours<'a>(
    sources: &'a BTreeMap<String, String>,
    plain: &BTreeMap<String, String>,
) -> BTreeMap<&'a str, &'a str> {
    sources
        .iter()
        .map(|(name, text)| {
            let plain = plain.get(name).unwrap_or_else(|| panic!("tonic writes no {name}"));
            let ours = text.strip_prefix(plain.as_str());
            (name.as_str(), ours.unwrap_or_else(|| panic!("{name} does not begin as tonic's")))
        })
        .collect()
}

/// After a wanted change: `UPDATE_GOLDEN=1 cargo test --test build`, and review the difference.
#[test]
fn ours_comes_after_all_that_tonic_writes_and_is_this() {
    let (dir, sources) = compile_shop(build::configure());
    let plain = compile_plainly(
        &dir.path().join("descriptors.bin"),
        tonic_prost_build::configure(),
        prost_build::Config::new(),
    );
    let ours = ours(&sources, &plain);
    assert_eq!(
        ours.keys().copied().collect::<Vec<_>>(),
        ["shop.inventory.v1.rs", "shop.others.rs", "shop.rs"],
        "and none for the annotations"
    );
    let golden = manifest_dir().join("tests/golden");
    for (name, text) in ours {
        let golden = golden.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() && !text.is_empty() {
            fs::write(&golden, text).expect("the sources are writable");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, expected, "{} differs", golden.display());
    }
}

#[test]
fn options_of_tonic_and_prost_reach_them() {
    let options = || {
        let tonic = tonic_prost_build::configure()
            .build_client(false)
            .use_arc_self(true)
            .type_attribute("shop.LookUpResponse", "#[derive(Eq)]");
        let mut prost = prost_build::Config::new();
        prost.btree_map(["."]).format(false);
        (tonic, prost)
    };
    let (tonic, prost) = options();
    let (dir, with_ours) = compile_shop(build::configure().tonic(tonic).prost(prost));
    let (tonic, prost) = options();
    let plain = compile_plainly(&dir.path().join("descriptors.bin"), tonic, prost);
    for (name, text) in ours(&with_ours, &plain) {
        assert!(!text.contains("authenticated"), "{name} has no clients");
        assert_eq!(text.contains("fn guarded"), name != "shop.others.rs", "{name}");
    }

    let clients = tonic_prost_build::configure().build_server(false);
    let (_dir, clients) = compile_shop(build::configure().tonic(clients));
    assert!(clients["shop.rs"].contains("fn authenticated"));
    assert!(!clients["shop.rs"].contains("fn guarded"));

    let neither = tonic_prost_build::configure().build_server(false).build_client(false);
    let (_dir, neither) = compile_shop(build::configure().tonic(neither));
    assert!(neither["shop.rs"].contains("pub const POLICIES"));
    assert!(!neither["shop.rs"].contains("impl"));
}

#[test]
fn descriptors_keep_the_annotations() {
    let dir = temp_dir();
    let elsewhere = dir.path().join("elsewhere.bin");
    let (out, _) = compile_shop(build::configure().descriptor_set_path(&elsewhere));
    assert!(!out.path().join("descriptors.bin").exists());
    let descriptors = fs::read(&elsewhere).expect("it was written");
    let pool = DescriptorPool::decode(descriptors.as_slice()).expect("a descriptor set");
    let auth = pool.get_extension_by_name("countersign.v1.auth").expect("imports are there");
    let method = pool
        .get_service_by_name("shop.inventory.v1.Inventory")
        .and_then(|service| service.methods().find(|method| method.name() == "Ping"))
        .expect("the service is there");
    assert_eq!(method.options().get_extension(&auth).to_string(), "{public:true}");
}

/// Compiles one service of these methods, each on a line of its own from line 8 on.
fn compile_methods(builder: build::Builder, methods: &str) -> Result<String, Vec<String>> {
    let source = format!(
        "syntax = \"proto3\";\npackage acme.v1;\nimport \"countersign/v1/auth.proto\";\n\
         message Empty {{}}\n\
         service Stock {{\n  option (countersign.v1.service).audience = \"stock\";\n\n{methods}\n}}\n"
    );
    compile_source(builder, &source).map(|sources| sources["acme.v1.rs"].clone())
}

/// Compiles `stock.proto`; in errors, its directory is left out.
fn compile_source(
    builder: build::Builder,
    source: &str,
) -> Result<BTreeMap<String, String>, Vec<String>> {
    let dir = temp_dir();
    let proto = dir.path().join("stock.proto");
    fs::write(&proto, source).expect("it is ours");
    match builder.out_dir(dir.path()).compile(&[&proto], &[&dir.path().to_path_buf()]) {
        Ok(()) => Ok(sources(dir.path())),
        Err(error) => {
            let here = format!("{}/", dir.path().display());
            assert_eq!(format!("{error:?}"), format!("\n{}", error.problems().join("\n")));
            Err(error.problems().iter().map(|problem| problem.replacen(&here, "", 1)).collect())
        }
    }
}

#[track_caller]
fn assert_refused(methods: &str, expected: &[&str]) {
    let problems = compile_methods(build::configure(), methods).expect_err("it is wrong");
    assert_eq!(problems, expected);
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place_and_the_fix() {
    assert_refused(
        r#"rpc Both(Empty) returns (Empty) { option (countersign.v1.auth) = { public: true scopes: "a" }; }
rpc Nothing(Empty) returns (Empty);
rpc Right(Empty) returns (Empty) { option (countersign.v1.auth).scopes = "a"; }
rpc Malformed(Empty) returns (Empty) { option (countersign.v1.auth).scopes = "a b"; }"#,
        &[
            "stock.proto:8: Stock.Both demands scopes and is public; remove one of the two",
            "stock.proto:9: Stock.Nothing says neither which scopes it demands nor that it is public; add \
             `option (countersign.v1.auth).scopes = \"...\";` or `option (countersign.v1.auth).public = true;`",
            "stock.proto:11: Stock.Malformed demands the scope \"a b\"; a scope is 1 to 128 printable ASCII \
             characters without space, quote and backslash (RFC 6749 section 3.3)",
        ],
    );
}

#[test]
fn a_misspelt_option_is_told_with_its_method_and_the_right_ones() {
    let the_right_ones = "; the annotations are `(countersign.v1.service).audience`, \
                          `(countersign.v1.auth).scopes` and `(countersign.v1.auth).public`";
    for (option, problem) in [
        (
            "(countersign.v1.auth).scope = \"a\"",
            "option field '(countersign.v1.auth).scope' is not defined",
        ),
        ("(countersign.v1.authn).scopes = \"a\"", ""),
        ("(countersign.v1.service).audience = \"a\"", ""),
        ("(countersign.v1.auth) = { scope: \"a\" }", ""),
    ] {
        let methods = format!("rpc Ask(Empty) returns (Empty) {{\n option {option};\n}}");
        let problems = compile_methods(build::configure(), &methods).expect_err("it is wrong");
        let [told] = &problems[..] else { panic!("{problems:?}") };
        assert!(told.starts_with("stock.proto:9:"), "{told}");
        assert!(told.contains(&format!(": Stock.Ask: {problem}")), "{told}");
        assert!(told.ends_with(the_right_ones), "{told}");
    }
}

#[test]
fn an_annotation_without_the_import_is_told_to_import() {
    let source = "syntax = \"proto3\";\nmessage Empty {}\nservice Stock {\n  \
                  option (countersign.v1.service).audience = \"stock\";\n}\n";
    let problems = compile_source(build::configure(), source).expect_err("nothing is imported");
    let [told] = &problems[..] else { panic!("{problems:?}") };
    assert!(told.starts_with("stock.proto:4:"), "{told}");
    assert!(told.contains(": Stock: "), "{told}");
    assert!(told.ends_with("; add `import \"countersign/v1/auth.proto\";`"), "{told}");
}

#[test]
fn other_mistakes_have_their_place_too() {
    assert_refused(
        "rpc Ask(Nobody) returns (Empty);",
        &["stock.proto:8:9: Stock.Ask: name 'Nobody' is not defined"],
    );
    let problems = compile_source(build::configure(), "syntax = \"proto3\";\nsurvice Stock {}\n");
    let told = problems.expect_err("that is no proto").remove(0);
    assert!(told.starts_with("stock.proto:2:1: "), "{told}");
    let absent = build::configure().out_dir("x").compile(&["absent.proto"], &["absent"]);
    assert_eq!(
        absent.expect_err("there is none").problems(),
        ["file 'absent.proto' is not in any include path"]
    );
}

#[test]
fn undeclared_methods_are_left_out_where_that_is_allowed() {
    let allowed = || build::configure().allow_undeclared();
    let methods = r#"rpc Undeclared(Empty) returns (Empty);
rpc Declared(Empty) returns (Empty) { option (countersign.v1.auth).scopes = "a"; }"#;
    let source = compile_methods(allowed(), methods).expect("gaps are allowed");
    let policy = source.split("pub mod stock_policy").nth(1).expect("the policy is there");
    assert!(policy.contains("\"/acme.v1.Stock/Declared\""), "{policy}");
    assert!(!policy.contains("/acme.v1.Stock/Undeclared"), "{policy}");

    // A service in which nothing is declared yet needs no audience yet.
    let nothing = "syntax = \"proto3\";\npackage acme.v1;\nmessage Empty {}\n\
                   service Stock { rpc Ask(Empty) returns (Empty); }\n";
    let source = compile_source(allowed(), nothing).expect("gaps are allowed");
    assert!(source["acme.v1.rs"].contains("methods: &[],"));

    // Mistakes are none the better for it.
    let both = "rpc Both(Empty) returns (Empty) \
                { option (countersign.v1.auth) = { public: true scopes: \"a\" }; }";
    assert_eq!(compile_methods(allowed(), both).expect_err("it is wrong").len(), 1);
    let no_audience = "syntax = \"proto3\";\nimport \"countersign/v1/auth.proto\";\n\
                       message Empty {}\nservice Stock { rpc Ask(Empty) returns (Empty) \
                       { option (countersign.v1.auth).scopes = \"a\"; } }\n";
    let problems = compile_source(allowed(), no_audience).expect_err("whose scope is it?");
    assert!(problems[0].starts_with("stock.proto:4: Stock has no audience"), "{problems:?}");
}

#[test]
fn imported_services_count_once_they_have_an_annotation() {
    let dir = temp_dir();
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join(name), format!("syntax = \"proto3\";\n{text}"))
            .expect("it is ours");
    };
    write(
        "main.proto",
        "package main;\nimport \"partly.proto\";\nmessage M { partly.Empty empty = 1; }\n",
    );
    let partly = |options: &str| {
        format!(
            "package partly;\nimport \"countersign/v1/auth.proto\";\nmessage Empty {{}}\n\
             service Stock {{ {options}\nrpc Ask(Empty) returns (Empty); }}\n"
        )
    };
    let compile = || {
        let dir = dir.path().to_path_buf();
        build::configure().out_dir(&dir).compile(&["main.proto"], &[&dir])
    };
    write("partly.proto", &partly(""));
    compile().expect("it is not ours to annotate");
    assert!(!sources(dir.path())["partly.rs"].contains("POLICIES"));
    write("partly.proto", &partly("option (countersign.v1.service).audience = \"stock\";"));
    let error = compile().expect_err("whoever begins goes through with it");
    assert!(error.problems()[0].contains("partly.proto:6: Stock.Ask says neither"), "{error}");
}

#[test]
fn a_package_without_a_name_and_one_without_messages_compile() {
    let unnamed = "syntax = \"proto3\";\nimport \"countersign/v1/auth.proto\";\n\
                   import \"google/protobuf/empty.proto\";\nservice Stock {\n\
                   rpc Ask(google.protobuf.Empty) returns (google.protobuf.Empty)\n\
                   { option (countersign.v1.auth).public = true; } }\n";
    let neither = tonic_prost_build::configure().build_client(false).build_server(false);
    let sources = compile_source(build::configure().tonic(neither), unnamed).expect("it compiles");
    assert!(sources["_.rs"].contains("\"/Stock/Ask\""));
}
