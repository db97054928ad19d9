//! Lists and search of a site in Chromium.

use crate::bench::Bench;
use crate::browser::{Browser, address};

#[test]
fn pages_open_without_complaints() {
    let Some(mut browser) = Browser::start() else { return };
    let bench = Bench::finished();
    for name in ["index.html", "features/index.html", "components/index.html", "pairs/index.html"] {
        browser.open(&address(&bench.file("site").join(name)));
        assert!(browser.text("document.querySelector('h1').textContent").len() > 2);
        assert!(browser.complaints.is_empty(), "{name}: {:?}", browser.complaints);
    }
}
