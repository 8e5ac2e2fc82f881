//! Finds and compiles protos: the user's own, the annotations, Google's.

use std::path::{Path, PathBuf};

use protox::Compiler;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use tonic_prost_build::FileDescriptorSet;

use crate::error::{Error, Result};

/// The annotations, as everyone imports them.
const AUTH_NAME: &str = "countersign/v1/auth.proto";
const AUTH: &str = include_str!("../proto/countersign/v1/auth.proto");

/// Compiles these files and what they import.
pub fn open(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<Compiler> {
    let includes: Vec<PathBuf> =
        includes.iter().map(|include| include.as_ref().to_owned()).collect();
    let mut resolver = ChainFileResolver::new();
    for include in &includes {
        resolver.add(IncludeFileResolver::new(include.clone()));
    }
    resolver.add(Annotations);
    resolver.add(GoogleFileResolver::new());

    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for proto in protos {
        if let Err(error) = compiler.open_file(proto) {
            return Err(Error::one(explain(&error, &includes)));
        }
    }
    Ok(compiler)
}

/// The files to generate Rust from: all but the annotations' own, which nobody needs at run time,
/// unless it was asked for.
pub fn to_generate(compiler: &Compiler) -> FileDescriptorSet {
    let unasked = compiler.files().any(|file| file.name() == AUTH_NAME && file.is_import());
    let mut files = compiler.file_descriptor_set();
    files.file.retain(|file| !(unasked && file.name() == AUTH_NAME));
    files
}

/// Finds the annotations that come with this crate.
struct Annotations;

impl FileResolver for Annotations {
    fn open_file(&self, name: &str) -> std::result::Result<File, protox::Error> {
        if name == AUTH_NAME {
            File::from_source(name, AUTH)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// The compiler's message, with the path to click on, the service or method that it is about, and, for
/// an annotation, what to write instead.
fn explain(error: &protox::Error, includes: &[PathBuf]) -> String {
    // Its `Debug` is `name:line:column: what is wrong`, as far as it knows them.
    let told = format!("{error:?}");
    let Some((name, rest)) =
        error.file().and_then(|name| Some((name, told.strip_prefix(name)?.strip_prefix(':')?)))
    else {
        return told;
    };
    let path = includes.iter().map(|include| include.join(name)).find(|path| path.is_file());
    let place = path.as_ref().map_or(name.to_owned(), |path| path.display().to_string());

    let mut parts = rest.splitn(3, ':');
    let numbers = (parts.next().and_then(|line| line.parse::<usize>().ok()), parts.next());
    let (Some(path), (Some(line), Some(column)), Some(problem)) = (path, numbers, parts.next())
    else {
        return format!("{place}:{rest}");
    };
    // A file that does not even parse has no elements: then the place must do.
    let Ok(file) = File::open(name, &path) else {
        return format!("{place}:{line}:{column}:{problem}");
    };
    let element = element_at(&file, line).map(|element| format!(" {element}:")).unwrap_or_default();
    format!("{place}:{line}:{column}:{element}{problem}{}", advice_at(&file, line))
}

/// The service, or the service and method, that this line is part of.
fn element_at(file: &File, line: usize) -> Option<String> {
    let descriptor = file.file_descriptor_proto();
    let named = |path: &[i32]| {
        // The numbers of the fields in `descriptor.proto`: 6 for services, 2 for their methods.
        let (service, method) = match *path {
            [6, service] => (service, None),
            [6, service, 2, method] => (service, Some(method)),
            _ => return None,
        };
        let service = descriptor.service.get(usize::try_from(service).ok()?)?;
        let method = match method {
            Some(method) => Some(service.method.get(usize::try_from(method).ok()?)?),
            None => None,
        };
        Some(match method {
            Some(method) => format!("{}.{}", service.name(), method.name()),
            None => service.name().to_owned(),
        })
    };
    descriptor
        .source_code_info
        .iter()
        .flat_map(|info| &info.location)
        .filter(|location| lines(&location.span).contains(&line))
        .filter_map(|location| named(&location.path).map(|name| (location.path.len(), name)))
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, name)| name)
}

/// The lines of a span, from 1: `[line, column, column]` or `[line, column, line, column]`, from 0.
fn lines(span: &[i32]) -> std::ops::RangeInclusive<usize> {
    let line =
        |at: usize| span.get(at).and_then(|line| usize::try_from(*line).ok()).unwrap_or(0) + 1;
    if span.len() == 4 { line(0)..=line(2) } else { line(0)..=line(0) }
}

/// What to write instead, where an annotation is meant.
fn advice_at(file: &File, line: usize) -> &'static str {
    let text = file.source().and_then(|source| source.lines().nth(line - 1)).unwrap_or_default();
    if !text.contains("countersign") {
        ""
    } else if file.file_descriptor_proto().dependency.iter().any(|import| import == AUTH_NAME) {
        "; the annotations are `(countersign.v1.service).audience`, `(countersign.v1.auth).scopes` and \
         `(countersign.v1.auth).public`"
    } else {
        "; add `import \"countersign/v1/auth.proto\";`"
    }
}
