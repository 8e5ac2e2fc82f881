//! Compiles the protos, without `protoc`, and writes the policy table of Countersign's own services.

#[allow(
    dead_code,
    unused_imports,
    reason = "the library has these rooms too, and uses what is not used here"
)]
#[path = "src/build/mod.rs"]
mod build;
#[path = "src/codegen/mod.rs"]
mod codegen;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const PROTOS: [&str; 4] = [
    "countersign/v1/auth.proto",
    "countersign/v1/token.proto",
    "countersign/v1/trust.proto",
    "countersign/v1/admin.proto",
];

/// Messages, with their oneofs, that carry a secret or a token; `src/rpc.rs` writes their `Debug` by hand.
const SECRET_MESSAGES: [&str; 5] = [
    "countersign.v1.IssueTokenRequest",
    "countersign.v1.IssueTokenResponse",
    "countersign.v1.ValidateTokenRequest",
    "countersign.v1.RevokeTokenRequest",
    "countersign.v1.CreateClientSecretResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    for path in ["proto", "src/build", "src/codegen"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;

    let rules = codegen::annotations::read_annotations(&compiler.descriptor_pool(), &PROTOS)
        .unwrap_or_else(|errors| {
            // One line each: a `Debug` of them all, as cargo shows what `main` returns, is not for people.
            errors.iter().for_each(|error| println!("cargo::error={error}"));
            std::process::exit(1)
        });
    fs::write(out_dir.join("policies.rs"), codegen::emit::policy_table(&rules, "crate::guard"))?;
    // Encoded by protox, not by prost: the options survive, so reflection shows the policy.
    fs::write(out_dir.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = tonic_prost_build::Config::new();
    config.skip_debug(SECRET_MESSAGES);
    tonic_prost_build::configure()
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    compile_examples(&out_dir.join("examples"))
}

/// The examples' protos, as their users would. A published package may come without them.
fn compile_examples(out_dir: &Path) -> Result<(), Box<dyn Error>> {
    const EXAMPLES: &str = "examples/proto";
    if !Path::new(EXAMPLES).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(out_dir)?;
    let protos = [format!("{EXAMPLES}/shop/v1/shop.proto")];
    build::configure().out_dir(out_dir).compile(&protos, &[EXAMPLES])?;
    Ok(())
}
