// What a reader guesses and opens, kept in the browser's own storage.
//
// On a lesson's page what came out is hidden until it is guessed or "Show" is pressed; without
// JavaScript, and in print, all is there. The index says how many questions are answered.

const KEY = "vae-lesson"; // {lesson: {question: the guess, or SEEN}}
const SEEN = "shown";

// A browser may refuse its storage, to a file or in a private window: then the page forgets.
function stored(act) {
  try {
    return act(localStorage);
  } catch {
    return {};
  }
}
const kept = () => stored((storage) => Object(JSON.parse(storage.getItem(KEY))));
const keep = (all) => stored((storage) => storage.setItem(KEY, JSON.stringify(all)));

// The number that people write as 0,3 or 20,000 or 81% or −1; NaN if it is none.
function numberIn(text) {
  const typed = text.trim().replace("−", "-").replace(/\s*%$/, "e-2");
  const inThousands = /^[+-]?[1-9]\d{0,2}(,\d{3})+(?![\d,])/.test(typed);
  const plain = inThousands ? typed.replaceAll(",", "") : typed.replace(",", ".");
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
}

function lessonPage(questions, [words, showAll, forget]) {
  const lesson = location.pathname.match(/([^/]*?)(\.html)?$/)[1];
  let answers = Object(kept()[lesson]);

  function show(element) {
    const { question, measured } = element.dataset;
    const [done, guess] = [question in answers, answers[question]];
    element.toggleAttribute("open", done); // what is folded
    if (!measured) return;
    const [field, , , said] = element.elements;
    const alone = say("Measured {measured}.", { measured });
    const both = say("You guessed {guess}; measured {measured}.", { guess, measured });
    said.value = !done ? "" : guess === SEEN ? alone : both;
    field.parentElement.hidden = done;
    element.hidden = false;
    for (const part of document.querySelectorAll(`[data-waits="${question}"]`)) {
      part.hidden = done ? false : "until-found"; // the browser's own search shows it
      part.onbeforematch = () => answer(element);
    }
  }

  function update(changed) {
    changed.forEach(show);
    const n = questions.filter((element) => element.dataset.question in answers).length;
    const all = questions.length;
    words.textContent = say("{n} of {all} questions answered here.", { n, all });
    showAll.hidden = n === all;
    forget.hidden = n === 0;
    words.parentElement.hidden = false;
  }

  // The button that was pressed goes; `next` gets the focus.
  function answer(element, value = SEEN, next = null) {
    answers[element.dataset.question] ??= value;
    keep({ ...kept(), [lesson]: answers });
    update([element]);
    next?.focus({ preventScroll: true });
  }

  for (const element of questions) {
    element.ontoggle = () => element.open && answer(element);
    if (!element.elements) continue;
    const [field, , see, said] = element.elements;
    see.onclick = () => answer(element, SEEN, said);
    element.onsubmit = (event) => {
      event.preventDefault();
      const [typed, number] = [field.value.trim(), numberIn(field.value)];
      if (Number.isFinite(number)) answer(element, number, said);
      else if (typed) said.value = say("“{typed}” is no number: write it like 0.3.", { typed });
      else said.value = say("Type a number, or press Show.");
    };
  }
  showAll.onclick = () => questions.forEach((element) => answer(element, SEEN, words));
  forget.onclick = () => {
    if (!confirm(say("Forget what you answered on this page?"))) return;
    keep({ ...kept(), [lesson]: (answers = {}) });
    for (const element of questions) element.reset?.();
    update(questions);
    words.focus();
  };
  update(questions);
}

function indexPage(marks, [words, forget]) {
  function count() {
    for (const mark of marks) {
      const asked = mark.dataset.asked.split(" ");
      const answers = Object(kept()[mark.dataset.lesson]);
      const [n, all] = [asked.filter((question) => question in answers).length, asked.length];
      const some = say("{n} of {all} questions", { n, all });
      mark.textContent = n < all ? some : say("✓ all {all} questions", { all });
      mark.hidden = n === 0;
      if (n === 0) continue;
      words.parentElement.hidden = false;
      words.textContent = say("What you answered is kept in this browser.");
    }
  }
  forget.onclick = () => {
    if (!confirm(say("Forget what you answered in all lessons?"))) return;
    keep({});
    count();
    words.textContent = say("Forgotten.");
  };
  marks[0].closest(".scrolls").after(words.parentElement);
  addEventListener("pageshow", count); // Back leads here without a new start
}

try {
  const { children } = document.getElementById("kept");
  const marks = document.querySelectorAll("[data-asked]");
  if (marks.length) indexPage(marks, children);
  else lessonPage([...document.querySelectorAll("[data-question]")], children);
} finally {
  document.documentElement.classList.remove("guessing");
}
