// Draws every figure in the theme of the reader, and again when theme, width or medium changes.
(() => {
  "use strict";
  const config = { displayModeBar: false, responsive: true, showTips: false };
  const charts = [...document.querySelectorAll(".chart")].map((element) => {
    const source = element.querySelector("script");
    const figure = JSON.parse(source.textContent);
    source.remove();
    return { element, figure };
  });

  // Values of keys that end in "color" may be "var(--name)": the style sheet says what that is.
  const themed = (value, key, style) => {
    if (Array.isArray(value)) return value.map((item) => themed(item, key, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, k, style)]));
    }
    const name = /color$/.test(key) && /^var\((--[a-z0-9-]+)\)$/.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const { element, figure } of charts) {
      const { data, layout } = themed(figure, "", style);
      const size = { width: element.clientWidth, height: element.clientHeight };
      Plotly.react(element, data, { ...layout, ...size }, config);
    }
  };

  for (const medium of ["print", "(prefers-color-scheme: dark)"]) {
    matchMedia(medium).addEventListener("change", draw);
  }
  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  });
  draw();
})();
