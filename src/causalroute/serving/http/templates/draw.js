// Answers as elements. Every word from a post or a model goes through textContent; widths are set as properties, which the security policy allows.
const EFFECTS = {
  TE: ["Whole post", "total effect, TE", ""],
  NDE_text: ["Context of the text alone", "direct effect, NDE", "context-bar"],
  NDE_image: ["Context of the picture alone", "direct effect, NDE", "context-bar"],
  NDE_both: ["Both contexts together", "direct effect, NDE", "context-bar"],
  TIE: ["Without the contexts' direct effect", "indirect effect, TIE", "core-bar"],
};
const GATES = { keep: "nothing", text: "the text's", image: "the picture's", both: "both" };
const MOST = 8;

export const make = (tag, options = {}, ...children) => {
  const { text, className, ...rest } = options;
  const found = document.createElement(tag);
  if (className) found.className = className;
  if (text !== undefined) found.textContent = text;
  for (const [key, value] of Object.entries(rest)) found.setAttribute(key, value);
  found.append(...children);
  return found;
};
const percent = (p) => `${(100 * p).toFixed(1)} %`;
const size = (value) => Math.abs(value).toFixed(2);
const signed = (value) => (size(value) === "0.00" ? "0.00" : `${value < 0 ? "−" : "+"}${size(value)}`);

const fill = (from, to, tone = "") => {
  const bar = make("span", { className: `fill ${tone}` });
  bar.style.left = `${100 * Math.min(from, to)}%`;
  bar.style.width = `${100 * Math.abs(to - from)}%`;
  return make("span", { className: "track", "aria-hidden": "true" }, bar);
};
const row = (name, bar, value) => make("li", {}, name, bar, make("span", { className: "value", text: value }));
const named = (text, className = "") => make("span", { className: `name ${className}`, text, dir: "auto" });

const shares = (pairs) => {
  const shown = pairs.length > MOST ? [...pairs].sort((a, b) => b[1] - a[1]).slice(0, MOST) : pairs;
  const list = make("ul", { className: "bars" }, ...shown.map(([name, p]) => row(named(name), fill(0, p), percent(p))));
  const more = pairs.length - shown.length;
  return more > 0 ? make("div", {}, list, make("p", { className: "notes", text: `and ${more} more` })) : list;
};

const verdict = (tone, title, label, probabilities, note) =>
  make("article", { className: `verdict ${tone}` }, make("h3", { text: title }), make("p", { className: "label", text: label, dir: "auto" }),
    shares(Object.entries(probabilities)), make("p", { className: "notes", text: note }));

export const verdicts = (told, model) => {
  const points = 100 * told.spread;
  const seeds = model.seeds.length > 1 ? `± ${points.toFixed(1)} points between ${model.seeds.length} training seeds` : "";
  const debiased = verdict("debiased", `Debiased (${model.method})`, told.label, told.probabilities, seeds);
  if (!told.biased) return [debiased];
  const note = told.biased_label === told.label ? "the same answer" : "differs from the debiased answer";
  return [verdict("biased", `Biased (${model.reference})`, told.biased_label, told.biased, note), debiased];
};

const title = (key) => {
  const [name, kind] = EFFECTS[key] ?? [key, ""];
  return make("span", { className: "name" }, make("b", { text: name }), make("small", { text: kind }));
};
const effectRows = (effects, classes) => {
  const highest = Math.max(1, ...Object.values(effects).flatMap((effect) => Object.values(effect).map(Math.abs)));
  const bar = (key, value) => fill(0.5, 0.5 + value / highest / 2, EFFECTS[key]?.[2] ?? "");
  const keys = Object.keys(EFFECTS).filter((key) => key in effects);
  if (classes.length === 2) {
    return keys.map((key) => {
      const value = effects[key][classes[1]];
      return row(title(key), bar(key, value), size(value) === "0.00" ? "0.00" : `${size(value)} for ${classes[value < 0 ? 0 : 1]}`);
    });
  }
  return keys.flatMap((key) => {
    const head = title(key);
    head.classList.add("whole");
    const best = [...classes].sort((a, b) => Math.abs(effects[key][b]) - Math.abs(effects[key][a])).slice(0, MOST);
    const rows = classes.filter((name) => best.includes(name)).map((name) => row(named(name, "class"), bar(key, effects[key][name]), signed(effects[key][name])));
    return [make("li", {}, head), ...rows];
  });
};
const effectsPart = (effects, classes) => {
  const list = make("ul", { className: "bars effects" }, ...effectRows(effects, classes));
  if (classes.length === 2) {
    const poles = make("span", { className: "poles", "aria-hidden": "true" }, make("span", { text: `← ${classes[0]}` }), make("span", { text: `${classes[1]} →` }));
    list.prepend(make("li", { "aria-hidden": "true" }, make("span"), poles, make("span")));
  }
  return [make("h3", { text: "What speaks for what" }), make("p", { className: "notes", text: "Log-odds against how frequent the classes are; 0: it says nothing." }), list];
};

const gatePart = (why) => {
  const parts = [];
  const gates = Object.entries(why.gates).map(([key, share]) => [GATES[key] ?? key, share]);
  if (gates.length) {
    parts.push(make("div", {}, make("h3", { text: "Gate" }), make("p", { className: "notes", text: "Whose direct effect is taken away." }), shares(gates)));
  }
  if (why.experts.length) {
    parts.push(make("div", {}, make("h3", { text: "Experts" }), make("p", { className: "notes", text: "How much each one counts in the answer." }), shares(why.experts)));
  }
  return parts.length ? [make("div", { className: "two" }, ...parts)] : [];
};

