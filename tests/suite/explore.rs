//! Exploring pages in Chromium: whole contexts of examples, and graphs with their panel, threshold,
//! groups and keys. Skipped, with the reason printed, where there is no Chromium.

use crate::bench::Bench;
use crate::browser::{address, chromium, headless};
use std::path::Path;
use std::process::Command;

/// A page that has another one in a frame and does some steps there.
const DRIVER: &str = r#"<!DOCTYPE html><meta charset="utf-8"><body><script>
const frame = document.createElement("iframe");
frame.style = "width: 1280px; height: 900px";
const $ = (selector) => frame.contentDocument.querySelector(selector);
const $$ = (selector) => [...frame.contentDocument.querySelectorAll(selector)];
const sees = (element) => element && frame.contentWindow.getComputedStyle(element).display !== "none";
const wait = (what, test) => new Promise((done, failed) => {
  let left = 200;
  const look = () => (test() ? done() : left-- ? setTimeout(look, 20) : failed(new Error("never: " + what)));
  look();
});
const check = (what, is) => { if (!is) throw new Error(what); };
const open = (page) => new Promise((done) => {
  frame.addEventListener("load", done, { once: true });
  if (frame.parentNode) frame.contentWindow.location.reload();
  else { frame.src = page; document.body.append(frame); }
});
const key = (element, key, more = {}) =>
  element.dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const click = (element, more = {}) =>
  element.dispatchEvent(new frame.contentWindow.MouseEvent("click", { bubbles: true, cancelable: true, ...more }));
(async () => {
  try {
    await open("PAGE");
    let errors = 0;
    frame.contentWindow.addEventListener("error", () => { errors += 1; });
    STEPS
    check("no script fails", errors === 0);
    document.title = "passed";
  } catch (error) {
    document.title = "failed: " + error.message;
  }
})();
</script>"#;

