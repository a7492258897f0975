//! The Xen console ring, never blocking
