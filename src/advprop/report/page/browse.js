// Searches the recorded test images and the table of classes, both from JSON in the page.
(() => {
  "use strict";
  const AT_ONCE = matchMedia("(max-width: 600px)").matches ? 12 : 24;
  const read = (id) => {
    const source = document.getElementById(id);
    return source && JSON.parse(source.textContent);
  };
  const element = (name, text = "", properties = {}) =>
    Object.assign(document.createElement(name), { textContent: text, ...properties });
  const matcher = (text, names) => {
    const wanted = text.trim().toLowerCase();
    const exact = names.some((name) => name.toLowerCase() === wanted);
    return (name) => !wanted || (exact ? name.toLowerCase() === wanted : name.toLowerCase().includes(wanted));
  };
  const signed = (number) => `${number < 0 ? "\u2212" : "+"}${Math.abs(number).toFixed(1)}`;

  const browse = () => {
    const data = read("browse-data");
    if (!data) return;
    const form = document.getElementById("browse-form");
    const [cards, count, more] = ["cards", "count", "more"].map((id) => document.getElementById(`browse-${id}`));
    const { labels, images } = data;
    // for each method: by image, the answers of its seeds
    const methods = data.methods.map(({ name, runs }) => {
      const answers = new Map();
      for (const run of runs) {
        data.sets[run.set].forEach((image, at) => {
          if (!answers.has(image)) answers.set(image, []);
          answers.get(image).push({ seed: run.seed, label: run.clean[at], confidence: run.confidence[at] });
        });
      }
      return { name, answers };
    });
    const right = (answers, image) => answers.filter(({ label }) => label === images[image][1]).length;
    const errs = ({ answers }, image) => {
      const own = answers.get(image);
      return own !== undefined && 2 * right(own, image) < own.length;
    };
    const onlyErrs = (method, image) => {
      const others = methods.filter((other) => other !== method && other.answers.has(image));
      return errs(method, image) && others.length > 0 && !others.some((other) => errs(other, image));
    };
    const readings = (own) => [...new Set(own.map(({ label }) => label))];

    const tally = (image) => {
      const every = methods.filter(({ answers }) => answers.has(image));
      const total = every.reduce((sum, { answers }) => sum + answers.get(image).length, 0);
      const good = every.reduce((sum, { answers }) => sum + right(answers.get(image), image), 0);
      return { every, total, good };
    };
    const shares = images.map((_, image) => {
      const { total, good } = tally(image);
      return good / total;
    });
    const share = (image) => shares[image];

    const card = (method, image) => {
      const [source, label, name] = images[image];
      const own = method.answers.get(image);
      const kind = errs(method, image) ? "wrong" : right(own, image) === own.length ? "right" : "mixed";
      const item = element("li", "", { className: "card" });
      const read = readings(own).map((each) => labels[each]).join(" or ");
      item.append(element("img", "", { src: source, alt: `class ${labels[label]}, predicted as ${read}` }));
      item.append(element("span", `class ${labels[label]}`, { className: "label" }));
      if (name) item.append(element("span", name.split("/").pop(), { className: "file", title: name }));
      const sure = Math.round(own.reduce((sum, { confidence }) => sum + confidence, 0) / own.length);
      item.append(element("span", `predicted ${read} (${sure}\u00a0%)`, { className: kind }));
      const { every, total, good } = tally(image);
      const all = element("details");
      all.append(element("summary", `${good} of ${total} correct`));
      all.addEventListener("toggle", () => {
        if (all.children.length > 1) return;
        const list = element("ul");
        for (const { name, answers } of every) {
          const text = answers.get(image).map((a) => `${labels[a.label]} (${a.confidence} %)`).join(", ");
          list.append(element("li", `${name}: ${text}`));
        }
        all.append(list);
      });
      item.append(all);
      return item;
    };

    let limit = AT_ONCE;
    const list = () => {
      const method = methods[form.elements.method.value];
      const matches = matcher(form.elements.class.value, labels);
      const kind = form.elements.show.value;
      const found = [...method.answers.keys()].filter((image) => {
        const own = method.answers.get(image);
        if (kind === "errs" && !errs(method, image)) return false;
        if (kind === "only" && !onlyErrs(method, image)) return false;
        return [images[image][1], ...readings(own)].some((label) => matches(labels[label]));
      });
      found.sort((a, b) => share(a) - share(b) || a - b);
      count.textContent = `${found.length} of ${method.answers.size} images`;
      cards.replaceChildren(...found.slice(0, limit).map((image) => card(method, image)));
      more.hidden = found.length <= limit;
    };
    form.elements.method.append(...methods.map(({ name }, at) => element("option", name, { value: at })));
    document.getElementById("browse-classes").append(
      ...[...labels].sort().map((label) => element("option", "", { value: label })),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      limit = AT_ONCE;
      list();
    });
    more.addEventListener("click", () => {
      limit += AT_ONCE;
      list();
    });
    list();
  };

  const classes = () => {
    const data = read("class-data");
    if (!data) return;
    const [table, search, count, more] = ["table", "search", "count", "more"].map((id) =>
      document.getElementById(`class-${id}`),
    );
    const of = new Map(data.columns.map((column) => [column.method, column]));
    const change = ({ versus, values }, at) => {
      const other = of.get(versus)?.values[at];
      return other == null || values[at] == null ? null : values[at] - other;
    };
    const columns = [
      { title: "Class", key: (at) => data.classes[at], text: (at) => data.classes[at] },
      { title: "Images", key: (at) => -data.images[at], text: (at) => data.images[at] },
      ...data.columns.map((column) => ({
        title: column.method,
        method: column.method,
        key: (at) => -(change(column, at) ?? column.values[at] ?? -Infinity),
        text: (at) => {
          if (column.values[at] == null) return "-";
          const moved = change(column, at);
          return `${column.values[at].toFixed(1)}${moved === null ? "" : ` (${signed(moved)})`}`;
        },
      })),
    ];
    let sorted = Math.max(0, columns.findIndex(({ method }) => of.get(method)?.versus));
    let limit = AT_ONCE;
    const head = table.createTHead().insertRow();
    const body = table.createTBody();
    const list = () => {
      const matches = matcher(search.value, data.classes);
      const { key } = columns[sorted];
      const found = data.classes.map((_, at) => at).filter((at) => matches(data.classes[at]));
      found.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a - b));
      [...head.cells].forEach((cell, at) => {
        cell.ariaSort = at !== sorted ? "none" : at ? "descending" : "ascending";
      });
      body.replaceChildren(
        ...found.slice(0, limit).map((at) => {
          const row = element("tr");
          row.append(...columns.map(({ text, method }, place) => {
            const cell = element(place ? "td" : "th", text(at));
            if (!place) cell.scope = "row";
            return cell;
          }));
          return row;
        }),
      );
      count.textContent = `${found.length} of ${data.classes.length} classes`;
      more.hidden = found.length <= limit;
    };
    columns.forEach(({ title }, at) => {
      const cell = element("th", "", { scope: "col" });
      const button = element("button", title, { type: "button", className: "plain" });
      button.addEventListener("click", () => {
        sorted = at;
        list();
      });
      cell.append(button);
      head.append(cell);
    });
    search.form.addEventListener("submit", (event) => event.preventDefault());
    search.addEventListener("input", () => {
      limit = AT_ONCE;
      list();
    });
    more.addEventListener("click", () => {
      limit += 10 * AT_ONCE;
      list();
    });
    list();
  };

  browse();
  classes();
})();
