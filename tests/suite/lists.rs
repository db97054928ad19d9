//! Lists and search of a site in Chromium: from a disk, and from a server under a path.

use crate::bench::Bench;
use crate::browser::{Browser, address, serve};

/// A finished site, and a browser to open it with.
fn site() -> Option<(Bench, Browser)> {
    let browser = Browser::start()?;
    Some((Bench::finished(), browser))
}

fn page(bench: &Bench, name: &str) -> String {
    address(&bench.file("site")) + "/" + name
}

/// How far things moved by themselves since the page was opened.
const MOVED: &str = "new Promise((done) => { let sum = 0; new PerformanceObserver((list) => { \
    for (const one of list.getEntries()) if (!one.hadRecentInput) sum += one.value; \
    }).observe({type: 'layout-shift', buffered: true}); setTimeout(() => done(sum), 300); })";

const ROWS: &str = "[...document.querySelectorAll('#list tbody tr')]";
const NAMES: &str = "[...document.querySelectorAll('#list tbody .c-name')].map((cell) => cell.textContent).join(' ')";

/// The number at the start of what the list says that it shows.
const SHOWN: &str = "Number(document.querySelector('#choose output').textContent.split(' ')[0])";

/// Chooses a value of a facet by its number among those that have rows.
fn choose(browser: &mut Browser, facet: &str, value: usize) {
    browser.ask(&format!(
        "(() => {{ const s = document.querySelector('select[name={facet}]'); \
         s.selectedIndex = {value}; s.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
    ));
}

#[test]
fn the_search_finds_words_and_names_by_keys() {
    let Some((bench, mut browser)) = site() else { return };
    browser.open(&page(&bench, "dictionaries/index.html"));
    browser.press("/");
    assert_eq!(browser.text("document.activeElement.getAttribute('role')"), "combobox");
    // A word of the demo's stories: grouped, counted, and text only.
    browser.write("mary");
    browser.until("document.querySelectorAll('#hits [role=option]').length > 1");
    let kinds = browser.text(
        "[...document.querySelectorAll('#hits [role=group] > p')].map((p) => p.textContent).join()",
    );
    assert!(kinds.contains("Features ") && kinds.chars().any(|c| c.is_ascii_digit()), "{kinds}");
    assert_eq!(browser.text("document.querySelector('#search input').ariaExpanded"), "true");
    browser.press("ArrowDown");
    let active = "document.querySelector('#search input').getAttribute('aria-activedescendant')";
    assert_eq!(browser.text(active), "hit-0-0");
    browser.press("ArrowUp");
    browser.press("ArrowUp");
    assert_eq!(browser.text(active), "hit-all");
    browser.press("Escape");
    assert_eq!(browser.ask("document.querySelector('#hits').hidden"), true);
    // A name, and the way there.
    browser.ask("document.querySelector('#search input').value = ''");
    browser.write("att1.3");
    browser.until("document.querySelector('#hits b')?.textContent === 'att1.3'");
    browser.press("ArrowDown");
    browser.follow(|browser| browser.press("Enter"));
    assert!(browser.text("location.pathname").ends_with("/features/att1.3.html"));
    // Nothing.
    browser.ask("document.querySelector('#search input').focus()");
    browser.write("zzxqy");
    browser.until("document.querySelector('#hits .none')");
    let said = browser.text("document.querySelector('#hits .none').textContent");
    assert_eq!(said, "Nothing found for “zzxqy”.");
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    // Without a choice, the page of the search.
    browser.follow(|browser| browser.press("Enter"));
    assert!(browser.text("location.href").ends_with("/search.html?q=zzxqy"));
    browser.until("document.getElementById('told').textContent.includes('Nothing found')");
}

