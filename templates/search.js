// The search: a box on every page, and a page of its own. Reads the files in search/ when it needs one (docs/formats.md).
// Every text is put in as text, never as markup.
"use strict";
(() => {
  const root = document.currentScript.dataset.root;

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Files are scripts that hand their content over: a page opened from a disk may not read a file in another way.
  const files = new Map();
  const waiting = new Map();
  window.atlasData = (name, content) => {
    waiting.get(name)?.(content);
  };
  const load = (name) => {
    if (!files.has(name)) {
      files.set(name, new Promise((done, failed) => {
        waiting.set(name, done);
        const script = make("script", { src: `${root}search/${name}.js` });
        script.addEventListener("error", () => {
          files.delete(name);
          failed(new Error(`search/${name}.js cannot be loaded`));
        });
        script.addEventListener("load", () => script.remove());
        document.head.append(script);
      }));
    }
    return files.get(name);
  };

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  // The numbers of a set, as `lists/sets.rs` writes it, one after the other.
  const each = (text, visit) => {
    if (!text) return;
    const all = bytes(text.slice(1));
    if (text[0] === "b") {
      for (let i = 0; i < all.length; i++) for (let bit = 0; all[i] >> bit; bit++) if ((all[i] >> bit) & 1) visit(i * 8 + bit);
      return;
    }
    let [next, number, shift, first] = [0, 0, 0, -1];
    for (const byte of all) {
      number += (byte & 127) * 2 ** shift;
      shift += 7;
      if (byte > 127) continue;
      if (text[0] === "d") {
        visit(next += number);
        next += 1;
      } else if (first < 0) {
        first = next + number;
      } else {
        for (next = first; next < first + number; next++) visit(next);
        first = -1;
      }
      [number, shift] = [0, 0];
    }
  };
  const order = (text) => {
    const all = bytes(text);
    return Array.from({ length: all.length / 3 }, (_, i) => all[3 * i] | (all[3 * i + 1] << 8) | (all[3 * i + 2] << 16));
  };

  // What is asked for: pieces between spaces, each a name, or words.
  const pieces = (query) => query.toLowerCase().split(/\s+/u).filter((piece) => piece.replace(/[“”‘’"'`,;.+]+/gu, "") || piece.length < 3).filter(Boolean).slice(0, 8);
  const words = (piece, longest) => {
    const cut = (word) => [...word].slice(0, longest).join("");
    const found = piece.match(/[\p{Alphabetic}\p{N}]+/gu);
    return (found || [piece]).map(cut);
  };
  const isName = (piece) => /^((att|mlp)\d|l\d+h)/u.test(piece);

  const total = (index) => { const last = index.kinds[index.kinds.length - 1]; return last.first + last.count; };

  // Marks the rows with a name that begins so. 1 is best: the whole name.
  const markNames = async (index, piece, mark) => {
    index.names.forEach((name, row) => {
      for (const one of name.toLowerCase().split(" + ")) {
        if (one.startsWith(piece)) mark(row, one === piece ? 1 : 2);
      }
    });
    const features = index.kinds[index.kinds.length - 1].first;
    for (const [dictionary, first, count] of index.dictionaries) {
      const start = dictionary + ".";
      if (start.startsWith(piece)) {
        for (let i = 0; i < count; i++) mark(features + first + i, 2);
      } else if (piece.startsWith(start)) {
        const wanted = piece.slice(start.length);
        (await load("n-" + dictionary)).forEach((number, i) => {
          const text = String(number);
          if (text.startsWith(wanted)) mark(features + first + i, text === wanted ? 1 : 2);
        });
      }
    }
  };

  // Marks the rows of the words that begin so: 3 to 6 by where the word stands, a whole word before the beginning of one.
  const markWords = async (index, word, mark) => {
    const letters = [...word];
    let file, start;
    for (let length = letters.length; length && file === undefined; length--) {
      start = letters.slice(0, length).join("");
      file = index.words[start];
    }
    if (file === undefined) return;
    const content = await load("w" + file);
    const entries = content.all && content.all[0] === word ? [[0, ...content.all.slice(1)], ...content.words] : content.words;
    for (const [text, ...sets] of entries) {
      if (text !== 0 && !text.startsWith(word)) continue;
      sets.forEach((set, field) => each(set, (row) => mark(row, field + (text === word ? 3 : 3.5))));
    }
  };

  // For each row, how well it matches: the smaller the better, 0 for not at all. null where nothing is asked for.
  const found = async (query) => {
    const wanted = pieces(query);
    if (!wanted.length) return null;
    const index = await load("index");
    let all = null;
    for (const piece of wanted) {
      const own = new Float32Array(total(index));
      const mark = (row, how) => { if (!own[row] || how < own[row]) own[row] = how; };
      const name = piece.replace(/^[“"'`(]+|[”"'`),;]+$/gu, "");
      if (name) await markNames(index, name, mark);
      if (!isName(name)) {
        const inside = [];
        for (const word of words(piece, index.longest)) {
          const one = new Float32Array(own.length);
          await markWords(index, word, (row, how) => { if (!one[row] || how < one[row]) one[row] = how; });
          inside.push(one);
        }
        for (let row = 0; row < own.length; row++) {
          if (inside.every((one) => one[row])) mark(row, Math.max(...inside.map((one) => one[row])));
        }
      }
      if (all) for (let row = 0; row < own.length; row++) all[row] = all[row] && own[row] ? all[row] + own[row] : 0;
      else all = own;
    }
    all.pieces = wanted.length;
    return all;
  };

  // What was found of each kind, the best first.
  const grouped = async (query) => {
    const all = await found(query);
    if (!all) return null;
    const index = await load("index");
    const kinds = index.kinds.map((kind) => {
      const rows = [];
      for (let row = kind.first; row < kind.first + kind.count; row++) if (all[row]) rows.push(row);
      rows.sort((a, b) => all[a] - all[b] || a - b);
      return { ...kind, rows };
    });
    // Kinds with the better matches first, else in this order.
    const ORDER = ["tasks", "components", "features", "pairs", "groups"];
    const best = (kind) => Math.floor(all[kind.rows[0]] / all.pieces);
    const there = kinds.filter((kind) => kind.rows.length);
    there.sort((a, b) => best(a) - best(b) || ORDER.indexOf(a.folder) - ORDER.indexOf(b.folder));
    return { kinds: there, all, number: kinds.reduce((sum, kind) => sum + kind.rows.length, 0) };
  };
  const WHERE = ["", "name", "name", "explanation", "active at", "promotes", "examples"];
  const where = ({ folder }, all, row) => {
    const at = Math.min(6, Math.max(1, Math.floor(all[row] / all.pieces)));
    return folder === "tasks" && at > 2 ? "prompts" : WHERE[at];
  };

  const rowsOf = async (wanted) => {
    const size = (await load("index")).rows;
    const shards = await Promise.all(wanted.map((row) => load("r" + Math.floor(row / size))));
    return wanted.map((row, i) => shards[i][row % size]);
  };
  const address = (folder, [name, path]) => root + (path || `${folder}/${name}.html`);

  // Words and tokens in turn; spaces and line ends of tokens are seen.
  const told = (parts) => parts.map((part, i) => {
    if (i % 2 === 0) return document.createTextNode(part);
    const token = make("q");
    for (const piece of part.split(/([␣↵⇥])/u)) token.append(/^[␣↵⇥]$/u.test(piece) ? make("b", { textContent: piece }) : piece);
    return token;
  });

  const counted = (n, noun) => `${n.toLocaleString("en").replaceAll(",", "\u202f")} ${noun}${n === 1 ? "" : "s"}`;
  const failed = (error) => error.message + ". Is the site whole?";

  const box = (form) => {
    const [input, list, status] = [form.querySelector("input"), form.querySelector(".hits"), form.querySelector("[role=status]")];
    const options = () => [...list.querySelectorAll("[role=option]")];
    let asked = 0;
    let chosen = -1;
    const open = (shown) => {
      list.hidden = !shown;
      input.setAttribute("aria-expanded", String(shown));
      if (!shown) choose(-1);
    };
    const choose = (at) => {
      const all = options();
      chosen = at;
      all.forEach((option, i) => option.setAttribute("aria-selected", String(i === at)));
      if (at < 0) input.removeAttribute("aria-activedescendant");
      else {
        input.setAttribute("aria-activedescendant", all[at].id);
        all[at].scrollIntoView({ block: "nearest" });
      }
    };
    const show = async () => {
      const own = ++asked;
      const query = input.value;
      try {
        const result = await grouped(query);
        const AT_MOST = 4;
        const groups = result ? await Promise.all(result.kinds.map(async (kind) => [kind, await rowsOf(kind.rows.slice(0, AT_MOST))])) : [];
        if (own !== asked) return;
        if (!result) {
          list.replaceChildren();
          status.textContent = "";
          return open(false);
        }
        const children = groups.map(([kind, rows], g) => {
          const title = make("p", { id: `hits-${g}`, textContent: kind.label }, make("span", { textContent: " " + kind.rows.length.toLocaleString("en").replaceAll(",", "\u202f") }));
          const group = make("div", {}, title, ...rows.map((row, i) => {
            const option = make("a", { id: `hit-${g}-${i}`, href: address(kind.folder, row), tabIndex: -1 }, make("b", { textContent: row[0] }), make("small", { textContent: where(kind, result.all, kind.rows[i]) }), make("span", {}, ...told(row[2])));
            option.setAttribute("role", "option");
            return option;
          }));
          group.setAttribute("role", "group");
          group.setAttribute("aria-labelledby", title.id);
          return group;
        });
        if (result.number) {
          const all = make("a", { id: "hit-all", className: "all", href: `${root}search.html?q=${encodeURIComponent(query.trim())}`, tabIndex: -1, textContent: `All ${counted(result.number, "result")}` });
          all.setAttribute("role", "option");
          children.push(all);
        } else {
          children.push(make("p", { className: "none", textContent: `Nothing found for “${query.trim()}”.` }));
        }
        status.textContent = result.number ? counted(result.number, "result") : "Nothing found.";
        list.replaceChildren(...children);
        open(true);
        choose(-1);
      } catch (error) {
        if (own !== asked) return;
        list.replaceChildren(make("p", { className: "none", textContent: failed(error) }));
        open(true);
      }
    };
    input.addEventListener("focus", () => load("index").catch(() => {}));
    input.addEventListener("input", show);
    input.addEventListener("keydown", (event) => {
      const all = list.hidden ? [] : options();
      const moves = { ArrowDown: chosen + 1, ArrowUp: chosen < 0 ? all.length - 1 : chosen - 1 };
      if (event.key in moves) {
        event.preventDefault();
        if (!all.length) show();
        else choose(moves[event.key] >= all.length ? -1 : moves[event.key]);
      } else if ((event.key === "Home" || event.key === "End") && chosen >= 0) {
        event.preventDefault();
        choose(event.key === "Home" ? 0 : all.length - 1);
      } else if (event.key === "Enter" && chosen >= 0) {
        event.preventDefault();
        all[chosen].click();
      } else if (event.key === "Escape") {
        if (!list.hidden) event.preventDefault();
        open(false);
      }
    });
    form.addEventListener("submit", (event) => { if (!input.value.trim()) event.preventDefault(); });
    document.addEventListener("click", (event) => { if (!form.contains(event.target)) open(false); });
    form.addEventListener("focusout", (event) => { if (event.relatedTarget && !form.contains(event.relatedTarget)) open(false); });
  };

  const page = (form) => {
    const [input, status, place] = [form.querySelector("input"), document.getElementById("told"), document.getElementById("found")];
    const [MORE, usual] = [20, document.title];
    let asked = 0;
    const item = (kind, all) => (row, i) =>
      make("li", {}, make("a", { className: "id", href: address(kind.folder, row), textContent: row[0] }), make("small", { textContent: where(kind, all, kind.rows[i]) }), make("p", {}, ...told(row[2])));
    const section = async (kind, all, query) => {
      const list = make("ul", { className: "results" });
      const title = make("h2", { textContent: kind.label + " " }, make("span", { className: "quiet", textContent: kind.rows.length.toLocaleString("en").replaceAll(",", "\u202f") }));
      const own = make("section", { id: kind.folder }, title);
      if (["features", "components", "pairs"].includes(kind.folder) && kind.rows.length > 1) {
        own.append(make("p", {}, make("a", { href: `${root}${kind.folder}/index.html#q=${encodeURIComponent(query)}`, textContent: `Choose and sort in the list of ${kind.folder}` })));
      }
      own.append(list);
      const more = make("button", { type: "button", className: "more" });
      const add = async () => {
        const from = list.children.length;
        const rows = await rowsOf(kind.rows.slice(from, from + MORE));
        list.append(...rows.map((row, i) => item(kind, all)(row, from + i)));
        const left = kind.rows.length - list.children.length;
        more.hidden = !left;
        more.textContent = `Show ${Math.min(left, MORE)} more of ${left}`;
        if (from) list.children[from].querySelector("a").focus();
      };
      more.addEventListener("click", add);
      await add();
      own.append(more);
      return own;
    };
    const show = async () => {
      const own = ++asked;
      const query = input.value.trim();
      try {
        const result = await grouped(query);
        const sections = result ? await Promise.all(result.kinds.map((kind) => section(kind, result.all, query))) : [];
        if (own !== asked) return;
        place.replaceChildren(...sections);
        status.textContent = !result ? "" : result.number ? `${counted(result.number, "result")} for “${query}”` : `Nothing found for “${query}”.`;
        document.title = query ? `${query} · ${usual}` : usual;
      } catch (error) {
        if (own === asked) status.textContent = failed(error);
      }
    };
    const asking = () => new URLSearchParams(location.search).get("q") || "";
    input.value = asking();
    input.addEventListener("input", () => {
      const query = input.value.trim();
      history.replaceState(null, "", query ? "?q=" + encodeURIComponent(query) : location.pathname);
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    addEventListener("popstate", () => { input.value = asking(); show(); });
    input.focus();
    show();
  };

  const [small, large] = [document.getElementById("search"), document.getElementById("search-page")];
  if (small) box(small);
  if (large) page(large);
  const input = (small || large)?.querySelector("input");
  document.addEventListener("keydown", (event) => {
    const at = document.activeElement;
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || !input) return;
    if (/^(INPUT|TEXTAREA|SELECT)$/u.test(at.tagName) || at.isContentEditable) return;
    event.preventDefault();
    input.focus();
  });

  // For the lists.
  window.atlas = { root, make, load, each, order, found, rowsOf, address, told, counted };
})();
