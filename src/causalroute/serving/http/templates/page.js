import { about, make, verdicts, why } from "./draw.js";

const by = (id) => document.getElementById(id);
const state = { model: null, file: null, address: null, alt: "", request: 0 };

const refuse = (told) => {
  const parts = [make("strong", { text: told.error })];
  if (told.where) parts.push(make("span", { text: `Where: ${told.where}. ` }));
  if (told.fix) parts.push(make("span", { text: `What to do: ${told.fix}.` }));
  by("alert").replaceChildren(...parts);
  by("alert").hidden = false;
};

const fetched = async (address, options) => {
  const response = await fetch(address, options);
  const told = await response.json();
  if (!response.ok) throw Object.assign(new Error(told.error), { told });
  return told;
};

const picture = (file, alt = "") => {
  state.file = file;
  state.alt = alt;
  state.address = file ? URL.createObjectURL(file) : null; // kept while the page lives: an answer may still show it
  const preview = by("preview");
  preview.hidden = by("remove").hidden = !file;
  preview.alt = file ? alt || "the chosen picture" : "";
  if (file) preview.src = state.address;
  else preview.removeAttribute("src");
  by("drop").classList.toggle("filled", Boolean(file));
  by("image-hint").replaceChildren(make("strong", { text: file ? "Choose another" : "Choose a picture" }), file ? "" : ", drop or paste one");
};

const show = (told, post) => {
  by("said").textContent = told.sentence ?? "";
  by("pair").replaceChildren(...verdicts(told, state.model));
  by("warnings").replaceChildren(...told.warnings.map((text) => make("li", { text })));
  by("why").replaceChildren(...why(told, post, state.model.classes));
  by("result").hidden = false;
  if (by("answer").getBoundingClientRect().top > innerHeight / 2) by("answer").scrollIntoView(); // on a phone it lies below the form
};

const predict = async () => {
  const number = ++state.request;
  const post = { text: by("text").value, address: state.address, alt: state.alt };
  const form = new FormData();
  form.append("text", post.text);
  if (state.model?.visual === "attributes" && by("attributes").value.trim()) form.append("attributes", by("attributes").value);
  if (state.model?.visual === "image" && state.file) form.append("image", state.file, "picture");
  by("hint").hidden = by("alert").hidden = true;
  by("go").setAttribute("aria-disabled", "true");
  by("go").textContent = "Reading …";
  try {
    if (!state.model) throw Object.assign(new Error(), { told: { error: "the model is not known yet", where: "", fix: "wait a second, or load this page again" } });
    if (state.file && state.file.size > state.model.limits.body)
      throw Object.assign(new Error(), { told: { error: "the picture's file is too large", where: "picture", fix: `choose one below ${(state.model.limits.body / 1e6).toFixed(1)} MB` } });
    const told = await fetched("v1/predict?explain=true", { method: "POST", body: form });
    if (number === state.request) show(told, post);
  } catch (error) {
    if (number !== state.request) return;
    by("result").hidden = true;
    by("said").textContent = "";
    refuse(error.told ?? { error: "the service does not answer", where: "", fix: "is it still running?" });
  } finally {
    if (number === state.request) {
      by("go").removeAttribute("aria-disabled");
      by("go").textContent = "Read the post";
    }
  }
};

const take = async (example) => {
  by("text").value = example.text;
  by("attributes").value = example.attributes ?? "";
  picture(example.image ? await (await fetch(example.image)).blob() : null, example.alt);
  await predict();
};

const introduce = async () => {
  const model = await fetched("v1/model");
  state.model = model;
  const ood = (name) => model.results[name]?.ood?.accuracy?.mean;
  const figures = [model.method, model.reference].filter((name) => name && ood(name) !== undefined).map((name) => `${name} ${(100 * ood(name)).toFixed(1)} %`);
  by("card").textContent = `${model.method}${model.reference ? ` beside ${model.reference}` : ""}, trained on ${model.dataset || "posts"}: ${model.classes.join(", ")}.`
    + (figures.length ? ` Right where shortcuts mislead (test posts): ${figures.join(", ")}.` : "") + (model.ready ? "" : " The model is loading …");
  by("version").textContent = `causalroute ${model.version}`;
  by("about-body").replaceChildren(...about(model));
  by("image-field").hidden = model.visual !== "image";
  by("attributes-field").hidden = model.visual !== "attributes";
  if (!model.ready) setTimeout(introduce, 1000);
};

const listed = async () => {
  const examples = await fetched("v1/examples");
  by("examples").replaceChildren(...examples.map((example) => {
    const button = make("button", { type: "button", text: example.title });
    button.addEventListener("click", () => take(example));
    return button;
  }));
};

by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  predict();
});
by("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) predict();
});
by("image").addEventListener("change", (event) => {
  if (event.target.files.length) picture(event.target.files[0]);
  event.target.value = ""; // else the same file could not be chosen again
});
by("preview").addEventListener("error", () => {
  by("preview").hidden = true;
  if (state.file) by("image-hint").replaceChildren(make("strong", { text: "Choose another" }), " (this browser cannot show the one that was chosen)");
});
by("remove").addEventListener("click", () => {
  picture(null);
  by("image").focus();
});
const files = (transfer) => [...(transfer?.files ?? [])];
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault(); // a file that misses the field must not replace the page
    by("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && files(event.dataTransfer).length) picture(files(event.dataTransfer)[0]);
  });
}
document.addEventListener("paste", (event) => {
  if (files(event.clipboardData).length) {
    event.preventDefault();
    picture(files(event.clipboardData)[0]);
  }
});
for (const start of [introduce, listed]) start().catch((error) => refuse(error.told ?? { error: "the service does not answer", where: "", fix: "is it still running?" }));
