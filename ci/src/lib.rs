//! The machines the integration tests run on, and those tests
