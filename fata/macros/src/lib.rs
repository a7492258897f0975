//! The #[fata::main] attribute
