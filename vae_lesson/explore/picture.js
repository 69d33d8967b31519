// A picture whose PNG comes from the kernel; see Picture in parts.py.

export default {
  render({ model, el }) {
    const img = document.createElement("img");
    let url = null;

    function show() {
      const old = url;
      url = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
      img.src = url; // the old picture stays until the new one is decoded: no flicker
      if (old) URL.revokeObjectURL(old);
    }
    function describe() {
      img.alt = model.get("alt");
    }
    function resize() {
      img.style.width = `${model.get("width")}px`;
      img.style.height = `${model.get("height")}px`;
    }

    model.on("change:value", show);
    model.on("change:alt", describe);
    model.on("change:width change:height", resize);
    show();
    describe();
    resize();
    el.classList.add("vae-explorer");
    el.append(img);
    return () => {
      model.off("change:value", show);
      model.off("change:alt", describe);
      model.off("change:width change:height", resize);
      URL.revokeObjectURL(url);
    };
  },
};
