//! Xen network frontend
