//! TLS, trust, proxies, names and HTTP: how Postern reaches any server, the cluster's API server among them.

pub mod address;
pub mod busy;
pub mod client;
pub mod connector;
pub mod error;
mod resolver;
pub mod tls;
pub mod web;
