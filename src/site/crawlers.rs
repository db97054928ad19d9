//! What search engines read: `robots.txt` and, if the site's address is known, its pages.

use super::text::escape;
use std::fmt::Write;

/// As many addresses as one sitemap may have.
const MOST: usize = 50_000;

/// Names and texts of the files. `pages` are those that one would look for, from the site's folder.
pub(super) fn files<'a>(
    base_url: &str,
    pages: impl Iterator<Item = &'a str>,
) -> Vec<(String, String)> {
    let mut robots = String::from("User-agent: *\nAllow: /\n");
    if base_url.is_empty() {
        return vec![("robots.txt".into(), robots)];
    }
    let base = base_url.trim_end_matches('/');
    let _ = write!(robots, "\nSitemap: {base}/sitemap.xml\n");
    let mut files = vec![("robots.txt".into(), robots)];
    let pages: Vec<String> = pages.map(|page| address(base, page)).collect();
    if pages.len() <= MOST {
        files.push(("sitemap.xml".into(), sitemap("urlset", "url", &pages)));
        return files;
    }
    let parts = pages.chunks(MOST).enumerate();
    let parts = parts.map(|(i, part)| (format!("sitemap-{i}.xml"), sitemap("urlset", "url", part)));
    files.extend(parts);
    let named = files[1..].iter().map(|(name, _)| address(base, name));
    let index = sitemap("sitemapindex", "sitemap", &named.collect::<Vec<_>>());
    files.push(("sitemap.xml".into(), index));
    files
}

/// The address of a page, as the page itself has it.
fn address(base: &str, page: &str) -> String {
    format!("{base}/{page}")
}

fn sitemap(all: &str, one: &str, addresses: &[String]) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{all} \
         xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n"
    );
    for address in addresses {
        let _ = writeln!(out, "<{one}><loc>{}</loc></{one}>", escape(address));
    }
    out + &format!("</{all}>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pages_than_a_sitemap_may_have_are_in_several() {
        let pages: Vec<String> = (0..MOST + 1).map(|i| format!("features/{i}.html")).collect();
        let files = files("https://example.org/a/", pages.iter().map(String::as_str));
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["robots.txt", "sitemap-0.xml", "sitemap-1.xml", "sitemap.xml"]);
        assert_eq!(files[1].1.matches("<loc>").count(), MOST);
        assert!(files[3].1.contains("<loc>https://example.org/a/sitemap-1.xml</loc>"));
    }
}