const legend = (core, context) => make("p", { className: "legend" }, make("span", {}, make("b", { text: "core" }), core), make("span", {}, make("i", { text: "context" }), context));
const wordsPart = (text, words) => {
  const marks = Array.from(text); // offsets count characters, not UTF-16 units
  const line = make("p", { className: "words", dir: "auto", tabindex: "0", role: "group", "aria-label": "the text, core and context marked" });
  let at = 0;
  for (const word of words) {
    line.append(marks.slice(at, word.start).join(""));
    const shown = marks.slice(word.start, word.end).join("");
    line.append(word.context ? make("mark", {}, make("span", { className: "sr", text: "context: " }), shown) : make("span", { className: "core", text: shown }));
    at = word.end;
  }
  line.append(marks.slice(at).join(""));
  return make("div", {}, make("h3", { text: "Words" }), line, legend(": what the post says", ": may be a shortcut"));
};

const veil = (canvas, region, image) => {
  canvas.width = 2 * image.clientWidth;
  canvas.height = 2 * image.clientHeight;
  const [wide, high] = [canvas.width / region.side, canvas.height / region.side];
  const draw = canvas.getContext("2d");
  const core = (y, x) => region.core[y]?.[x] ?? false;
  draw.fillStyle = "rgba(20, 24, 29, 0.62)";
  for (let y = 0; y < region.side; y++) {
    for (let x = 0; x < region.side; x++) {
      const [left, top] = [Math.round(x * wide), Math.round(y * high)];
      if (!core(y, x)) draw.fillRect(left, top, Math.round((x + 1) * wide) - left, Math.round((y + 1) * high) - top);
    }
  }
  for (const [colour, width] of [["#14181d", 7], ["#ffffff", 3]]) {
    draw.strokeStyle = colour;
    draw.lineWidth = width;
    draw.lineCap = "square";
    draw.beginPath();
    for (let y = 0; y <= region.side; y++) {
      for (let x = 0; x <= region.side; x++) {
        if (x < region.side && core(y, x) !== core(y - 1, x)) draw.moveTo(x * wide, y * high), draw.lineTo((x + 1) * wide, y * high);
        if (y < region.side && core(y, x) !== core(y, x - 1)) draw.moveTo(x * wide, y * high), draw.lineTo(x * wide, (y + 1) * high);
      }
    }
    draw.stroke();
  }
};
const picturePart = (address, alt, region) => {
  const share = region.core.flat().filter(Boolean).length / region.side ** 2;
  const image = make("img", { alt: `${alt || "the picture of the post"}; its core covers ${Math.round(100 * share)} % of it` });
  const canvas = make("canvas", { "aria-hidden": "true" });
  const box = make("input", { type: "checkbox" });
  box.checked = true;
  box.addEventListener("change", () => (canvas.hidden = !box.checked));
  const paint = () => image.clientWidth && veil(canvas, region, image);
  image.addEventListener("load", paint);
  new ResizeObserver(paint).observe(image);
  image.src = address;
  return make("div", {}, make("h3", { text: "Picture" }), make("div", { className: "shown" }, image, canvas), make("label", { className: "check" }, box, "veil the context"),
    make("p", { className: "notes", text: `The core that was found covers ${Math.round(100 * share)} % of the picture; the rest is context.` }));
};

export const why = (told, post, classes) => {
  const found = told.explanation;
  if (!found) return [];
  const parts = Object.keys(found.effects).length ? effectsPart(found.effects, classes) : [];
  const shown = [];
  if (found.words.length) shown.push(wordsPart(post.text, found.words));
  if (found.region && post.address) shown.push(picturePart(post.address, post.alt, found.region));
  return [...parts, ...gatePart(found), ...(shown.length ? [make("div", { className: "two" }, ...shown)] : [])];
};

const SPLITS = { id: "like the training posts (ID)", ood: "shortcuts mislead (OOD)", neutral: "shortcuts say nothing", clean: "without shortcuts" };
export const about = (model) => {
  const facts = [["task", model.task], ["classes", model.classes.join(", ")], ["trained on", model.dataset], ["method", model.method], ["biased reference", model.reference || "none"],
    ["reads", { image: "text and picture", attributes: "text and attribute words", none: "text" }[model.visual] ?? model.visual], ["training seeds", model.seeds.join(", ")],
    ["backbone", model.backbone?.name ?? ""], ["made by", Object.entries(model.made_by).map(([key, value]) => `${key} ${value}`).join(", ")]];
  const list = make("dl", { className: "facts" });
  for (const [name, value] of facts) if (value) list.append(make("dt", { text: name }), make("dd", { text: value }));
  const names = Object.keys(model.results);
  const splits = [...new Set(names.flatMap((name) => Object.keys(model.results[name])))];
  if (!splits.length) return [list];
  const head = make("tr", {}, make("th", { scope: "col", text: "accuracy on test posts, percent" }), ...names.map((name) => make("th", { scope: "col", text: name })));
  const cell = (one) => (one?.mean === undefined ? "–" : `${(100 * one.mean).toFixed(1)} [${(100 * one.low).toFixed(1)}, ${(100 * one.high).toFixed(1)}]`);
  const body = splits.map((split) => make("tr", {}, make("th", { scope: "row", text: SPLITS[split] ?? split }), ...names.map((name) => make("td", { text: cell(model.results[name][split]?.accuracy) }))));
  const table = make("table", { className: "plain" }, make("thead", {}, head), make("tbody", {}, ...body));
  return [list, make("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Test results" }, table)];
};
