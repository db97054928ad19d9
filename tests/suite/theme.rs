//! Light and dark in Chromium: by the system, or as a reader chose. Skipped, with the reason printed, where there
//! is no Chromium.

use crate::bench::Bench;
use crate::browser::{Browser, address, serve};
use serde_json::json;

const LIGHT: &str = "rgb(251, 250, 247)";
const DARK: &str = "rgb(20, 24, 27)";

/// Notes what was chosen by the time that there is a body to draw.
const FIRST: &str = "new MutationObserver((_, watch) => { if (document.body) { \
    window.atFirst = document.documentElement.dataset.theme || ''; watch.disconnect(); } \
    }).observe(document, {childList: true, subtree: true});";

impl Browser {
    /// What the system is set to, and whether the page is on a screen or on paper.
    fn set_system(&mut self, theme: &str, media: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": theme});
        self.call("Emulation.setEmulatedMedia", json!({"media": media, "features": [feature]}));
    }

    fn choose_theme(&mut self, theme: &str) {
        self.ask(&format!(
            "(() => {{ const s = document.getElementById('theme'); s.value = {theme:?}; \
             s.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
        ));
    }

    fn paper(&mut self) -> String {
        self.text("getComputedStyle(document.body).backgroundColor")
    }
}

#[test]
fn pages_follow_the_system_until_a_reader_chooses() {
    let Some(mut browser) = Browser::start() else { return };
    let bench = Bench::finished();
    let site = bench.file("site");
    let served = serve(site.clone(), "some/where");
    browser.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": FIRST}));
    for root in [address(&site) + "/", served] {
        browser.set_system("light", "screen");
        browser.open(&format!("{root}index.html"));
        assert_eq!(browser.paper(), LIGHT);
        browser.set_system("dark", "screen");
        assert_eq!(browser.paper(), DARK, "nothing is chosen");
        browser.choose_theme("light");
        assert_eq!(browser.paper(), LIGHT);
        // On other pages too, before they are drawn.
        browser.open(&format!("{root}features/index.html"));
        assert_eq!(
            (browser.text("window.atFirst"), browser.paper()),
            ("light".into(), LIGHT.into())
        );
        assert_eq!(browser.text("document.getElementById('theme').value"), "light");
        browser.set_system("light", "screen");
        browser.choose_theme("dark");
        browser.open(&format!("{root}404.html"));
        assert_eq!((browser.text("window.atFirst"), browser.paper()), ("dark".into(), DARK.into()));
        browser.set_system("light", "print");
        assert_eq!(browser.paper(), "rgb(255, 255, 255)", "paper is light");
        browser.set_system("light", "screen");
        browser.choose_theme("");
        assert_eq!(browser.paper(), LIGHT);
        browser.reload();
        assert_eq!(
            (browser.text("window.atFirst"), browser.paper()),
            (String::new(), LIGHT.into())
        );
        assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    }
}

#[test]
fn the_choice_of_a_theme_has_a_name_and_needs_scripts() {
    let Some(mut browser) = Browser::start() else { return };
    let bench = Bench::finished();
    let page = address(&bench.file("site/index.html"));
    browser.open(&page);
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let named = tree["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .any(|node| node["role"]["value"] == "combobox" && node["name"]["value"] == "Theme");
    assert!(named, "{tree}");
    let shown = "getComputedStyle(document.querySelector('.theme')).display !== 'none'";
    assert_eq!(browser.ask(shown), true);
    browser.scripts(false);
    browser.open(&page);
    assert_eq!(browser.ask(shown), false);
}
