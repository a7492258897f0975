//! The attribute `#[fata::main]`; see the crate `fata` for its documentation and examples.
#![forbid(unsafe_code)]

mod main_fn;

use proc_macro::TokenStream;

/// Makes an async function the program: the one that starts when the image boots.
///
/// The function is `async fn main(env: Env)`, and returns nothing, [`ExitCode`], or a `Result` of either whose error
/// can become a `Box<dyn core::error::Error>`. When it returns, the machine is switched off: with exit status 0, with
/// the code that it returned, or, for an error, with status 1 after the error has been printed.
///
/// On a target without an operating system the attribute emits the function that the boot code calls. Anywhere else
/// it emits a `main` that says how to run the program.
///
/// [`ExitCode`]: https://docs.rs/fata/latest/fata/struct.ExitCode.html
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    main_fn::expand(arguments.into(), item.into())
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
