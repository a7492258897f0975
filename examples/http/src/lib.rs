//! Fata example: http
