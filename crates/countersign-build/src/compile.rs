//! What a build script calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::Compiler;

use crate::annotations::{AnnotationError, Declared, ServiceRule, read_file};
use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::protos;

/// Compiles these protos, found in these directories, to Rust in `OUT_DIR`.
///
/// What they import is compiled too: looked for in `includes`, then in what comes with this crate
/// (`countersign/v1/auth.proto` and Google's well-known types). Cargo runs the build script again
/// when one of the files changes.
///
/// # Errors
/// As [`Builder::compile`].
pub fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result {
    configure().compile(protos, includes)
}

/// A [`Builder`], for more than the defaults.
pub fn configure() -> Builder {
    Builder {
        tonic: tonic_prost_build::configure(),
        prost: prost_build::Config::new(),
        out_dir: None,
        descriptor_set_path: None,
        undeclared: Undeclared::Refused,
    }
}

/// Compiles protos with options; made by [`configure`].
#[derive(Debug)]
pub struct Builder {
    tonic: tonic_prost_build::Builder,
    prost: prost_build::Config,
    out_dir: Option<PathBuf>,
    descriptor_set_path: Option<PathBuf>,
    undeclared: Undeclared,
}

/// What becomes of methods without an annotation.
#[derive(Debug)]
enum Undeclared {
    /// The build fails.
    Refused,
    /// The build warns.
    LeftOut,
}

impl Builder {
    /// With tonic's own options, as `tonic_prost_build::configure()` takes them.
    ///
    /// Where to write is asked of this builder instead: see [`out_dir`](Self::out_dir) and
    /// [`descriptor_set_path`](Self::descriptor_set_path). What concerns `protoc` has no effect.
    #[must_use]
    pub fn tonic(self, tonic: tonic_prost_build::Builder) -> Self {
        Self { tonic, ..self }
    }

    /// With prost's own options. A service generator among them is replaced.
    #[must_use]
    pub fn prost(self, prost: prost_build::Config) -> Self {
        Self { prost, ..self }
    }

    /// Writes to this directory instead of `OUT_DIR`.
    #[must_use]
    pub fn out_dir(self, path: impl Into<PathBuf>) -> Self {
        Self { out_dir: Some(path.into()), ..self }
    }

    /// Writes the compiled descriptors, imports and annotations included, to this file instead of
    /// `descriptors.bin` in the output directory. Needed when one build script compiles twice.
    #[must_use]
    pub fn descriptor_set_path(self, path: impl Into<PathBuf>) -> Self {
        Self { descriptor_set_path: Some(path.into()), ..self }
    }

    /// For a gradual start: methods that declare nothing are a warning each instead of an error.
    /// They are left out of the policy, so that a guard **refuses** every call of them.
    #[must_use]
    pub fn allow_undeclared(self) -> Self {
        Self { undeclared: Undeclared::LeftOut, ..self }
    }

    /// Compiles these protos, found in these directories: see [`compile`](fn@compile).
    ///
    /// # Errors
    /// A proto that is missing or does not compile, an annotation that cannot be meant, a method or
    /// an audience that is not declared, a file that cannot be written.
    pub fn compile(mut self, protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result {
        let out_dir = self
            .out_dir
            .or_else(|| env::var_os("OUT_DIR").map(PathBuf::from))
            .ok_or_else(|| Error::one("OUT_DIR is not set; call this from a build script"))?;
        let descriptors =
            self.descriptor_set_path.unwrap_or_else(|| out_dir.join("descriptors.bin"));

        let compiler = protos::open(protos, includes)?;
        for path in compiler.files().filter_map(|file| file.path()) {
            tell_cargo(&format!("rerun-if-changed={}", path.display()));
        }
        let rules = rules(&compiler, &self.undeclared)?;

        // Encoded by protox: prost's own descriptor types drop the annotations.
        fs::write(&descriptors, compiler.encode_file_descriptor_set()).map_err(|error| {
            Error::one(format!("cannot write {}: {error}", descriptors.display()))
        })?;

        // tonic adds this when it runs `protoc` itself, and generated code needs it here as well.
        self.prost.type_attribute(".", "#[allow(clippy::all)]");
        let generator = Generator::new(self.tonic.clone().service_generator(), rules);
        self.prost.service_generator(Box::new(generator));
        // Neither clients nor servers are asked for here: tonic would put its own generator in the
        // place of ours. Ours has tonic's inside, and writes both.
        self.tonic
            .out_dir(&out_dir)
            .build_client(false)
            .build_server(false)
            .compile_fds_with_config(protos::to_generate(&compiler), self.prost)
            .map_err(|error| Error::one(format!("cannot write to {}: {error}", out_dir.display())))
    }
}

/// The rules of every service that has some, by its full name.
fn rules(compiler: &Compiler, undeclared: &Undeclared) -> Result<HashMap<String, ServiceRule>> {
    let pool = compiler.descriptor_pool();
    let mut rules = HashMap::new();
    let mut problems = Vec::new();
    for (file, source) in pool.files().zip(compiler.files()) {
        // The path on disk, for people to click on, instead of the import path.
        let told = |error: AnnotationError| match source.path() {
            Some(path) => AnnotationError { file: path.display().to_string(), ..error }.to_string(),
            None => error.to_string(),
        };
        let mut errors = Vec::new();
        for Declared { rule, gaps, mistakes } in read_file(&pool, &file) {
            let says_nothing =
                rule.methods.is_empty() && rule.audience.is_empty() && mistakes.is_empty();
            if source.is_import() && says_nothing {
                continue;
            }
            match undeclared {
                Undeclared::Refused => errors.extend(gaps),
                Undeclared::LeftOut => gaps.into_iter().map(told).for_each(|gap| {
                    tell_cargo(&format!("warning={gap} (allowed; a guard refuses it until then)"));
                }),
            }
            errors.extend(mistakes);
            rules.insert(rule.service.clone(), rule);
        }
        errors.sort_by_key(|error| error.line);
        problems.extend(errors.into_iter().map(told));
    }
    if problems.is_empty() { Ok(rules) } else { Err(Error::new(problems)) }
}

#[allow(clippy::print_stdout, reason = "what a build script prints, cargo obeys")]
fn tell_cargo(instruction: &str) {
    println!("cargo::{instruction}");
}
