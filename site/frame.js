// What every page has around its text: its colours, the way to the same place in another language,
// the mark in its contents, and buttons that copy code. `say` is in the page's head.

// The colours are the system's until a reader chooses; the page's head recalls what was chosen.
const root = document.documentElement;
const colours = document.querySelector("#colours");
const WORDS = { "": say("◐ system colours"), light: say("○ light"), dark: say("● dark") };

function showColours() {
  colours.textContent = WORDS[root.dataset.colours ?? ""];
}
function recolour() {
  recallColours(); // in the head
  showColours();
}
colours.onclick = () => {
  // First what differs from the system's, so that each press but the last is seen.
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const turns = ["", ...(isDark ? ["light", "dark"] : ["dark", "light"])];
  const next = turns[(turns.indexOf(root.dataset.colours ?? "") + 1) % turns.length];
  root.dataset.colours = next;
  showColours();
  try {
    localStorage.setItem("vae-colours", next);
  } catch {
    // Then they hold for this page alone.
  }
};
addEventListener("storage", recolour); // chosen in another tab
addEventListener("pageshow", ({ persisted }) => persisted && recolour()); // come back to
showColours();

// However it is opened: by a click, in a new tab, or from its menu.
for (const other of document.querySelectorAll("a.language")) {
  const follow = () => (other.hash = location.hash);
  other.onclick = other.onauxclick = other.oncontextmenu = follow;
}

// The section that one reads: the last whose heading is above the upper third of the window.
const links = [...document.querySelectorAll(".contents a")];
const headings = links.map((a) => document.getElementById(a.getAttribute("href").slice(1)));
const above = new Map();
const watch = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) above.set(target, isIntersecting);
    const here = headings.findLastIndex((heading) => above.get(heading));
    links.forEach((a, i) => (a.ariaCurrent = i === here ? "location" : null));
  },
  { rootMargin: "1000000px 0px -66% 0px" },
);
for (const heading of headings) watch.observe(heading);

// Where a page may write to the clipboard: over https, from this machine, or from a file.
for (const code of navigator.clipboard ? document.querySelectorAll(".highlight") : []) {
  const copy = Object.assign(document.createElement("button"), {
    type: "button",
    className: "copy",
    textContent: say("Copy"),
  });
  copy.onclick = async () => {
    await navigator.clipboard.writeText(code.querySelector("pre").textContent.trimEnd());
    copy.textContent = say("Copied");
    setTimeout(() => (copy.textContent = say("Copy")), 1500);
  };
  code.append(copy);
}
