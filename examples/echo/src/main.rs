//! The services as an image: `cargo fata run echo`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

use fata::{Env, NetworkError};

#[fata::main]
async fn main(env: Env) -> Result<(), NetworkError> {
    echo::serve(env).await
}
