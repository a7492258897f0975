//! From the first instruction to main: PVH entry, page tables, heap, faults, shutdown