/// Does the steps on the first page of a folder of the site whose text holds something, as it is
/// opened from a disk.
#[track_caller]
fn drive(folder: &str, holds: &str, steps: &str) {
    let Some(chromium) = chromium() else { return };
    let bench = Bench::finished();
    let site = bench.file("site");
    let page = first_with(&site, folder, holds);
    let driver = site.join("driver.html");
    std::fs::write(&driver, DRIVER.replace("PAGE", &page).replace("STEPS", steps)).unwrap();
    let output = Command::new(chromium)
        .args(headless(&bench.file("chromium")))
        // For the page around the frame; the page itself needs no such leave.
        .arg("--allow-file-access-from-files")
        .args(["--virtual-time-budget=20000", "--window-size=1400,1000", "--dump-dom"])
        .arg(address(&driver))
        .output()
        .unwrap();
    std::fs::remove_file(&driver).unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let said = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    assert_eq!(said, Some("passed"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The first file of a folder of the site whose text holds something.
fn first_with(site: &Path, folder: &str, text: &str) -> String {
    let mut names: Vec<String> = std::fs::read_dir(site.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".html"))
        .collect();
    names.sort();
    let has = |name: &String| {
        std::fs::read_to_string(site.join(folder).join(name)).unwrap().contains(text)
    };
    format!("{folder}/{}", names.into_iter().find(has).expect("a page of the kind"))
}

#[test]
fn the_whole_context_of_an_example_is_one_click_away() {
    drive(
        "features",
        "<li data-c=",
        r#"
        const item = $("li[data-c]");
        const [text, button] = [item.querySelector(".x"), item.querySelector("button.whole")];
        const window = text.textContent;
        check("closed at first", button.getAttribute("aria-expanded") === "false");
        button.click();
        await wait("it opens", () => button.getAttribute("aria-expanded") === "true");
        const plain = (text) => text.replace(/^…|…$/g, "");
        check("there is more text", text.textContent.length > window.length);
        check("the window is in it", text.textContent.includes(plain(window)));
        check("it has the peak", text.querySelectorAll("i.p").length === 1);
        check("with its value", text.querySelector("i.p").title === item.querySelector(".m b").textContent ||
            text.querySelector("i.p").getAttribute("aria-label") === item.querySelector(".m b").textContent);
        check("the text can be reached by Tab", text.tabIndex === 0);
        text.focus();
        key(text, "ArrowRight");
        const focused = frame.contentDocument.activeElement;
        check("an arrow goes to the peak", focused.classList.contains("p"));
        key(focused, "Home");
        check("and Home to the first value", frame.contentDocument.activeElement === text.querySelector("i"));
        button.click();
        await wait("it closes", () => button.getAttribute("aria-expanded") === "false");
        check("the window is back", text.textContent === window);
    "#,
    );
}

#[test]
fn a_graph_is_explored_by_pointer_and_by_keys() {
    drive(
        "graphs",
        "class=\"node mlp\"",
        r##"
        const node = $("a.node.mlp");
        const name = node.querySelector("text").textContent;
        // Choosing shows what the shared script of the feature says, and stays.
        click(node);
        const panel = $(".panel");
        check("the panel names it", panel.querySelector("h3").textContent === name);
        await wait("its examples come", () => panel.querySelector(".about .said"));
        check("a link to its page", panel.querySelector(`a[href="../features/${name}.html"]`));
        check("where it leads", panel.querySelectorAll(".ends li").length > 0);
        node.dispatchEvent(new frame.contentWindow.Event("pointerout", { bubbles: true }));
        check("it stays", panel.querySelector("h3").textContent === name);
        check("the address has it", frame.contentWindow.location.hash.includes("node=" + name + "@"));

        // The threshold hides weak links.
        const shown = () => $$(".links path").filter(sees).length;
        const all = shown();
        check("all links at first", all === $$(".links path").length && all > 1);
        const slider = $("#least");
        slider.value = "100";
        slider.dispatchEvent(new frame.contentWindow.Event("input", { bubbles: true }));
        slider.dispatchEvent(new frame.contentWindow.Event("change", { bubbles: true }));
        check("fewer at the highest", shown() < all);
        check("it is counted", $("#shown").textContent.startsWith(`${shown()} of ${all} `));
        slider.value = "0";
        slider.dispatchEvent(new frame.contentWindow.Event("input", { bubbles: true }));
        check("and back", shown() === all);

        // Keys: an arrow goes to another node, Enter chooses, Space selects, Escape closes.
        const active = () => frame.contentDocument.activeElement;
        node.focus();
        ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].find((way) => { key(active(), way); return active() !== node; });
        const other = active();
        check("an arrow moves the focus", other !== node && other.matches("a.node"));
        check("one node is a stop of Tab", $$("a.node").filter((node) => node.tabIndex === 0).length === 1);
        key(other, "Enter");
        check("Enter chooses", panel.querySelector("h3").textContent === other.querySelector("text").textContent);
        key(other, " ");
        check("Space selects", other.classList.contains("picked"));
        click(node, { shiftKey: true });
        check("Shift and a click do, too", node.classList.contains("picked"));
        key(other, "Escape");
        check("Escape closes", !panel.querySelector("h3") && !frame.contentWindow.location.hash.includes("node="));

        // Groups are drawn as one, and are still there when the page is loaded again.
        $("#group-name").value = "movers & <b>shakers</b>";
        $("#picking").requestSubmit();
        const group = () => $("a.node.group");
        check("the group is drawn", group() && group().textContent.includes("movers & <b>"));
        check("its members are not", !sees(node) && !sees(other));
        check("it is in the address", frame.contentWindow.location.hash.includes("group=movers"));
        await open();
        check("it survives", group() && group().textContent.includes("movers & <b>"));
        const hidden = $$("a.node").filter((node) => !sees(node));
        check("with both members", hidden.length === 2);
        check("and no markup", !$("#graph b b") && !$(".panel b b"));
        click(group());
        check("its panel has the members", $$(".panel .members li").length === 2);
        [...$$(".panel .acts button")].find((button) => button.textContent === "Dissolve").click();
        check("dissolved", !group() && $$("a.node").every(sees));
    "##,
    );
}

#[test]
fn what_is_chosen_comes_from_the_address_and_what_is_not_there_is_left_out() {
    drive(
        "graphs",
        "class=\"node mlp\"",
        r##"
        const hash = async (hash) => {
            frame.contentWindow.location.hash = hash;
            await new Promise((done) => setTimeout(done, 50));
        };
        await hash("#node=answer&least=0.5");
        check("the answer is chosen", $("a.node.root").classList.contains("chosen"));
        check("and the threshold is set", $("#least-told").textContent === "50.0%" && Number($("#least").value) > 50);
        await hash("#node=att99.1@3&group=gone:att99.1@3");
        check("nothing is made up", !$(".panel h3") && !$("a.node.group"));
        await hash("#group=%E0%A4%A:answer&node=%");
        check("nor of what cannot be read", !$(".panel h3") && !$("a.node.group"));
        await hash("#links");
        check("an anchor is an anchor", !$(".panel h3"));
    "##,
    );
}
