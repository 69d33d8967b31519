// A tour of the playground: predictions, each made before it is seen. The stops come from
// playground.py: {title, tells, asks, answers, right, set, todo, until, watch, says, lesson}.

import { button, choice, fixed, make } from "./parts.js";

const ENOUGH = 600; // steps, after which a model has shown what it does
const WATCHED = {
  kl: ({ kl }) => `KL ${fixed(kl ?? 0, 2)} nats`,
  spread: ({ spread }) => `spread ${fixed(spread, 1)}`,
};

// begin(settings, run) begins anew, with all else as usual. page: whether lessons are pages beside.
export function tour(stops, begin, page) {
  let [at, guess, since, told] = [0, null, null, false];
  const [question, outcome, live] = [make("div", {}), make("output", {}), make("b", {})];
  const [back, next] = [button("Back", () => turn(-1)), button("Next", () => turn(1))];
  const buttons = make("div", { className: "vae-buttons" }, back, next, live);
  const element = make("section", { className: "vae-tour", ariaLabel: "tour" });
  element.append(question, buttons, outcome);

  function go(to) {
    [at, guess, since, told] = [to, null, null, false];
    const { title, tells, asks, answers } = stops[at];
    const heading = make("b", {}, `Guess ${at + 1} of ${stops.length} · ${title}`);
    const options = Object.fromEntries(answers.map((answer) => [answer, ""]));
    const radios = choice(asks, options, (answer) => radios.choose(predicted(answer)));
    question.replaceChildren(heading, make("p", {}, tells), radios.element);
    outcome.textContent = live.textContent = "";
  }
  function turn(by) {
    go((at + by + stops.length) % stops.length);
    begin(stops[at].set, false); // so that one sees what is asked about
  }
  function predicted(answer) {
    if (guess !== null) return guess; // the first one counts
    begin(stops[at].set, true);
    outcome.textContent = stops[at].until ? stops[at].todo : "";
    return (guess = answer);
  }
  // Hears what the model has come to; says so once it has trained for long enough.
  function watch(seen, settings) {
    if (guess === null || told) return;
    const { until = {}, todo, says, lesson, answers, right } = stops[at];
    const now = WATCHED[stops[at].watch](seen);
    live.textContent = now;
    if (Object.entries(until).some(([name, least]) => settings[name] < least)) return;
    if (since === null || seen.step < since) since = seen.step; // less: an earlier model's, late
    live.append(`, step ${seen.step - since} of ${ENOUGH}`);
    if (seen.step < since + ENOUGH) return;
    told = true;
    live.textContent = "";
    const verdict = guess === answers[right] ? "and so it is" : `it is: ${answers[right]}`;
    const [file, name] = lesson;
    const proof = page ? make("a", { href: `${file}.html` }, name) : name;
    const said = `You said: ${guess}; ${verdict} (${now} at step ${seen.step}). ${says} Proof: `;
    const more = stops[at].until ? [] : [make("p", {}, todo)];
    outcome.replaceChildren(make("p", {}, said, proof, "."), ...more);
  }
  go(0);
  return { element, watch };
}
