//! A simulated hypervisor for tests: domains, grants, event channels, xenstored, netback, virtual time
