// Gives every slider of an explorer its label as the name that a screen reader says.
//
// ipywidgets puts the label beside the handle and ties the two by nothing, so that one would hear
// "slider, 0.5" and not which.

export default {
  render({ el }) {
    el.style.display = "none";
    function name() {
      const explorer = el.closest(".vae-sliders");
      for (const slider of explorer ? explorer.querySelectorAll(".widget-slider") : []) {
        const label = slider.querySelector("label")?.textContent;
        const handle = slider.querySelector("[role=slider]");
        if (label && handle) handle.setAttribute("aria-label", label);
      }
    }
    // The sliders come when their own widgets are drawn, before or after this one.
    const timers = [0, 200, 1000, 3000].map((wait) => setTimeout(name, wait));
    return () => timers.forEach(clearTimeout);
  },
};
