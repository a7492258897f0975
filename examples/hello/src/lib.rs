//! Fata example: hello
