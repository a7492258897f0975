//! The web server as an image: `cargo fata run http`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

use fata::{Env, NetworkError};

#[fata::main]
async fn main(env: Env) -> Result<(), NetworkError> {
    http::serve(env).await
}
