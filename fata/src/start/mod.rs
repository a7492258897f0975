//! Where a program begins: what `#[fata::main]` calls.

#[cfg(not(target_os = "none"))]
pub mod host;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod metal;

/// Emits the function at which a program begins. `#[fata::main]` uses it; an application does not.
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __entry {
    ($application:ident) => {
        $crate::start::metal::entry!(__fata_start);
        fn __fata_start(boot: $crate::start::metal::BootInfo) -> $crate::start::metal::ExitStatus {
            $crate::start::metal::run(boot, $application)
        }
    };
}

/// The same where there is an operating system.
#[cfg(not(target_os = "none"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __entry {
    ($application:ident) => {
        fn main() -> $crate::start::host::ExitCode {
            $crate::start::host::run(option_env!("CARGO_BIN_NAME").unwrap_or("NAME"), $application)
        }
    };
}
