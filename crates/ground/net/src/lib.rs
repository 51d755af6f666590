//! TLS, CA certificates, proxies, name resolution and HTTP, for the API server and for any other server.

pub mod address;
pub mod busy;
pub mod client;
pub mod connector;
pub mod error;
mod resolver;
pub mod tls;
pub mod web;
