// Exploring a graph: a panel for the chosen node, a least share of links, groups of nodes, keys. What is chosen is in
// the address. Without it, nodes lead to their pages and the tables say the rest.
"use strict";
(() => {
  const section = document.getElementById("graph");
  const svg = section.querySelector(".drawing svg");
  const data = JSON.parse(document.getElementById("graph-data").textContent);
  const panel = section.querySelector(".panel");
  const tools = section.querySelector(".graph-tools");
  const [least, told, count, picking, naming, clear, copy] =
    ["#least", "#least-told", "#shown", "#picking", "#group-name", "#unpick", "#copy"].map((id) => tools.querySelector(id));
  const hint = [...panel.childNodes];

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  const drawn = (tag, attributes, ...children) => {
    const element = document.createElementNS(svg.namespaceURI, tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    element.append(...children);
    return element;
  };

  // Marks are what is drawn; the groups are marks too, after those of the page.
  const own = data.marks.length;
  const nodes = [...svg.querySelectorAll("a.node")];
  const spots = nodes.map((node) => {
    const { x, y, width, height } = node.querySelector("path").getBBox();
    return { x: x + width / 2, y: y + height / 2, width, height };
  });
  const lines = [...svg.querySelectorAll(".links path")].map((path) => ({
    path,
    ends: path.dataset.n.split(" ").map(Number),
    share: Number(path.dataset.s),
    slot: (path.getAttribute("class").match(/\b[qkv]\b/) || [""])[0],
    drawn: path.getAttribute("d"),
  }));
  const letters = [...svg.querySelectorAll(".slots text")];
  const markOf = [];
  data.marks.forEach((mark, at) => mark.nodes.forEach((node) => { markOf[node] = at; }));
  // The page of a feature is beside its script.
  const pageOf = (node) => (node.feature && data.features ? `${data.features}${node.feature}.html` : node.page);
  const byKey = new Map(data.marks.map((mark, at) => [mark.key, at]));

  let chosen = -1; // a mark, or own + the number of a group
  let picked = new Set();
  let groups = []; // { name, marks, node, spot }
  let floor = 0;

  const groupOf = (mark) => groups.findIndex((group) => group.marks.includes(mark));
  const stands = (mark) => (groupOf(mark) < 0 ? mark : own + groupOf(mark));
  const element = (at) => (at < own ? nodes[at] : groups[at - own].node);
  const spot = (at) => (at < own ? spots[at] : groups[at - own].spot);
  const members = (at) => (at < own ? [at] : groups[at - own].marks);
  const inside = (at) => members(at).flatMap((mark) => data.marks[mark].nodes);
  const nameOf = (at) => (at < own ? data.nodes[data.marks[at].nodes[0]].name : groups[at - own].name);
  const shownNodes = () => [...nodes.keys()].filter((at) => groupOf(at) < 0).concat(groups.map((_, i) => own + i));

  // As the program draws them: from the upper edge of one to the lower edge of another.
  const curve = (from, to, slot) => {
    const [x1, y1] = [from.x, from.y - from.height / 2];
    const [x2, y2] = [to.x + ({ q: -0.3, v: 0.3 }[slot] || 0) * to.width, to.y + to.height / 2];
    const rise = Math.max(y1 - y2, 0);
    const bow = Math.abs(x1 - x2) < 40 && rise > 60 ? Math.min(rise * 0.2, 55) : 0;
    return `M${x1} ${y1}C${x1 - bow} ${y1 - rise / 2} ${x2 - bow} ${y2 + rise / 2} ${x2} ${y2}`;
  };

  const percent = (share) => (share === 0 ? "0%" : share < 0.01 ? (share * 100).toFixed(2) + "%" : (share * 100).toFixed(1) + "%");

  const redraw = () => {
    let shown = 0;
    const linked = new Set();
    for (const line of lines) {
      const [from, to] = line.ends.map(stands);
      const hidden = from === to || line.share < floor;
      line.path.style.display = hidden ? "none" : "";
      line.now = [from, to];
      line.hidden = hidden;
      if (line.share >= floor) shown += 1;
      if (hidden) continue;
      linked.add(from).add(to);
      const moved = from >= own || to >= own;
      line.path.setAttribute("d", moved ? curve(spot(from), spot(to), to < own ? line.slot : "") : line.drawn);
    }
    nodes.forEach((node, at) => {
      node.style.display = groupOf(at) < 0 ? "" : "none";
      node.classList.toggle("off", floor > 0 && !linked.has(at) && data.marks[at].key !== "answer");
      node.classList.toggle("picked", picked.has(at));
      node.setAttribute("aria-pressed", String(at === chosen || picked.has(at)));
    });
    groups.forEach((group, i) => {
      group.node.classList.toggle("off", floor > 0 && !linked.has(own + i));
      group.node.setAttribute("aria-pressed", String(own + i === chosen));
    });
    for (const letter of letters) {
      const at = Number(letter.dataset.m);
      const entered = lines.some((line) => !line.hidden && line.ends[1] === at && line.slot === letter.textContent);
      letter.style.display = groupOf(at) < 0 && entered ? "" : "none";
    }
    count.textContent = `${shown} of ${lines.length} lines`;
    told.textContent = percent(floor);
    picking.hidden = !picked.size;
    picking.querySelector("output").textContent = picked.size === 1 ? "1 node selected" : `${picked.size} nodes selected`;
    light(chosen);
    const focused = shownNodes().includes(reached) ? reached : chosen >= 0 ? chosen : shownNodes()[0];
    shownNodes().forEach((at) => { element(at).tabIndex = at === focused ? 0 : -1; });
  };

  // A node shows what it is linked to.
  const light = (at) => {
    const near = new Set(at < 0 ? [] : [at]);
    for (const line of lines) {
      const on = at >= 0 && !line.hidden && line.now.includes(at);
      line.path.classList.toggle("on", on);
      if (on) line.now.forEach((end) => near.add(end));
    }
    svg.classList.toggle("lit", at >= 0);
    shownNodes().forEach((other) => element(other).classList.toggle("on", near.has(other)));
    shownNodes().forEach((other) => element(other).classList.toggle("chosen", other === chosen));
  };

  // The panel.
  const scripts = new Map(); // by feature: what its script said, or null until it has
  window.atlasFeature = (id, html) => {
    scripts.set(id, html);
    panel.querySelectorAll("[data-feature]").forEach((part) => { if (part.dataset.feature === id) fill(part); });
  };
  const fill = (part) => {
    const html = scripts.get(part.dataset.feature);
    if (html) part.innerHTML = html; // from a script of this site, in which every text is escaped
  };
  const about = (id) => {
    const part = make("div", { className: "about" });
    part.dataset.feature = id;
    const gist = data.gists[id];
    if (gist) part.append(make("p", { className: "said", textContent: gist }));
    if (!data.features) return part;
    if (scripts.has(id)) {
      fill(part);
    } else {
      scripts.set(id, null);
      const script = make("script", { src: `${data.features}${id}.js` });
      script.addEventListener("error", () => {
        scripts.delete(id);
        part.textContent = "What is known of the feature could not be loaded.";
      });
      document.head.append(script);
    }
    return part;
  };
  const token = (text) => make("q", { textContent: text });
  const place = (node) => (node.kind === "answer" ? node.name : `${node.name} @ ${node.position}`);
  const jump = (node) => {
    const at = stands(markOf[node]);
    const text = markOf[node] === undefined ? "" : place(data.nodes[node]);
    const button = make("button", { type: "button", className: "jump", textContent: text });
    button.addEventListener("click", () => choose(at, true));
    return button;
  };
  // A head is drawn once for what it reads and serves, so its links say which of it they are of.
  const which = (node) => (node.reads ? ` for ${node.serves}, reading ${node.reads[0]}` : "");
  const listOf = (title, links, end) => {
    if (!links.length) return null;
    const row = ([from, to, slot, effect, share]) => {
      const sign = effect.startsWith("\u2212") ? "neg" : "pos";
      const other = end === "from" ? from : to;
      const [own, there] = [data.nodes[end === "from" ? to : from], data.nodes[other]];
      const slots = { q: "query", k: "key", v: "value" };
      const words = `${slot ? `${slots[slot]}${end === "from" ? "" : " of it"} ` : ""}${which(own)}${which(there)}`.trim();
      const told = make("small", {}, token(there.token), words ? ` ${words}` : "");
      return make("li", { className: sign }, make("span", {}, jump(other), told), make("b", { textContent: effect }), make("i", { textContent: share }));
    };
    const all = links.map(row);
    const list = make("ol", { className: "ends" }, ...all.slice(0, 8));
    const more = all.length > 8 ? make("button", { type: "button", className: "plain", textContent: `${all.length - 8} more` }) : null;
    more?.addEventListener("click", () => { list.append(...all.slice(8)); more.remove(); });
    return make("section", {}, make("h4", { textContent: `${title} (${links.length})` }), list, more);
  };
  const facts = (node, reach) => {
    const parts = [make("span", {}, "at position ", make("b", { textContent: node.position }), " ", token(node.token))];
    if (node.activation) parts.push(make("span", {}, "activation ", make("b", { textContent: node.activation })));
    parts.push(make("span", { title: "share of the effects on the answer that passes through it along the drawn links" }, "reach ", make("b", { textContent: reach })));
    return make("p", { className: "where" }, ...parts);
  };
  const heads = (list) => {
    const row = (node) => make("li", {}, `reads ${node.reads[0]} `, token(node.reads[1]), " for ", make("span", { className: "id", textContent: node.serves }));
    return make("ol", { className: "reads" }, ...list.map(row));
  };
  const show = () => {
    if (chosen < 0) {
      panel.replaceChildren(...hint);
      panel.classList.remove("open");
      return;
    }
    const ends = new Set(inside(chosen));
    const into = data.links.filter(([from, to]) => ends.has(to) && !ends.has(from));
    const out = data.links.filter(([from, to]) => ends.has(from) && !ends.has(to));
    const close = make("button", { type: "button", className: "close", title: "close (Escape)", textContent: "\u00d7" });
    close.setAttribute("aria-label", "close");
    close.addEventListener("click", () => choose(-1));
    const title = make("h3", { tabIndex: -1, textContent: nameOf(chosen) });
    const body = chosen < own ? ofMark(chosen) : ofGroup(chosen - own);
    panel.replaceChildren(make("header", {}, title, close), ...body,
      ...[listOf("What it reads", into, "from"), listOf("Where it leads", out, "to")].filter(Boolean));
    panel.classList.add("open");
    panel.scrollTop = 0;
  };
  const ofMark = (at) => {
    const { nodes: list, reach } = data.marks[at];
    const all = list.map((node) => data.nodes[node]);
    const first = all[0];
    const select = make("button", { type: "button", textContent: picked.has(at) ? "Deselect" : "Select for a group" });
    select.addEventListener("click", () => pick(at));
    const page = pageOf(first) ? make("a", { href: pageOf(first), textContent: `Page of ${first.name}` }) : null;
    return [
      make("p", { className: "quiet", textContent: first.kind }),
      facts(first, reach),
      first.reads ? heads(all) : null,
      first.feature ? about(first.feature) : null,
      make("p", { className: "acts" }, page, select),
    ].filter(Boolean);
  };
  const ofGroup = (i) => {
    const group = groups[i];
    const name = make("input", { value: group.name, maxLength: 40 });
    name.setAttribute("aria-label", "Name of the group");
    name.addEventListener("change", () => {
      if (!name.value.trim()) return;
      group.name = name.value.trim();
      dress(group);
      changed();
    });
    const part = make("button", { type: "button", textContent: "Dissolve" });
    part.addEventListener("click", () => {
      const first = group.marks[0];
      group.node.remove();
      groups.splice(i, 1);
      choose(first);
    });
    const row = (mark) => {
      const node = data.nodes[data.marks[mark].nodes[0]];
      const out = make("button", { type: "button", className: "plain", textContent: "take out" });
      out.addEventListener("click", () => {
        const rest = group.marks.filter((other) => other !== mark);
        if (rest.length) { group.marks = rest; dress(group); changed(); } else { part.click(); }
      });
      const name = make("span", { className: "id", textContent: place(node) });
      return make("li", {}, pageOf(node) ? make("a", { href: pageOf(node) }, name) : name, out);
    };
    return [make("p", { className: "quiet", textContent: "group" }), name,
      make("ol", { className: "members" }, ...group.marks.map(row)), make("p", { className: "acts" }, part)];
  };

  // Groups are drawn at the member through which most passes.
  const dress = (group) => {
    group.node?.remove();
    const best = group.marks.reduce((a, b) => (data.marks[b].through > data.marks[a].through ? b : a));
    const { x, y, height } = spots[best];
    const name = group.name.length > 24 ? group.name.slice(0, 23) + "\u2026" : group.name;
    const width = Math.max(60, name.length * 6.2 + 22);
    group.spot = { x, y, width, height };
    const text = (className, dy, content) => {
      const element = drawn("text", { x, y: y + dy, class: className });
      element.textContent = content;
      return element;
    };
    const title = drawn("title", {});
    title.textContent = `${group.name}, group of ${group.marks.length}`;
    const box = (by) => drawn("rect", { x: x - width / 2 - by, y: y - height / 2 - by, width: width + 2 * by, height: height + 2 * by, rx: 4 });
    group.node = drawn("a", { class: "node group", href: "#graph" }, title, box(3), box(0), text("", -2, name), text("says", 10, `${group.marks.length} nodes`));
    group.node.setAttribute("role", "button");
    group.node.setAttribute("aria-label", title.textContent);
    svg.querySelector(".nodes").append(group.node);
  };
  const pick = (at) => {
    if (at >= own) return;
    if (!picked.delete(at)) picked.add(at);
    show();
    redraw();
  };
  tools.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!picked.size) return;
    const group = { name: naming.value.trim() || `group ${groups.length + 1}`, marks: [...picked].sort((a, b) => a - b) };
    dress(group);
    groups.push(group);
    picked = new Set();
    naming.value = "";
    choose(own + groups.length - 1);
  });
  clear.addEventListener("click", () => { picked = new Set(); show(); redraw(); });

  // What is chosen is in the address, by the names of nodes.
  const address = () => {
    const parts = [];
    const keys = (marks) => marks.map((mark) => data.marks[mark].key).join(",");
    if (chosen >= 0) parts.push(`node=${chosen < own ? keys([chosen]) : "~" + (chosen - own)}`);
    if (floor > 0) parts.push(`least=${floor}`);
    groups.forEach((group) => parts.push(`group=${encodeURIComponent(group.name)}:${keys(group.marks)}`));
    return parts.length ? "#" + parts.join("&") : "";
  };
  const write = () => {
    const now = address();
    if (now === location.hash) return;
    try {
      history.replaceState(null, "", now || location.pathname + location.search);
    } catch {
      location.replace(now || "#");
    }
  };
  const read = () => {
    const parts = location.hash.slice(1).split("&").map((part) => part.split("="));
    if (!parts.some(([key]) => ["node", "least", "group"].includes(key))) return false;
    groups.forEach((group) => group.node.remove());
    groups = [];
    chosen = -1;
    floor = 0;
    const marks = (text) => decodeURIComponent(text).split(",").map((key) => byKey.get(key)).filter((at) => at !== undefined);
    for (const [key, value = ""] of parts) {
      if (key === "least") floor = Math.min(Math.max(Number(value) || 0, 0), 1);
      if (key === "group") {
        const [name, ...rest] = value.split(":");
        const free = marks(rest.join(":")).filter((mark) => groupOf(mark) < 0);
        if (!free.length) continue;
        const group = { name: decodeURIComponent(name).slice(0, 40), marks: free };
        dress(group);
        groups.push(group);
      }
    }
    const node = (parts.find(([key]) => key === "node") || [])[1];
    if (node && node[0] === "~") chosen = groups[Number(node.slice(1))] ? own + Number(node.slice(1)) : -1;
    else if (node && marks(node).length) chosen = stands(marks(node)[0]);
    return true;
  };
  const changed = () => { show(); redraw(); write(); };

  // Choosing, by pointer and by keys: arrows go to the next node, Enter chooses, Space selects for a group.
  let reached = -1;
  const choose = (at, focus = false) => {
    chosen = at;
    if (at >= 0) reached = at;
    changed();
    if (focus) element(at).scrollIntoView({ block: "nearest", inline: "nearest" });
    if (focus) panel.querySelector("h3").focus({ preventScroll: true });
  };
  const at = (target) => {
    const node = target.closest?.("a.node");
    return node ? (node.classList.contains("group") ? own + groups.findIndex((group) => group.node === node) : nodes.indexOf(node)) : -1;
  };
  svg.addEventListener("click", (event) => {
    const node = at(event.target);
    if (node < 0 || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (event.shiftKey) pick(node);
    else choose(node);
  });
  for (const type of ["pointerover", "focusin"]) svg.addEventListener(type, (event) => { const node = at(event.target); if (node >= 0) light(node); });
  // What a line stands for is told where the pointer is.
  svg.addEventListener("pointerover", (event) => {
    const line = lines.find(({ path }) => path === event.target);
    if (!line || line.told) return;
    line.told = true;
    const negative = line.path.classList.contains("neg");
    const links = data.links.filter(([from, to, slot, effect]) => markOf[from] === line.ends[0] && markOf[to] === line.ends[1] &&
      slot === line.slot && effect.startsWith("\u2212") === negative);
    const title = drawn("title", {});
    const said = ([from, to, slot, effect, share]) => {
      const [a, b] = [data.nodes[from], data.nodes[to]];
      return `${place(a)} \u2192 ${place(b)}${slot ? ` ${slot}` : ""}${b.serves ? ` for ${b.serves}` : ""}: ${effect} (${share})`;
    };
    title.textContent = links.slice(0, 5).map(said).join("\n") + (links.length > 5 ? `\nand ${links.length - 5} more` : "");
    line.path.append(title);
  });
  for (const type of ["pointerout", "focusout"]) svg.addEventListener(type, () => light(chosen));
  const next = (from, [dx, dy]) => {
    const here = spot(from);
    let [best, least] = [-1, Infinity];
    for (const other of shownNodes()) {
      if (other === from || element(other).classList.contains("off")) continue;
      const [x, y] = [spot(other).x - here.x, spot(other).y - here.y];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (ahead > 1 && ahead + 3 * aside < least) [best, least] = [other, ahead + 3 * aside];
    }
    return best;
  };
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  svg.addEventListener("keydown", (event) => {
    const node = at(event.target);
    if (node < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (ways[event.key]) {
      event.preventDefault();
      const to = next(node, ways[event.key]);
      if (to < 0) return;
      reached = to;
      shownNodes().forEach((other) => { element(other).tabIndex = other === to ? 0 : -1; });
      element(to).focus();
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (event.shiftKey) pick(node);
      else choose(node);
    } else if (event.key === " ") {
      event.preventDefault();
      pick(node);
    }
  });
  section.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || chosen < 0) return;
    const back = chosen;
    choose(-1);
    element(back).focus();
  });
  nodes.forEach((node) => node.setAttribute("role", "button"));

  // Few links are strong, so the slider is finer where shares are small.
  least.addEventListener("input", () => { floor = Number(((least.value / 100) ** 3).toFixed(4)); redraw(); });
  least.addEventListener("change", write);
  const slide = () => { least.value = String(Math.round(Math.cbrt(floor) * 100)); };
  copy.addEventListener("click", async () => {
    write();
    let done = true;
    try {
      await navigator.clipboard.writeText(location.href);
    } catch {
      done = false; // nor has a page that came over plain HTTP a clipboard
    }
    copy.textContent = done ? "Copied" : "It is in the address bar";
    setTimeout(() => { copy.textContent = "Copy address"; }, 1500);
  });

  // The answer is at the right; the names of the rows come along.
  const [box, names] = [svg.parentElement, svg.querySelector(".names")];
  const follow = () => names.setAttribute("transform", `translate(${(box.scrollLeft * svg.viewBox.baseVal.width) / svg.clientWidth})`);
  box.addEventListener("scroll", follow);
  box.scrollLeft = box.scrollWidth;
  follow();

  const restore = () => {
    let ours = true;
    try {
      ours = read();
    } catch (error) {
      if (!(error instanceof URIError)) throw error;
    }
    if (ours) { slide(); show(); }
    redraw();
  };
  addEventListener("hashchange", restore);
  restore();
})();
