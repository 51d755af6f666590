//! Pull Secrets: read or refused, never a panic and never a credential in an error; a narrowed one covers no more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_registry::{DockerConfig, Format, Image, Pattern, intersection};

fuzz_target!(|input: (Vec<u8>, String, String, bool)| {
    let (data, first, second, is_legacy) = input;
    let patterns: Vec<Pattern> = [&first, &second].into_iter().filter_map(|text| text.parse().ok()).collect();
    if let [one, other] = patterns.as_slice() {
        if let Some(both) = one.and(other) {
            assert!(one.covers(&both) && other.covers(&both));
        }
        let _ = intersection(std::slice::from_ref(one), std::slice::from_ref(other));
    }
    let format = if is_legacy { Format::DockerCfg } else { Format::DockerConfigJson };
    let config = match DockerConfig::parse(format, &data) {
        Ok(config) => config,
        Err(_) => return,
    };
    // A copy is read as it was written.
    assert_eq!(DockerConfig::parse(format, &config.to_bytes()).as_ref(), Ok(&config));
    let narrowed = config.narrowed(&patterns);
    if let Ok(image) = second.parse::<Image>() {
        let keys = narrowed.keys_for(&image);
        if !patterns.is_empty() && !keys.is_empty() {
            assert!(patterns.iter().any(|pattern| pattern.matches(&image)));
        }
        for key in config.keys_for(&image) {
            let _ = config.login(key);
        }
    }
});
