//! The configuration file is read, or refused with a message; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_config::Config;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    match Config::parse(bytes, Path::new("config.yaml")) {
        Ok(config) => {
            // What was accepted must also be usable.
            for name in config.credentials.keys() {
                let _ = config.credential(name);
            }
            for (name, tool) in &config.tools {
                assert_eq!(config.timeout(name).is_some(), tool.timeout.is_some());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
