//! The build script of the contract (`proto/`): it turns the .proto files into messages, services and descriptors.
//!
//! It runs with `proto/` as its folder, and needs no protoc: protox is a compiler in Rust, and keeps the comments, which become rustdoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = "vantage/v1";
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            println!("cargo:rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
    files.sort();
    println!("cargo:rerun-if-changed={folder}");

    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("vantage.descriptors.bin"), descriptors.encode_to_vec())?;
    let mut messages = prost_build::Config::new();
    // Each message knows its full name, by which its descriptor is found.
    messages.enable_type_names();
    // Sorted maps: equal messages have equal bytes, so that a revision can be a hash of a check.
    messages.btree_map(["."]);
    // A result passes through many hands, and the longest report has 650 bytes.
    messages.boxed(".vantage.v1.ProbeResult.report");
    // Those that hold secrets say by hand what may be seen of them: proto/secret/shown.rs.
    messages.skip_debug([".vantage.v1.Secret", ".vantage.v1.Secret.source", ".vantage.v1.HttpProbe"]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, messages)?;
    Ok(())
}
