// Buttons that copy: the id in a title, and what is in a block of code. Without scripts there are none.
"use strict";
(() => {
  const write = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    // A page that came over plain HTTP has no clipboard of its own.
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("not copied");
  };

  const button = (what, text) => {
    const made = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "copy" });
    made.setAttribute("aria-label", "Copy " + what);
    made.addEventListener("click", async () => {
      try {
        await write(text());
        made.textContent = "copied";
      } catch {
        made.textContent = "not copied";
      }
      setTimeout(() => { made.textContent = "copy"; }, 1500);
    });
    return made;
  };

  const title = document.querySelector("h1.id");
  if (title) {
    const id = title.textContent.trim();
    title.after(button("the id " + id, () => id));
  }
  document.querySelectorAll("pre").forEach((block) => {
    const text = block.textContent;
    const around = document.createElement("div");
    around.className = "copyable";
    block.replaceWith(around);
    around.append(block, button("this block", () => text));
  });
  const cited = document.getElementById("citation");
  if (cited) cited.after(button("the citation", () => cited.textContent));
})();
