//! Token answers, STS answers, kept tokens, JWTs and paths of proxied requests: read or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| postern_identity::fuzzing::all(bytes));
