//! All that the network benchmark asks for: a web server with statistics, echo, discard and chargen, and a datagram
//! source and sink. `fata-peer serve` offers the same on Linux.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

mod datagrams;

use fata::{Env, NetworkError};

#[fata::main]
async fn main(env: Env) -> Result<(), NetworkError> {
    let net = env.net().await?;
    env.spawn(datagrams::sink(net.clone())).detach();
    env.spawn(datagrams::source(net)).detach();
    env.spawn(echo::serve(env.clone())).detach();
    http::serve(env).await
}
