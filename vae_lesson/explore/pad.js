// A pad of 28×28 pixels to draw on; see Pad in parts.py.
//
// One canvas has exactly those pixels, enlarged by the page; a second one above it shows the pen
// that the keyboard moves.

const SIDE = 28;
const PEN = 2.4; // pixels, about as wide as MNIST's strokes
const ROUND = 2 ** 20; // as in parts.py

export default {
  render({ model, el }) {
    const pad = document.createElement("div");
    pad.className = "vae-pad";
    pad.tabIndex = 0;
    pad.setAttribute("role", "application"); // a screen reader hands over the keys
    pad.setAttribute("aria-roledescription", "drawing pad");
    pad.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the keys
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const ink = canvas.getContext("2d", { willReadFrequently: true });
    const overlay = document.createElement("canvas");
    const readout = document.createElement("output"); // an output is read out when it changes
    readout.className = "vae-readout";
    pad.append(canvas, overlay);

    let number = -1; // of what is shown: what the kernel sets with a lower one is older
    let before = null; // the pixels before the stroke that is being drawn
    let stroke = []; // its points
    let active = null; // the pointer that draws: a second finger or a palm changes nothing
    let pen = { x: SIDE / 2, y: SIDE / 2, down: false, shown: false };

    function paint(bytes) {
      const image = ink.createImageData(SIDE, SIDE);
      for (let i = 0; i < SIDE * SIDE; i++) {
        const grey = bytes.byteLength ? bytes.getUint8(i) : 0;
        image.data.set([grey, grey, grey, 255], 4 * i);
      }
      ink.putImageData(image, 0, 0);
      if (before) [before, stroke] = [image, stroke.slice(-1)]; // it goes on from here
    }
    function showPixels() {
      const newer = model.get("number") - number;
      if (newer < 0 || (before && newer === 0)) return; // older, or sent by this stroke
      number = model.get("number");
      paint(model.get("pixels"));
    }
    function pressed(event) {
      // Counted and cleared at once, however far the kernel lags behind.
      const button = event.target.closest(".vae-button");
      if (!button?.closest(".vae-sliders")?.contains(el)) return;
      number = (Math.floor(number / ROUND) + 1) * ROUND;
      if (!button.matches(".vae-clear")) return;
      paint(new Uint8Array());
      send();
    }
    function send() {
      const rgba = ink.getImageData(0, 0, SIDE, SIDE).data;
      const grey = new Uint8Array(SIDE * SIDE).map((_, i) => rgba[4 * i]);
      number++;
      model.set("pixels", new DataView(grey.buffer));
      model.set("number", number);
      model.save_changes(); // ipywidgets keeps only the last of the states that the kernel lags behind
    }
    function begin(x, y) {
      before = ink.getImageData(0, 0, SIDE, SIDE);
      stroke = [];
      extend([[x, y]]);
    }
    function extend(points) {
      stroke.push(...points);
      // The whole stroke anew: joined pieces would be painted twice where they meet.
      ink.putImageData(before, 0, 0);
      ink.strokeStyle = "white";
      ink.lineWidth = PEN;
      ink.lineCap = ink.lineJoin = "round";
      ink.beginPath();
      ink.moveTo(...stroke[0]);
      // A line of no length leaves no dot in Chromium from 156 on, nor in WebKit.
      const [x, y] = stroke[0];
      if (stroke.every((point) => point[0] === x && point[1] === y)) ink.lineTo(x + 0.01, y);
      for (const point of stroke) ink.lineTo(...point);
      ink.stroke();
      send();
    }
    function place(event) {
      const box = canvas.getBoundingClientRect();
      return [
        ((event.clientX - box.left) / box.width) * SIDE,
        ((event.clientY - box.top) / box.height) * SIDE,
      ];
    }
    function showPen() {
      const size = model.get("size");
      overlay.width = overlay.height = size;
      readout.textContent = "";
      if (!pen.shown) return;
      const scale = size / SIDE;
      const mark = overlay.getContext("2d");
      mark.strokeStyle = pen.down ? "#ff8c00" : "#6fb7ff";
      mark.lineWidth = 3;
      mark.strokeRect((pen.x - 1) * scale, (pen.y - 1) * scale, 2 * scale, 2 * scale);
      const [column, row] = [Math.round(pen.x), Math.round(pen.y)];
      readout.textContent = `pen ${pen.down ? "down" : "up"}, column ${column}, row ${row}`;
    }
    function resize() {
      pad.style.width = pad.style.height = `${model.get("size")}px`;
      showPen();
    }
    function describe() {
      pad.setAttribute("aria-label", model.get("label"));
    }

    pad.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || active !== null) return;
      active = event.pointerId;
      event.preventDefault();
      pen = { ...pen, down: false, shown: false };
      showPen();
      pad.focus({ preventScroll: true });
      pad.setPointerCapture(event.pointerId);
      begin(...place(event));
    });
    pad.addEventListener("pointermove", (event) => {
      if (event.pointerId !== active) return;
      // Over plain http on a host name, and in Safari before 18.2, there is no such function.
      const events = event.getCoalescedEvents?.() ?? [];
      extend((events.length ? events : [event]).map(place));
    });
    pad.addEventListener("lostpointercapture", (event) => {
      if (event.pointerId !== active) return;
      active = before = null;
    });

    pad.addEventListener("keydown", (event) => {
      if (active !== null) return;
      const direction = {
        ArrowLeft: [-1, 0],
        ArrowRight: [1, 0],
        ArrowUp: [0, -1],
        ArrowDown: [0, 1],
      }[event.key];
      if (direction) {
        pen.x = Math.min(Math.max(pen.x + direction[0], 1), SIDE - 1);
        pen.y = Math.min(Math.max(pen.y + direction[1], 1), SIDE - 1);
        if (pen.down) extend([[pen.x, pen.y]]);
      } else if (event.key === " ") {
        event.preventDefault();
        if (event.repeat) return; // held: not down and up again and again
        pen.down = !pen.down;
        if (pen.down) begin(pen.x, pen.y);
        else before = null;
      } else return;
      pen.shown = true;
      showPen();
      event.preventDefault();
      event.stopPropagation();
    });
    pad.addEventListener("blur", () => {
      if (pen.down) before = null;
      pen = { ...pen, down: false, shown: false };
      showPen();
    });

    const heard = [
      ["change:pixels change:number", showPixels],
      ["change:size", resize],
      ["change:label", describe],
    ];
    for (const [events, action] of heard) {
      model.on(events, action);
      action();
    }
    document.addEventListener("click", pressed);
    el.classList.add("vae-explorer");
    el.append(pad, readout);
    return () => {
      document.removeEventListener("click", pressed);
      for (const [events, action] of heard) model.off(events, action);
    };
  },
};
