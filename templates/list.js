// A list of features, components or pairs: rows are chosen, sorted and paged by what the address says behind `#`, so that
// a link, a reload and the way back show the same. Without it the page shows the first rows and links to plain pages.
"use strict";
(() => {
  const { root, make, load, each, order, found, rowsOf, address, told, counted } = window.atlas;
  const form = document.getElementById("choose");
  const table = document.getElementById("list");
  const [body, nothing, output] = [table.tBodies[0], document.getElementById("nothing"), form.querySelector("output")];
  const name = form.dataset.list;
  const noun = name.slice(0, -1);
  const pages = document.getElementById("pages") || make("nav", { className: "pages" });
  const about = () => load(name);
  const whole = output.textContent;

  const state = () => {
    const all = new URLSearchParams(location.hash.slice(1));
    return { q: all.get("q") || "", sort: all.get("sort") || "", page: Math.max(1, Number.parseInt(all.get("page"), 10) || 1), get: (id) => all.get(id) };
  };
  const hash = (values) => {
    const all = new URLSearchParams();
    for (const [key, value] of Object.entries(values)) if (value && !(key === "page" && value === 1)) all.set(key, value);
    return "#" + all.toString();
  };
  const filled = () => Object.fromEntries([...new FormData(form)].map(([key, value]) => [key, value.trim()]));

  // Numbers of rows among all that are searched begin where the kind begins.
  const start = async () => (await load("index")).kinds.find((kind) => kind.folder === name).first;

  // For each facet that is asked for or looked at, the value's rows.
  const sets = new Map();
  const facet = async (id) => {
    if (!sets.has(id)) {
      const all = (await about()).total;
      sets.set(id, (await load(`${name}-${id}`)).map((text) => {
        const set = new Uint8Array(all);
        each(text, (row) => { set[row] = 1; });
        return set;
      }));
    }
    return sets.get(id);
  };

  // Rows in the order asked for.
  const sorted = async (by) => {
    const { total, first: usual, columns } = await about();
    const all = Array.from({ length: total }, (_, row) => row);
    const key = by || (usual && "-" + usual);
    const column = columns.find((one) => one.id === key.replace(/^-/u, "") && one.facet === null);
    if (!column) return all;
    const [text, there] = await load(`${name}-by-${column.id}`);
    const rows = order(text);
    return key.startsWith("-") ? [...rows.slice(0, there).reverse(), ...rows.slice(there)] : rows;
  };

  const cell = (column, content, { facets, verdicts }) => {
    const own = make("td", { className: `c-${column.id}${column.facet === null ? " n" : ""}` });
    if (column.facet !== null) {
      content[0].forEach((value, i) => {
        const [label, path] = facets[column.facet].values[value];
        own.append(i ? ", " : "", path ? make("a", { href: root + path, textContent: label }) : label);
      });
      if (content[1]) own.append(" ", make("span", { className: "quiet", textContent: "+" + content[1] }));
    } else if (Array.isArray(content)) {
      const { class: kind, mark, words } = verdicts[content[1]];
      own.append(make("span", { title: words, textContent: content[0] + " " }, make("span", { className: "mark " + kind, textContent: mark })));
    } else {
      own.textContent = content;
    }
    return own;
  };
  const line = (row, all) => make("tr", {},
    make("td", { className: "c-name" }, make("a", { className: "id", href: address(name, row), textContent: row[0] })),
    ...all.columns.map((column, i) => cell(column, row[3 + i], all)),
    make("td", { className: "c-gist" }, make("div", {}, ...told(row[2]))));

  const numbers = (at, last) => {
    const near = [1, 2, at - 1, at, at + 1, last - 1, last].filter((n) => n >= 1 && n <= last);
    return [...new Set(near)].sort((a, b) => a - b);
  };
  const showPages = (values, at, count, size) => {
    const last = Math.ceil(count / size);
    const to = (page, text, label) => {
      const link = make("a", { href: hash({ ...values, page }), textContent: text });
      if (label) link.setAttribute("aria-label", label);
      return link;
    };
    const parts = [make("span", { textContent: count ? `${(at - 1) * size + 1} to ${Math.min(at * size, count)} of ${counted(count, noun)}` : "" })];
    if (last > 1) {
      if (at > 1) parts.push(to(at - 1, "←", "Previous page"));
      let before = 0;
      for (const n of numbers(at, last)) {
        if (n > before + 1) parts.push(make("span", { textContent: "…" }));
        before = n;
        if (n === at) {
          const here = make("span", { textContent: n });
          here.setAttribute("aria-current", "page");
          parts.push(here);
        } else parts.push(to(n, n, `Page ${n}`));
      }
      if (at < last) parts.push(to(at + 1, "→", "Next page"));
    }
    pages.replaceChildren(...parts);
  };

  const heads = new Map();
  const showSort = (by, usual) => {
    const key = by || (usual && "-" + usual);
    for (const [id, head] of heads) {
      if (key.replace(/^-/u, "") === id) head.setAttribute("aria-sort", key.startsWith("-") ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };

  // How many rows each value has among those that all else that is asked for leaves.
  const showCounts = (chosen, all) => {
    for (const select of form.querySelectorAll("select:not([name=sort])")) {
      const own = sets.get(select.name);
      if (!own) continue;
      const rest = all(select.name);
      for (const option of select.options) {
        if (option.value === "") continue;
        const set = own[option.value];
        let count = 0;
        for (let row = 0; row < set.length; row++) count += set[row] & rest[row];
        const label = option.dataset.label ??= option.textContent.replace(/ \([^()]*\)$/u, "");
        option.textContent = `${label} (${count})`;
        option.disabled = !count && !option.selected;
      }
    }
  };

  let asked = 0;
  const show = async () => {
    const own = ++asked;
    const wanted = state();
    const list = await about();
    const values = { q: wanted.q };
    for (const { id } of list.facets) if (wanted.get(id)) values[id] = wanted.get(id);
    if (wanted.sort) values.sort = wanted.sort;
    // What the address says, the fields say.
    if (document.activeElement !== form.elements.q) form.elements.q.value = wanted.q;
    for (const select of form.querySelectorAll("select")) {
      select.value = values[select.name] || "";
      if (select.selectedIndex < 0) select.value = "";
    }
    const chosen = list.facets.map(({ id }) => id).filter((id) => values[id]);
    const parts = new Map(await Promise.all(chosen.map(async (id) => [id, (await facet(id))[values[id]] || new Uint8Array(list.total)])));
    if (wanted.q) {
      const [ranks, from] = [await found(wanted.q), await start()];
      if (ranks) parts.set("q", Uint8Array.from({ length: list.total }, (_, row) => (ranks[from + row] ? 1 : 0)));
    }
    const without = (id) => {
      const set = new Uint8Array(list.total).fill(1);
      for (const [part, rows] of parts) if (part !== id) for (let row = 0; row < set.length; row++) set[row] &= rows[row];
      return set;
    };
    const all = without("");
    const rows = (await sorted(wanted.sort)).filter((row) => all[row]);
    const at = Math.min(wanted.page, Math.max(1, Math.ceil(rows.length / list.shown)));
    const shown = rows.slice((at - 1) * list.shown, at * list.shown);
    const from = await start();
    const lines = (await rowsOf(shown.map((row) => from + row))).map((row) => line(row, list));
    if (own !== asked) return;
    body.replaceChildren(...lines);
    nothing.hidden = rows.length > 0;
    output.textContent = rows.length === list.total ? whole : `${counted(rows.length, noun)} of ${counted(list.total, noun).split(" ")[0]}`;
    showPages(values, at, rows.length, list.shown);
    if (!pages.isConnected) table.after(pages);
    showSort(wanted.sort, list.first);
    showCounts(chosen, without);
  };
  const failed = (error) => { output.textContent = error.message + ". Is the site whole?"; };
  const update = () => show().catch(failed);

  let turned = false;
  const go = (values, replace) => {
    const next = hash(values);
    if (next === (location.hash || "#")) return;
    if (replace) location.replace(next);
    else location.hash = next;
  };
  form.elements.q.addEventListener("input", () => go(filled(), true));
  form.addEventListener("change", (event) => { if (event.target.name !== "q") go(filled(), false); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    for (const field of form.elements) if (field.name) field.value = "";
    go({}, false);
  });
  nothing.querySelector("a").addEventListener("click", (event) => {
    event.preventDefault();
    form.reset();
  });
  pages.addEventListener("click", (event) => { if (event.target.closest("a[href^='#']")) turned = true; });
  // What a facet leaves is counted once it is looked at.
  for (const select of form.querySelectorAll("select:not([name=sort])")) {
    const look = () => { if (!sets.has(select.name)) facet(select.name).then(update).catch(failed); };
    select.addEventListener("focus", look);
    select.addEventListener("pointerenter", look);
  }
  addEventListener("hashchange", () => {
    update().then(() => {
      if (!turned) return;
      turned = false;
      table.scrollIntoView();
    });
  });

  // Headers sort too.
  for (const head of table.tHead.rows[0].cells) {
    const id = [...head.classList].find((one) => one.startsWith("c-")).slice(2);
    if (!(id === "name" || head.classList.contains("n"))) continue;
    heads.set(id, head);
    const button = make("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const down = before !== "descending";
      const usual = form.dataset.first;
      const by = id === "name" ? (usual ? "name" : "") : (down ? "-" : "") + id;
      go({ ...filled(), sort: by === "-" + usual ? "" : by }, false);
    });
    head.append(button);
  }
  const usual = heads.get(form.dataset.first);
  if (usual) usual.setAttribute("aria-sort", "descending");
  if (location.hash.length > 1) update();
  else if (pages.isConnected) {
    // The pages that scripts show, in place of the way to the plain ones.
    about().then((list) => { if (!asked) showPages({}, 1, list.total, list.shown); }).catch(failed);
  }
})();
