// A notebook's kernel as the host of an explorer; its other side is `Explorer` in explorer.py.

import { explorer } from "./explorer.js";

let views = 0;

function kernel(model) {
  const view = `${Math.random()}-${views++}`; // several may show the same explorer
  const asked = new Map(); // number of a request -> its promise's two ends
  let n = 0;
  let tell = () => {};

  function ask(question, bytes) {
    return new Promise((resolve, reject) => {
      const id = `${view}-${n++}`;
      asked.set(id, { resolve, reject });
      model.send({ ...question, id }, undefined, [bytes]);
    });
  }
  function answered(id, answer) {
    const ends = asked.get(id);
    asked.delete(id);
    if (answer.error) ends?.reject(new Error(answer.error));
    else ends?.resolve(answer);
    return ends;
  }
  const onMessage = (answer, buffers) => answered(answer.id, { ...answer, buffers });
  function onShown() {
    const answer = model.get("shown");
    if (!answered(answer.id, answer)) tell(answer);
  }
  model.on("msg:custom", onMessage);
  model.on("change:shown", onShown);

  return {
    state: model.get("state"),
    shown: model.get("shown"),
    move: (code, controls) => ask({ do: "move", controls }, asBytes(code)),
    decode: (codes, side) => ask({ do: "decode", side }, asBytes(codes.flat())),
    others: (action) => (tell = action),
    close() {
      model.off("msg:custom", onMessage);
      model.off("change:shown", onShown);
    },
  };
}

function asBytes(numbers) {
  return numbers instanceof Uint8Array ? numbers.buffer : new Float32Array(numbers).buffer;
}

export default {
  render({ model, el }) {
    const host = kernel(model);
    const close = explorer(host, el);
    return () => {
      close?.();
      host.close();
    };
  },
};
