//! Pages shared with another Xen domain: grant table and shared rings
