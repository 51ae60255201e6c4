//! Bodies of requests, and answers read for calls of tools.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| gateway::fuzzing::body(bytes));
