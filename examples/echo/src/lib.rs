//! Fata example: echo
