//! Xenstore client and the xenbus handshake
