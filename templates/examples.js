// The whole context of an example, and its values by keys. Texts and activations are scripts, since a page opened from
// a disk may not fetch a file; they are loaded when they are first asked for. Without it there are the windows.
"use strict";
(() => {
  const { root, feature, perFile } = document.currentScript.dataset;
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const loaded = new Map(); // by address
  const load = (src) => {
    if (!loaded.has(src)) {
      loaded.set(src, new Promise((done, failed) => {
        const script = make("script", { src });
        script.addEventListener("load", done);
        script.addEventListener("error", () => { loaded.delete(src); failed(new Error(src)); });
        document.head.append(script);
      }));
    }
    return loaded.get(src);
  };
  const texts = {};
  let active = {};
  window.atlasContexts = (some) => Object.assign(texts, some);
  window.atlasFeature = (id, panel, own) => { if (id === feature) active = own; };

  // Line breaks, tabs and characters without a shape are marked, as they are in the windows.
  const hidden = /([\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]|\p{Noncharacter_Code_Point})/u;
  const symbol = (c) => {
    const n = c.codePointAt(0);
    if (n < 32 && c !== "\n" && c !== "\t") return String.fromCharCode(0x2400 + n);
    return { "\n": "\u21b5", "\t": "\u21e5", "\u007f": "\u2421" }[c] || `U+${n.toString(16).toUpperCase().padStart(4, "0")}`;
  };
  const running = (text) => text.split(hidden).filter(Boolean).map((part) =>
    (hidden.test(part) ? make("b", { textContent: symbol(part) }) : part));
  const whole = (context, peak) => {
    const values = new Map();
    const text = texts[context];
    for (const [at, heat, value] of active[context] || []) {
      // A token without a text of its own is in that of one before.
      let own = at;
      while (own > 0 && text[own] === "") own -= 1;
      const before = values.get(own);
      values.set(own, { heat: Math.max(heat, before?.heat || 0), value: before && before.heat > heat ? before.value : value, peak: before?.peak || at === peak });
    }
    return text.flatMap((token, at) => {
      if (Array.isArray(token)) return [make("u", { textContent: token[0] })];
      const own = values.get(at);
      if (!own || !own.heat) return running(token);
      const space = token.startsWith(" ") && token.trim() ? " " : "";
      const mark = make("i", { className: `a${own.heat}${own.peak ? " p" : ""}`, title: own.value }, ...running(token.slice(space.length)));
      return [space, mark];
    });
  };

  document.querySelectorAll("li[data-c]").forEach((item) => {
    const text = item.querySelector(".x");
    const window = [...text.childNodes];
    const button = make("button", { type: "button", className: "whole", textContent: "whole context" });
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", async () => {
      const open = button.getAttribute("aria-expanded") === "true";
      if (open) {
        text.replaceChildren(...window);
      } else {
        const context = Number(item.dataset.c);
        try {
          await Promise.all([load(`${root}contexts/${Math.floor(context / perFile)}.js`), load(`${root}features/${feature}.js`)]);
          text.replaceChildren(...whole(context, Number(item.dataset.p)));
        } catch {
          button.textContent = "the text could not be loaded";
          return;
        }
      }
      button.setAttribute("aria-expanded", String(!open));
      button.textContent = open ? "whole context" : "window only";
      text.classList.toggle("all", !open);
    });
    item.querySelector(".m").append(button);
  });

  // Each text is one stop of the Tab key; arrows go through its values.
  document.querySelectorAll(".examples .x").forEach((text) => {
    if (text.querySelector("i[title], i[aria-label]")) text.tabIndex = 0;
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
      const values = [...text.querySelectorAll("i")];
      if (!step || !values.length || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const now = values.indexOf(document.activeElement);
      const peak = values.findIndex((value) => value.classList.contains("p"));
      const to = now < 0 && Number.isFinite(step) ? Math.max(peak, 0) : Math.min(Math.max(now + step, 0), values.length - 1);
      values[to].tabIndex = -1;
      values[to].focus();
    });
  });
})();
