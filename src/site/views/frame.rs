//! Pages around the pages: that for an address without one, and pages at addresses of before.

use super::parts::Page;
use crate::site::links::Site;
use crate::site::text::{Html, escape, html};
use serde::Serialize;

/// What a server shows where there is no page: at any address, so its links begin at the server's
/// root if the site's address is known.
#[derive(Serialize)]
pub(crate) struct MissingView {
    page: Page,
    index: Html,
}

impl MissingView {
    pub(crate) fn new(site: &Site) -> MissingView {
        let links = site.at_root();
        let title = "Page not found".to_string();
        let mut page =
            Page::new(links, "missing", "404.html", title, "There is no page here.".into());
        page.inline = true;
        page.url = None;
        page.root = html(escape(&root_of(&site.atlas.base_url)));
        MissingView { index: html(format!("{}index.html", page.root)), page }
    }
}

/// The folder of an address on its server: `/atlas/` of `https://example.org/atlas`. Empty of none.
fn root_of(address: &str) -> String {
    let Some((_, rest)) = address.split_once("://") else { return String::new() };
    let folder = rest.split_once('/').map_or("", |(_, folder)| folder.trim_end_matches('/'));
    if folder.is_empty() { "/".into() } else { format!("/{folder}/") }
}

/// At an address of before: the way to the page.
#[derive(Serialize)]
pub(crate) struct MovedView {
    /// The page's new file from this one, and its own address if the site has one.
    href: Html,
    url: Html,
}

impl MovedView {
    /// `to` is the page's file in the site's folder, in the same folder as the old one.
    pub(crate) fn new(site: &Site, to: &str) -> MovedView {
        let href = html(escape(to.rsplit_once('/').map_or(to, |(_, name)| name)));
        let base = site.atlas.base_url.trim_end_matches('/');
        let url =
            if base.is_empty() { href.clone() } else { html(escape(&format!("{base}/{to}"))) };
        MovedView { href, url }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_site_on_its_server() {
        for (address, root) in [
            ("", ""),
            ("https://example.org", "/"),
            ("https://example.org/", "/"),
            ("https://example.org/a/b/", "/a/b/"),
        ] {
            assert_eq!(root_of(address), root, "{address}");
        }
    }
}
