// An explorer: the parts of its kind, over a host that decodes what they ask for.
//
// A host is the kernel (kernel.js) or a page without one (site/page.js). It has
//   state               what does not change, see the `state` of each explorer in Python
//   shown               the last answer: {z, controls, shapes, buffers}
//   move(code, controls)  decodes a code, which is then the explorer's, and answers like `shown`
//   decode(codes, side) decodes several, no side over `side`, and answers {shapes, buffers}
//   others(action)      tells of an answer that nobody here has asked for, as when z is set in code
//
// A kind gets `core` and returns {elements, place, paint}: `place(z, controls)` moves its controls
// to a code without asking, `paint(answer)` shows what comes with it. One without `place` is a figure
// that draws what it shows from `state`, and asks its host for nothing. `close`, where there is
// one, ends what a kind has begun.

import { inTurn, make, picture, pictures, say, speak } from "./parts.js";
import { drawing } from "./drawing.js";
import { map } from "./map.js";
import { morph } from "./morph.js";
import { playground } from "./playground.js";
import { sliders } from "./sliders.js";
import { tokens } from "./tokens.js";
import { toy } from "./toy.js";

export function explorer(host, el) {
  const { state } = host;
  speak(state.words);
  const notice = make("p", { className: "vae-notice", role: "alert" });
  const failed = (words) => (notice.textContent = words);
  const [moves, others] = [inTurn(failed), inTurn(failed)]; // a move waits for no filmstrip
  let waits = false; // a move that is not answered yet
  let overtaken = false; // something else was shown since the last move was asked for

  const ofModel = say("decoded image");
  const decoded = state.names.map((name) => picture(`${ofModel} ${name}`.trim()));
  const core = {
    state,
    decoded: decoded.map(({ canvas }) => canvas),
    // Goes to a code; the next move in the same moment takes its place.
    move(code, controls) {
      waits = true;
      moves("move", async () => {
        waits = overtaken = false;
        const answer = await host.move(code, controls);
        if (overtaken && !waits) kind.place(read(answer), answer.controls);
        paint(answer);
      });
    },
    // Decodes codes, made at the moment when it is their turn, and hands their pictures on.
    decode(name, makeCodes, side, draw) {
      others(name, async () => draw(pictures(await host.decode(makeCodes(), side))));
    },
  };

  function paint(answer) {
    const given = pictures(answer);
    decoded.forEach(({ draw }, i) => given[i] && draw([given[i]]));
    kind.paint?.(answer, given);
  }
  function show(answer) {
    overtaken = true;
    kind.place(read(answer), answer.controls);
    paint(answer);
  }

  const kind = { drawing, map, morph, playground, sliders, tokens, toy }[state.kind](core);
  const warnings = state.warnings.map((words) => make("p", { className: "vae-warning" }, words));
  el.classList.add("vae-explorer");
  el.append(...warnings, ...kind.elements, notice);
  if (kind.place) {
    show(host.shown);
    host.others(show);
  }
  return kind.close;
}

// What a host has shown: a code, or the pixels of a drawing.
function read({ z, drawing }) {
  const { buffer, byteOffset, byteLength } = drawing ?? z;
  const bytes = buffer.slice(byteOffset, byteOffset + byteLength); // floats need a multiple of 4
  return drawing ? new Uint8Array(bytes) : [...new Float32Array(bytes)];
}
