// A tour of the playground: predictions, each made before it is seen. The stops come from
// playground.py: {title, tells, asks, answers, right, set, todo, until, watch, says, lesson}.

import { button, choice, fixed, make, say } from "./parts.js";

const ENOUGH = 600; // steps, after which a model has shown what it does
const WATCHED = {
  kl: ({ kl }) => ["KL", fixed(kl ?? 0, 2), say("nats")].join(" "),
  spread: ({ spread }) => say("spread {spread}", { spread: fixed(spread, 1) }),
};

// begin(settings, run) begins anew, with all else as usual. page: whether lessons are pages beside.
export function tour(stops, begin, page) {
  let [at, guess, since, told] = [0, null, null, false];
  const [question, outcome, live] = [make("div", {}), make("output", {}), make("b", {})];
  const [back, next] = [button(say("Back"), () => turn(-1)), button(say("Next"), () => turn(1))];
  const buttons = make("div", { className: "vae-buttons" }, back, next, live);
  const element = make("section", { className: "vae-tour", ariaLabel: say("tour") });
  element.append(question, buttons, outcome);

  function go(to) {
    [at, guess, since, told] = [to, null, null, false];
    const { title, tells, asks, answers } = stops[at];
    const which = { n: at + 1, all: stops.length, title };
    const heading = make("b", {}, say("Guess {n} of {all} · {title}", which));
    const options = Object.fromEntries(answers.map((answer) => [answer, answer]));
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
    const come = { now, step: seen.step - since, all: ENOUGH };
    live.textContent = say("{now}, step {step} of {all}", come);
    if (seen.step < since + ENOUGH) return;
    told = true;
    live.textContent = "";
    const answer = answers[right];
    const verdict = guess === answer ? say("and so it is") : say("it is: {answer}", { answer });
    const [file, name] = lesson;
    const proof = page ? make("a", { href: `${file}.html` }, name) : name;
    const [said, end] = say(
      "You said: {guess}; {verdict} ({now} at step {step}). {says} Proof: {proof}.",
      { guess, verdict, now, step: seen.step, says },
    ).split("{proof}"); // which has no value, and stays
    const more = stops[at].until ? [] : [make("p", {}, todo)];
    outcome.replaceChildren(make("p", {}, said, proof, end), ...more);
  }
  go(0);
  return { element, watch };
}
