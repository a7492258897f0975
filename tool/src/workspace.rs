//! The workspace and the applications in it.

use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};
use serde::Deserialize;

use crate::error::Error;

/// A cargo workspace, as `cargo metadata` describes it.
pub(crate) struct Workspace {
    metadata: Metadata,
}

/// What an application says of itself under `[package.metadata.fata]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Application {
    /// The guest's memory in MiB.
    pub(crate) memory: u32,
    /// Whether it wants a network interface.
    pub(crate) network: bool,
    /// The TCP port on which it serves HTTP.
    pub(crate) http: Option<u16>,
    /// A TCP port on which it listens, if it serves no HTTP.
    pub(crate) tcp: Option<u16>,
    /// Bytes that its stripped image may have; more fails the tests.
    pub(crate) size_limit: Option<u64>,
}

impl Application {
    /// The port that tells whether it works.
    pub(crate) fn port(&self) -> Option<u16> {
        self.http.or(self.tcp)
    }
}

impl Default for Application {
    fn default() -> Self {
        Self {
            memory: 8,
            network: false,
            http: None,
            tcp: None,
            size_limit: None,
        }
    }
}

impl Workspace {
    /// The workspace around the current folder.
    pub(crate) fn find() -> Result<Self, Error> {
        let metadata = MetadataCommand::new().no_deps().exec().map_err(Error::Metadata)?;
        Ok(Self { metadata })
    }

    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Where cargo builds.
    pub(crate) fn target_dir(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// Where finished images go.
    pub(crate) fn dist(&self) -> PathBuf {
        self.root().join("dist")
    }

    /// The libraries for others to use, and where they are.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = (&str, &Path)> {
        let packages = self.metadata.packages.iter();
        packages
            .filter(|package| package.name.starts_with("fata") && package.name.as_str() != "fata-ci")
            .filter(|package| {
                package
                    .targets
                    .iter()
                    .any(|target| target.is_lib() || target.is_proc_macro())
            })
            .filter_map(|package| Some((package.name.as_str(), package.manifest_path.parent()?.as_std_path())))
    }

    /// The application `name`. An application is a package with `[package.metadata.fata]`.
    pub(crate) fn application(&self, name: &str) -> Result<Application, Error> {
        let metadata = self
            .metadata
            .packages
            .iter()
            .filter(|package| package.name.as_str() == name)
            .find_map(|package| package.metadata.get("fata"))
            .ok_or_else(|| Error::NoApplication {
                name: name.into(),
                known: self.applications(),
            })?;
        Application::deserialize(metadata).map_err(|why| Error::BadMetadata {
            application: name.into(),
            why,
        })
    }

    /// The names of all applications.
    pub(crate) fn applications(&self) -> Vec<String> {
        let packages = self.metadata.packages.iter();
        packages
            .filter(|p| p.metadata.get("fata").is_some())
            .map(|p| p.name.to_string())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_has_defaults_and_no_room_for_typing_errors() {
        let parse = |text: &str| serde_json::from_str::<Application>(text);
        assert_eq!(parse("{}").unwrap(), Application::default());
        let http = parse(r#"{"memory": 4, "network": true, "http": 80, "size-limit": 9}"#).unwrap();
        assert_eq!(
            http,
            Application {
                memory: 4,
                network: true,
                http: Some(80),
                tcp: None,
                size_limit: Some(9),
            }
        );
        assert!(parse(r#"{"memroy": 4}"#).is_err());
        assert!(parse(r#"{"http": 70000}"#).is_err());
    }

    #[test]
    fn finds_the_examples_and_names_them_when_asked_for_another() {
        let workspace = Workspace::find().unwrap();
        assert_eq!(workspace.application("http").unwrap().http, Some(80));
        let error = workspace.application("nothing").unwrap_err().to_string();
        assert!(error.contains("http") && error.contains("hello"), "{error}");
    }
}
