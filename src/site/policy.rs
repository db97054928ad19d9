//! What a page may load and run: its Content-Security-Policy. Text from a corpus or a language model
//! is escaped; should that ever fail, nothing of it runs and no host is asked.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};

/// Of a page with its files beside it. `'self'` is no folder where a page is opened from a disk, at
/// least not in Firefox; `file:` is.
pub(super) fn of_site() -> String {
    let own = ["script-src", "style-src", "img-src"].map(|what| format!("{what} 'self' file:"));
    let own = own.join("; ");
    format!("default-src 'none'; {own}; base-uri 'none'; form-action 'self' file:")
}

/// Of a page with these scripts and this style in it, which needs no other file.
pub(super) fn of_inline(scripts: &[&str], style: &str) -> String {
    let hashes: Vec<String> = scripts.iter().map(|script| hash(script)).collect();
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; base-uri 'none'; \
         form-action 'none'",
        hashes.join(" "),
        hash(style)
    )
}

/// How a policy names the text between two tags.
pub(super) fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_the_standard() {
        // From the specification of Content Security Policy, level 3, section 2.3.1.
        let script = "alert('Hello, world.');";
        assert_eq!(hash(script), "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='");
    }
}
