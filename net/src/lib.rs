//! Async TCP, UDP, DNS and DHCP over smoltcp, and the network device trait
