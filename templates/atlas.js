// What the pages can do beyond being read: sort, and values at a touch. They are whole without it.
"use strict";
(() => {
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Sorting: numbers as they are written here, everything else by name.
  const names = new Intl.Collator("en", { numeric: true });
  const number = (text) => {
    const match = text.replace(/\u202f/g, "").replace(/\u2212/g, "-").match(/^-?\d[\d.]*(e-?\d+)?/);
    const unit = { KB: 1e3, MB: 1e6, GB: 1e9 }[text.trim().split(/\s/u).pop()] || 1;
    return match ? Number(match[0]) * unit : -Infinity;
  };
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const numeric = head.classList.contains("n");
      const text = (row) => row.cells[column].textContent.trim();
      const compare = numeric ? (a, b) => number(text(a)) - number(text(b)) : (a, b) => names.compare(text(a), text(b));
      const button = make("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const before = head.ariaSort || head.getAttribute("aria-sort");
        const up = before ? before === "descending" : !numeric;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? compare(a, b) : compare(b, a)));
        table.tBodies[0].append(...rows);
      });
      head.append(button);
    });
  };

  // Values at once on hovering, and on a touch, where titles never show.
  const tips = () => {
    const tip = make("div", { className: "tip", hidden: true });
    document.body.append(tip);
    const told = new WeakMap();
    const titled = (element) => {
      const title = element.querySelector(":scope > title");
      return title ? title.textContent : element.getAttribute("title");
    };
    // The browser's own tip would come on top of this one, so titles become labels.
    const take = (element) => {
      const text = titled(element);
      told.set(element, text);
      element.querySelector(":scope > title")?.remove();
      element.removeAttribute("title");
      element.setAttribute("aria-label", text);
    };
    const show = (event) => {
      let element = event.target;
      while (element && !told.has(element) && !titled(element)) element = element.parentElement;
      if (element && !told.has(element)) take(element);
      const text = element && told.get(element);
      tip.hidden = !text;
      if (!text) return;
      tip.textContent = text;
      const [at, size] = [element.getBoundingClientRect(), tip.getBoundingClientRect()];
      // What is large is told where it is touched.
      const large = at.width > 300 || at.height > 100;
      const [x, top, bottom] = large
        ? [event.clientX, event.clientY - 8, event.clientY + 12]
        : [at.left + at.width / 2, at.top, at.bottom];
      // Links go up and down, so what is told of a node stands beside it.
      const beside = element.matches("a.node") && (at.left > size.width + 16 ? at.left - size.width - 12 : at.right + 12);
      const [left, above] = beside ? [beside, top - size.height / 2] : [x - size.width / 2, top - size.height - 5];
      tip.style.left = Math.max(4, Math.min(left, innerWidth - size.width - 4)) + "px";
      tip.style.top = (above > 3 ? above : beside ? 4 : bottom + 5) + "px";
    };
    document.addEventListener("pointerover", show);
    document.addEventListener("focusin", show);
    document.addEventListener("scroll", () => { tip.hidden = true; }, true);
  };

  // What can be scrolled by touch can be scrolled by keys.
  const reachable = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      if (box.scrollWidth > box.clientWidth && !box.querySelector("a, button")) box.tabIndex = 0;
    }
  };

  document.querySelectorAll("table.sortable").forEach(sortable);
  tips();
  reachable();

  // What is folded is on paper too.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const part of opened) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
    opened = [];
  });
  // A link into a closed part opens it.
  const reveal = () => {
    let name = "";
    try {
      name = decodeURIComponent(location.hash.slice(1));
    } catch {
      return; // no name of anything here
    }
    const target = name && document.getElementById(name);
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
