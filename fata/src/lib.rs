//! Fata, a library operating system: the one crate an application names
