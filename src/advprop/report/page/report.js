// Draws every figure in the theme of the reader, and again when theme, width or medium changes.
// Methods can be hidden: keys are buttons, and all that carries a method's name follows.
(() => {
  "use strict";
  const config = { displayModeBar: false, responsive: false, showTips: false };
  const hidden = new Set();
  const charts = [...document.querySelectorAll(".chart")].map((element) => {
    const source = element.querySelector("script");
    const figure = JSON.parse(source.textContent);
    source.remove();
    const methods = figure.data.map((trace) => trace.meta).filter(Boolean);
    return { element, figure, methods, panel: element.closest(".panel"), stale: true };
  });

  // Values of keys that end in "color", and steps of colour scales, may be "var(--name)": the
  // style sheet says what that is.
  const themed = (value, key, style) => {
    if (Array.isArray(value)) return value.map((item) => themed(item, key, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, k, style)]));
    }
    const name = /color(scale)?$/.test(key) && /^var\((--[a-z0-9-]+)\)$/.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  };

  const draw = (chart) => {
    const style = getComputedStyle(document.documentElement);
    const shown = chart.figure.data.filter((trace) => !hidden.has(trace.meta));
    const { data, layout } = themed({ ...chart.figure, data: shown }, "", style);
    const size = { width: chart.element.clientWidth, height: chart.element.clientHeight };
    Plotly.react(chart.element, data, { ...layout, ...size }, config);
    chart.stale = false;
  };

  const waiting = () => charts.filter((chart) => chart.stale && chart.element.clientWidth > 0);

  // one figure at a time, those in view first: long pages answer while they draw
  let timer = 0;
  const work = () => {
    timer = 0;
    const left = waiting();
    if (!left.length) return;
    const seen = left.find(({ element }) => {
      const place = element.getBoundingClientRect();
      return place.bottom > 0 && place.top < innerHeight;
    });
    draw(seen ?? left[0]);
    if (left.length > 1) schedule();
  };
  const schedule = () => {
    timer ||= setTimeout(work, 0);
  };
  const refresh = () => {
    for (const chart of charts) chart.stale = true;
    schedule();
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  matchMedia("print").addEventListener("change", () => {
    for (const chart of charts) chart.stale = true;
    waiting().forEach(draw); // paper does not wait
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar
    width = innerWidth;
    refresh();
  });
  document.addEventListener("toggle", schedule, true);

  const show = () => {
    for (const button of document.querySelectorAll("[data-toggle]")) {
      button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.toggle)));
    }
    for (const element of document.querySelectorAll("[data-method]")) {
      element.hidden = hidden.has(element.dataset.method);
    }
    for (const { panel, methods } of charts) {
      panel.hidden = methods.length > 0 && methods.every((method) => hidden.has(method));
    }
    refresh();
  };
  const names = [...new Set([...document.querySelectorAll("[data-toggle]")].map((b) => b.dataset.toggle))];
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-toggle], [data-show]");
    if (!button) return;
    const name = button.dataset.toggle;
    if (button.dataset.show === "all") hidden.clear();
    else if (button.dataset.show === "none") names.forEach((each) => hidden.add(each));
    else if (!hidden.delete(name)) hidden.add(name);
    const before = button.getBoundingClientRect().top;
    show();
    scrollBy(0, button.getBoundingClientRect().top - before); // the button stays under the finger
  });

  for (const radio of document.querySelectorAll(".switch input[value^='corruption-view']")) {
    const view = document.getElementById(radio.value);
    const follow = () => {
      for (const other of document.getElementsByName(radio.name)) {
        document.getElementById(other.value).hidden = !other.checked;
      }
      schedule();
    };
    radio.addEventListener("change", follow);
    view.hidden = !radio.checked;
  }

  schedule();
})();