#[test]
fn a_search_is_an_address_from_a_disk_and_from_a_server() {
    let Some((bench, mut browser)) = site() else { return };
    let served = serve(bench.file("site"), "some/where");
    for site in [page(&bench, ""), served] {
        browser.open(&format!("{site}search.html?q=mary%20said"));
        browser.until("document.querySelectorAll('#found .results li').length");
        let both = browser.ask("Number(document.getElementById('told').textContent.split(' ')[0])");
        assert!(browser.text("document.title").starts_with("mary said"));
        browser.open(&format!("{site}search.html?q=mary"));
        browser.until("document.querySelectorAll('#found .results li').length");
        let one = browser.ask("Number(document.getElementById('told').textContent.split(' ')[0])");
        assert!(both.as_u64().unwrap() <= one.as_u64().unwrap());
        browser.ask("document.querySelector('.search-page input').focus()");
        browser.write(" zzxqy");
        browser.until("document.getElementById('told').textContent.startsWith('Nothing found')");
        assert!(browser.text("location.search").ends_with("zzxqy"));
        assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
        // What is found can be chosen from in the list.
        browser.open(&format!("{site}features/index.html#q=mary"));
        browser.until("document.querySelector('#choose output').textContent.includes(' of ')");
        assert_eq!(browser.text("document.querySelector('#choose input').value"), "mary");
        let first = browser.text("document.querySelector('#list .c-name a').href");
        assert!(first.starts_with(&site), "{first}");
        assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    }
}

#[test]
fn markup_that_is_asked_for_is_text() {
    let Some((bench, mut browser)) = site() else { return };
    browser.open(&page(&bench, "search.html?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"));
    browser.until("document.getElementById('told').textContent.includes('<img src=x')");
    assert_eq!(browser.ask("document.querySelectorAll('main img').length"), 0);
    browser.open(&page(&bench, "features/index.html#q=%E0%A4&task=%3Cb%3E&page=-1&sort=nothing"));
    assert!(browser.ask(&format!("{ROWS}.length >= 0")) == true);
}

