// A plane with a point that the mouse, a finger or the arrow keys move; see Plane in parts.py.

const STEPS = 60; // presses of an arrow key from edge to edge; with Shift a fifth of that
const ROUND = 2 ** 20; // as in parts.py

export default {
  render({ model, el }) {
    const plane = document.createElement("div");
    plane.className = "vae-plane";
    plane.tabIndex = 0;
    plane.setAttribute("role", "application"); // a screen reader hands over the arrow keys
    plane.setAttribute("aria-roledescription", "map");
    plane.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrow keys
    const img = document.createElement("img");
    img.alt = ""; // the plane has the label
    img.draggable = false;
    const readout = document.createElement("output"); // an output is read out when it changes
    readout.className = "vae-readout";
    plane.innerHTML = `<svg width="1" height="1" aria-hidden="true">
      <circle r="8" fill="none" stroke="white" stroke-width="5"/>
      <circle r="8" fill="none" stroke="black" stroke-width="2.5"/>
      <path d="M-14 0H14M0 -14V14" stroke="white" stroke-width="3"/>
      <path d="M-14 0H14M0 -14V14" stroke="black" stroke-width="1"/></svg>`;
    const mark = plane.querySelector("svg");
    plane.prepend(img);
    let url = null;
    let active = null; // the pointer that drags: a second finger changes nothing
    let number = 0; // of the point that is shown: what the kernel sets with a lower one is older
    let point;
    const cells = () => model.get("cells");

    function showBackground() {
      if (url) URL.revokeObjectURL(url);
      url = URL.createObjectURL(new Blob([model.get("background")], { type: "image/png" }));
      img.src = url;
    }
    function showPoint() {
      if (model.get("number") < number) return;
      [number, point] = [model.get("number"), model.get("point")];
      const [size, low, high] = ["size", "low", "high"].map((name) => model.get(name));
      const [x, y] = point;
      const left = ((x - low[0]) / (high[0] - low[0])) * size;
      const top = ((high[1] - y) / (high[1] - low[1])) * size;
      mark.style.transform = `translate(${left}px, ${top}px)`;
      const [column, row] = [x - low[0], high[1] - y].map((v) => Math.min(Math.floor(v) + 1, cells()));
      readout.textContent = cells()
        ? `row ${row}, column ${column}`
        : `z = (${x.toFixed(2)}, ${y.toFixed(2)})`;
    }
    function describe() {
      plane.setAttribute("aria-label", model.get("label"));
    }
    function resize() {
      plane.style.width = plane.style.height = `${model.get("size")}px`;
      showPoint();
    }
    function moveTo(x, y) {
      const [low, high] = [model.get("low"), model.get("high")];
      const inside = (value, i) => Math.min(Math.max(value, low[i]), high[i]);
      number++;
      model.set("point", [inside(x, 0), inside(y, 1)]);
      model.set("number", number);
      model.save_changes(); // ipywidgets keeps only the last of the moves that the kernel lags behind
    }
    function pressed(event) {
      // Counted at once, however far the kernel lags behind.
      const button = event.target.closest(".vae-button");
      if (!button?.closest(".vae-sliders")?.contains(el)) return;
      number = (Math.floor(number / ROUND) + 1) * ROUND;
    }
    function follow(event) {
      const box = plane.getBoundingClientRect();
      const [low, high] = [model.get("low"), model.get("high")];
      moveTo(
        low[0] + ((event.clientX - box.left) / box.width) * (high[0] - low[0]),
        high[1] - ((event.clientY - box.top) / box.height) * (high[1] - low[1]),
      );
    }

    plane.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || active !== null) return;
      event.preventDefault();
      active = event.pointerId;
      plane.focus({ preventScroll: true });
      plane.setPointerCapture(event.pointerId);
      follow(event);
    });
    plane.addEventListener("pointermove", (event) => {
      if (event.pointerId === active) follow(event);
    });
    plane.addEventListener("lostpointercapture", (event) => {
      if (event.pointerId === active) active = null;
    });
    plane.addEventListener("keydown", (event) => {
      const direction = {
        ArrowLeft: [-1, 0],
        ArrowRight: [1, 0],
        ArrowDown: [0, -1],
        ArrowUp: [0, 1],
      }[event.key];
      const [low, high] = [model.get("low"), model.get("high")];
      if (event.key === "Home") moveTo((low[0] + high[0]) / 2, (low[1] + high[1]) / 2);
      else if (direction) {
        const steps = cells() || (event.shiftKey ? STEPS / 5 : STEPS);
        const step = (i) => (direction[i] * (high[i] - low[i])) / steps;
        moveTo(point[0] + step(0), point[1] + step(1));
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });

    const heard = [
      ["change:background", showBackground],
      ["change:point change:number change:low change:high", showPoint],
      ["change:label", describe],
      ["change:size", resize],
    ];
    for (const [events, action] of heard) {
      model.on(events, action);
      action();
    }
    document.addEventListener("click", pressed);
    el.classList.add("vae-explorer");
    el.append(plane, readout);
    return () => {
      document.removeEventListener("click", pressed);
      for (const [events, action] of heard) model.off(events, action);
      URL.revokeObjectURL(url);
    };
  },
};
