// What the pages can do beyond being read: search, sort, filter, and values at a touch. They are whole without it.
"use strict";
(() => {
  const root = document.currentScript.dataset.root;

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Search: the entries are a script, since a page opened from a disk may not fetch a file.
  const search = (box) => {
    const [input, list] = [box.querySelector("input"), box.querySelector("ul")];
    let entries = null;
    let chosen = -1;
    window.atlasEntries = (all) => {
      entries = all.map((entry) => [...entry, entry.join(" ").toLowerCase()]);
      show();
    };
    const load = () => {
      if (entries) return;
      entries = [];
      document.head.append(make("script", { src: root + "search.js" }));
    };
    const rank = (name, word) => (name === word ? 0 : name.startsWith(word) ? 1 : name.includes(word) ? 2 : 3);
    const found = (query) => {
      const words = query.toLowerCase().split(/\s+/).filter(Boolean);
      if (!words.length) return [];
      const hits = entries.filter(([, , , all]) => words.every((word) => all.includes(word)));
      const order = (entry) => rank(entry[0].toLowerCase(), words[0]);
      return hits.sort((a, b) => order(a) - order(b)).slice(0, 12);
    };
    const show = () => {
      const hits = found(input.value);
      chosen = -1;
      list.replaceChildren(...hits.map(([name, path, gist]) =>
        make("li", {}, make("a", { href: root + path }, make("b", { textContent: name }), make("span", { textContent: gist })))));
      list.hidden = !hits.length;
    };
    const choose = (step) => {
      const items = [...list.children];
      if (!items.length) return;
      chosen = (chosen + step + items.length) % items.length;
      items.forEach((item, i) => item.classList.toggle("on", i === chosen));
      items[chosen].scrollIntoView({ block: "nearest" });
    };
    input.addEventListener("focus", load);
    input.addEventListener("input", () => entries && show());
    input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        choose(event.key === "ArrowDown" ? 1 : -1);
      } else if (event.key === "Enter") {
        const item = list.children[Math.max(chosen, 0)];
        if (item) item.firstChild.click();
      } else if (event.key === "Escape") {
        list.hidden = true;
      }
    });
    document.addEventListener("click", (event) => { if (!box.contains(event.target)) list.hidden = true; });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
        event.preventDefault();
        input.focus();
      }
    });
    box.hidden = false;
  };

  // Sorting: numbers as they are written here, everything else by name.
  const names = new Intl.Collator("en", { numeric: true });
  const number = (text) => {
    const match = text.replace(/\u202f/g, "").replace(/\u2212/g, "-").match(/^-?\d[\d.]*(e-?\d+)?/);
    return match ? Number(match[0]) : -Infinity;
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

  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const input = make("input", { type: "search", placeholder: "Filter", autocomplete: "off" });
    input.setAttribute("aria-label", "Filter the table");
    const told = make("output");
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      told.textContent = words.length ? shown + " of " + rows.length : "";
    };
    input.addEventListener("input", filter);
    table.closest(".scroll").before(make("div", { className: "filter" }, input, told));
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
    document.addEventListener("scroll", () => { tip.hidden = true; }, true);
  };

  // In a graph, a node shows what it is linked to.
  const graph = (svg) => {
    const parts = [...svg.querySelectorAll("[data-n]")].map((part) => [part, part.dataset.n.split(" ")]);
    const light = (event) => {
      const node = event.type !== "pointerout" && event.type !== "focusout" && event.target.closest("a.node");
      const links = node ? parts.filter(([, ends]) => ends.length > 1 && ends.includes(node.dataset.n)) : [];
      const near = new Set(links.flatMap(([, ends]) => ends));
      if (node) near.add(node.dataset.n);
      svg.classList.toggle("lit", Boolean(node));
      for (const [part, ends] of parts) {
        const on = ends.length > 1 ? ends.includes(node && node.dataset.n) : near.has(ends[0]);
        part.classList.toggle("on", Boolean(node) && on);
      }
    };
    for (const type of ["pointerover", "pointerout", "focusin", "focusout"]) svg.addEventListener(type, light);
    // The answer is at the right; the names of the rows come along.
    const [box, names] = [svg.parentElement, svg.querySelector(".names")];
    const follow = () => names.setAttribute("transform", `translate(${(box.scrollLeft * svg.viewBox.baseVal.width) / svg.clientWidth})`);
    box.addEventListener("scroll", follow);
    box.scrollLeft = box.scrollWidth;
    follow();
  };

  // What can be scrolled by touch can be scrolled by keys.
  const reachable = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      if (box.scrollWidth > box.clientWidth && !box.querySelector("a, button")) box.tabIndex = 0;
    }
  };

  const box = document.getElementById("search");
  if (box) search(box);
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("table.filterable").forEach(filterable);
  document.querySelectorAll("svg.graph:not(.icon)").forEach(graph);
  tips();
  reachable();

  // What is to be cited or run elsewhere is copied by a button; without a script one selects it.
  for (const button of document.querySelectorAll("button[data-copy]")) {
    const [label, source] = [button.textContent, document.getElementById(button.dataset.copy)];
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected; copy it with the keyboard";
      }
      setTimeout(() => { button.textContent = label; }, 2000);
    });
  }

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
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