#[test]
fn facets_and_orders_change_rows_and_address_and_stay() {
    let Some((bench, mut browser)) = site() else { return };
    browser.open(&page(&bench, "features/index.html"));
    let all = browser.ask(SHOWN).as_u64().unwrap();
    let first = browser.text(NAMES);
    choose(&mut browser, "kind", 1);
    browser.until("location.hash === '#kind=0'");
    browser.until("document.querySelector('#choose output').textContent.includes(' of ')");
    let own = browser.ask(SHOWN).as_u64().unwrap();
    assert!(own > 0 && own < all);
    assert!(browser.text(NAMES).split(' ').all(|name| name.starts_with("att")));
    // As many as the option said.
    let option =
        browser.text("document.querySelector('select[name=kind]').selectedOptions[0].text");
    assert!(option.contains(&format!("({own})")), "{option}");
    // By a header, down and up.
    browser.click("th.c-density button");
    browser.until("location.hash.includes('sort=-density')");
    browser.until("document.querySelector('th.c-density').ariaSort === 'descending'");
    let densities = "[...document.querySelectorAll('#list tbody .c-density')].map((cell) => \
         parseFloat(cell.textContent))";
    browser.until(&format!("{densities}.every((d, i, all) => !i || d <= all[i - 1] + 1e-9)"));
    let sorted = browser.text(NAMES);
    browser.reload();
    browser.until(&format!("{NAMES} === {sorted:?}"));
    assert_eq!(browser.text("document.querySelector('select[name=sort]').value"), "-density");
    browser.click("th.c-density button");
    browser.until("document.querySelector('th.c-density').ariaSort === 'ascending'");
    // The way back.
    browser.ask("history.back()");
    browser.until(&format!("{NAMES} === {sorted:?}"));
    browser.click("#choose button[type=reset]");
    browser.until(&format!("{NAMES} === {first:?}"));
    assert_eq!(browser.ask(SHOWN).as_u64(), Some(all));
    // Nothing left.
    browser.ask("document.querySelector('#choose input').focus()");
    browser.write("zzxqy");
    browser.until("!document.getElementById('nothing').hidden");
    browser.click("#nothing a");
    browser.until(&format!("{NAMES} === {first:?}"));
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[test]
fn rows_are_paged_and_the_static_rows_are_those_of_the_script() {
    let Some((bench, mut browser)) = site() else { return };
    let more: Vec<String> = (0..60).map(|i| format!("\"mlp{}.{i}\"", i % 4)).collect();
    let bench = bench.add(&format!("[score]\nextra = [{}]\n", more.join(", ")));
    bench.run(&[]).succeeded();
    browser.open(&page(&bench, "features/index.html"));
    let markup = format!("{ROWS}.map((row) => row.textContent.trim()).join('\\n')");
    let written = browser.text(&markup);
    let all = browser.ask(SHOWN).as_u64().unwrap();
    assert!(all > 60, "only {all} features");
    browser.click("#pages a[aria-label='Next page']");
    browser.until("location.hash === '#page=2'");
    browser.until("document.querySelector('#pages [aria-current]').textContent === '2'");
    let rows = browser.ask(&format!("{ROWS}.length")).as_u64().unwrap();
    assert_eq!(rows, all.min(100) - 50);
    browser.click("#pages a[aria-label='Previous page']");
    browser.until("document.querySelector('#pages [aria-current]').textContent === '1'");
    assert_eq!(browser.text(&markup), written);
    for name in ["components", "pairs"] {
        browser.open(&page(&bench, &format!("{name}/index.html")));
        let written = browser.text(&markup);
        browser.ask("location.hash = 'page=1'");
        browser.until("document.querySelector('nav.pages span')");
        assert_eq!(browser.text(&markup), written, "{name}");
        assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    }
}

#[test]
fn nothing_moves_while_lists_load() {
    let Some((bench, mut browser)) = site() else { return };
    for (width, height) in [(1280, 900), (768, 1000), (390, 800)] {
        browser.size(width, height);
        for name in [
            "features/index.html",
            "features/index.html#sort=-max&page=2",
            "components/index.html",
            "pairs/index.html",
            "tasks/index.html",
            "graphs/index.html",
            "search.html",
        ] {
            browser.open(&page(&bench, name));
            let moved = browser.ask(MOVED).as_f64().unwrap();
            assert!(moved < 0.05, "{name} at {width}: {moved}");
            let wide =
                "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.ask(wide), 0, "{name} at {width} is too wide");
        }
    }
}

#[test]
fn without_scripts_every_feature_is_in_the_lists() {
    let Some((bench, mut browser)) = site() else { return };
    browser.scripts(false);
    browser.open(&page(&bench, "features/index.html"));
    let seen = "getComputedStyle(document.querySelector('#choose')).display";
    assert_eq!(browser.text(seen), "none");
    let all = browser.ask(SHOWN).as_u64().unwrap();
    let links = "[...document.querySelectorAll('#plain a')].map((a) => a.href).join(' ')";
    let ways: Vec<String> = browser.text(links).split(' ').map(str::to_string).collect();
    assert!(ways.iter().any(|way| way.contains("features-task-ioi-1")), "{ways:?}");
    assert!(ways.iter().any(|way| way.contains("features-layer-1-1")), "{ways:?}");
    assert!(ways.iter().any(|way| way.contains("features-component-")), "{ways:?}");
    let (mut found, mut next) = (0, ways[0].clone());
    while !next.is_empty() {
        browser.open(&next);
        found +=
            browser.ask("document.querySelectorAll('.list tbody tr').length").as_u64().unwrap();
        next = browser.text("document.querySelector('a[rel=next]')?.href || ''");
    }
    assert_eq!(found, all);
    browser.open(&page(&bench, "search.html"));
    assert!(
        browser.text("document.querySelector('main noscript').textContent").contains("JavaScript")
    );
}

/// The milliseconds until something holds after a step in the page.
fn time_until(browser: &mut Browser, step: &str, holds: &str) -> f64 {
    let wait = format!(
        "new Promise((done) => {{ const start = performance.now(); \
         new MutationObserver((_, all) => {{ if (!({holds})) return; all.disconnect(); \
         done(performance.now() - start); }}).observe(document.body, {{childList: true, \
         characterData: true, subtree: true}}); {step}; }})"
    );
    browser.ask(&wait).as_f64().unwrap()
}

/// The bytes of the page, its scripts and its styles, and of scripts that were added since this was first
/// asked on the page. Of files, browsers list no resources.
fn bytes_loaded(browser: &mut Browser) -> u64 {
    let names = "(() => { if (!window.added) { window.added = new Set(); new MutationObserver((all) => \
                 all.forEach((one) => one.addedNodes.forEach((e) => e.src && added.add(e.src)))) \
                 .observe(document.head, {childList: true}); } \
                 const own = [...document.querySelectorAll('script[src], link[rel=stylesheet]')]; \
                 return [...new Set([location.href.split('#')[0], ...own.map((e) => e.src || e.href), \
                 ...added])].join(' '); })()";
    let loaded = browser.text(names);
    let size = |name: &str| std::fs::metadata(name.strip_prefix("file://").unwrap()).unwrap().len();
    loaded.split(' ').map(size).sum()
}

/// `LARGE_SITE=FOLDER cargo test --release --test suite -- --ignored --nocapture large_site`, on the site that
/// `twenty_thousand` of the unit tests makes.
#[test]
#[ignore = "prints how fast the lists and the search of a large site are"]
fn a_large_site_in_a_browser() {
    let Some(site) = std::env::var_os("LARGE_SITE").map(std::path::PathBuf::from) else { return };
    let Some(mut browser) = Browser::start() else { return };
    let list = address(&site) + "/features/index.html";
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let n = times.len();
        format!("median {:.0}, largest {:.0} ms of {n}", times[n / 2], times[n - 1])
    };
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..7 {
        browser.open(&list);
        let open = "performance.getEntriesByType('navigation')[0].loadEventEnd";
        browser.until(open);
        times.push(browser.ask(open).as_f64().unwrap());
        bytes = bytes_loaded(&mut browser);
    }
    println!("the list of features: {bytes} bytes, {}", middle(&mut times));
    let said = "document.querySelector('#choose output').textContent";
    let rows = "document.querySelectorAll('#list tbody tr').length";
    for (what, step) in [
        (
            "a facet",
            "const s = document.querySelector('select[name=layer]'); s.selectedIndex = 2; \
          s.dispatchEvent(new Event('change', {bubbles: true}))",
        ),
        ("an order", "document.querySelector('th.c-density button').click()"),
        ("a page", "document.querySelector('#pages a[aria-label=\"Next page\"]').click()"),
        (
            "a word",
            "const i = document.querySelector('#choose input'); i.value = 'jam'; \
          i.dispatchEvent(new Event('input', {bubbles: true}))",
        ),
    ] {
        let mut times = Vec::new();
        let mut most = 0;
        for _ in 0..7 {
            browser.open(&list);
            let before = bytes_loaded(&mut browser);
            let shown = browser.text(&format!("{said} + {NAMES}"));
            let other = format!("{said} + {NAMES} !== {shown:?} && {rows}");
            times.push(time_until(&mut browser, step, &other));
            most = bytes_loaded(&mut browser) - before;
        }
        println!(
            "{what} in the list for the first time: {most} bytes more, {}",
            middle(&mut times)
        );
    }
    // On any page, its files not read yet, as somebody who pastes a word; then as somebody who goes on typing.
    let (mut first, mut again, mut most) = (Vec::new(), Vec::new(), 0);
    let words = [
        "jamo", "mary", "att3.1", "wes", "pi", "numori", "said", "l2h", "dra", "the", "mlp1.10",
        "keta",
    ];
    for word in words.iter().cycle().take(3 * words.len()) {
        browser.open(&(address(&site) + "/glossary.html"));
        let before = bytes_loaded(&mut browser);
        let write = |word: &str| {
            format!(
                "document.getElementById('hits').replaceChildren(); const i = \
                 document.querySelector('#search input'); i.value = {word:?}; i.dispatchEvent(new Event('input', \
                 {{bubbles: true}}))"
            )
        };
        let there = "document.querySelector('#hits [role=option], #hits .none')";
        first.push(time_until(&mut browser, &write(word), there));
        most = most.max(bytes_loaded(&mut browser) - before);
        again.push(time_until(&mut browser, &write(word), there));
    }
    println!("the first results of a search: up to {most} bytes, {}", middle(&mut first));
    println!("the same again: {}", middle(&mut again));
}
