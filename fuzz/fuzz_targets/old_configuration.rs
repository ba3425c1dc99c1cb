//! A configuration file of the library that BioXen replaces.

#![no_main]

use bioxen_xcp::import::{Import, Wishes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(import) = Import::parse(text, &Wishes::default()) else { return };
    for pool in &import.pools {
        assert!(!import.findings.is_empty(), "pool `{}` comes from nowhere", pool.name);
        let Some(password) = &pool.password else { continue };
        let shown = format!("{import:?}");
        // Shorter ones may well be a part of something else.
        let secret = password.expose().len() > 12 && text.matches(password.expose()).count() == 1;
        assert!(!secret || !shown.contains(password.expose()), "a password is shown");
    }
});
