//! Where in the source a guest was, from its console log or its core.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use fata_backtrace::{Image, explain};

use crate::cli::BacktraceArgs;
use crate::error::Error;
use crate::workspace::Workspace;

/// Prints it.
pub(crate) fn run(args: &BacktraceArgs) -> Result<(), Error> {
    let image = Image::open(&find(&args.image)?)?;
    let text = if args.from.as_os_str() == "-" {
        let mut input = Vec::new();
        io::stdin()
            .read_to_end(&mut input)
            .map_err(Error::file(Path::new("standard input")))?;
        explain(&image, Cursor::new(input))
    } else {
        explain(&image, File::open(&args.from).map_err(Error::file(&args.from))?)
    }?;
    print!("{text}");
    Ok(())
}

/// The file with the symbols: `http` is an application in the workspace, all else a path; beside `dist/http` lies
/// `dist/http.debug`.
fn find(image: &Path) -> Result<PathBuf, Error> {
    if image.extension().is_some_and(|extension| extension == "debug") {
        return Ok(image.into());
    }
    let mut name = image.as_os_str().to_owned();
    name.push(".debug");
    let beside = PathBuf::from(name);
    if beside.is_file() {
        return Ok(beside);
    }
    // A path, or a file of another name, is taken as it is.
    match image.to_str() {
        Some(name) if !name.contains('/') && !image.is_file() => {
            let workspace = Workspace::find()?;
            workspace.application(name)?;
            let path = workspace.dist().join(beside);
            if path.is_file() {
                Ok(path)
            } else {
                Err(Error::NotBuilt { name: name.into() })
            }
        }
        _ => Ok(image.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_every_name_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["http", "http.debug", "other"] {
            std::fs::write(path(name), "").unwrap();
        }
        assert_eq!(find(&path("http")).unwrap(), path("http.debug"));
        assert_eq!(find(&path("http.debug")).unwrap(), path("http.debug"));
        assert_eq!(find(&path("other")).unwrap(), path("other"));
        let error = find(Path::new("nothing")).unwrap_err().to_string();
        assert!(error.contains("hello") && error.contains("next: "), "{error}");
    }
}
