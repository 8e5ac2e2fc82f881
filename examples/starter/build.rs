fn main() -> countersign_build::Result {
    countersign_build::compile(&["proto/inventory.proto"], &["proto"])
}
