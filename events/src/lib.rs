//! The cooperative loop: tasks, timers, wakers; and Xen event channels
