//! The stand-in for IBM Cloud as a program for pods: `cloud ADDRESS` serves it, and under the name `ibmcloud` it is the
//! stand-in for that command; `cloud provider ADDRESS ISSUER KEYS AUDIENCE` is an authorization server and its API.
#![allow(clippy::unwrap_used, reason = "this is a test's")]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    if Path::new(&name).file_name().is_some_and(|name| name == "ibmcloud") {
        return ExitCode::from(e2e::cloud::ibmcloud::main(&arguments));
    }
    if arguments[0] == "provider" {
        let [_, address, issuer, keys, audience] = arguments.as_slice() else { return ExitCode::FAILURE };
        let provider = e2e::provider::Provider::at(address);
        let keys = serde_json::from_str(keys).unwrap();
        provider.trust(e2e::provider::Trust { issuer: issuer.clone(), keys, audience: audience.clone() });
        loop {
            std::thread::park();
        }
    }
    e2e::cloud::serve(&std::net::TcpListener::bind(&arguments[0]).unwrap());
    ExitCode::SUCCESS
}
