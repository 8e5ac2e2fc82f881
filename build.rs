//! Writes the servers of Countersign's own services, and the descriptors that reflection shows.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use countersign_build::{configure, tonic_prost_build};

const PROTOS: [&str; 4] = [
    "proto/countersign/v1/auth.proto",
    "proto/countersign/v1/token.proto",
    "proto/countersign/v1/trust.proto",
    "proto/countersign/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Messages and clients are those of countersign-mesh.
    let servers = tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".countersign.v1", "::countersign_mesh::rpc");
    configure()
        .tonic(servers)
        .descriptor_set_path(out_dir.join("countersign.bin"))
        .compile(&PROTOS, &["proto"])?;
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
    configure().out_dir(out_dir).compile(&protos, &[EXAMPLES])?;
    Ok(())
}
