import { make } from "./draw.js";

const by = (id) => document.getElementById(id);
const api = await (await fetch("openapi.json")).json();
const base = new URL(".", location.href).href;

const resolved = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema ?? {});
const kind = (schema) => {
  if (schema?.$ref) return "object";
  if (schema?.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema?.type === "array") return `list of ${schema.items ? kind(schema.items) : "values"}`;
  return schema?.format === "binary" ? "file" : schema?.title && schema.properties ? schema.title : schema?.type ?? "any";
};
const table = (head, rows) => {
  const cells = (tag, values) => make("tr", {}, ...values.map((text) => make(tag, { text })));
  const body = make("table", {}, make("thead", {}, cells("th", head)), make("tbody", {}, ...rows.map((values) => cells("td", values))));
  return make("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": head.join(", ") }, body);
};
const example = (one) => [one.examples?.[0] ?? one.default].filter((value) => value !== undefined && value !== null && value !== "").map((value) => JSON.stringify(value)).join();
const inside = (schema) => {
  const whole = resolved((schema?.anyOf ?? [schema]).find((one) => one?.$ref || one?.type !== "null"));
  return whole.type === "array" ? inside(whole.items) : whole;
};
const fields = (schema, before = "") => Object.entries(inside(schema).properties ?? {}).flatMap(([name, one]) =>
  [[before + name, kind(one), one.description ?? "", example(one)], ...fields(one, `${before}${name}.`)]);
const described = (title, content) => Object.entries(content ?? {}).flatMap(([type, { schema }]) => {
  const rows = fields(schema);
  const head = make("h3", { text: `${title}: ${type}${schema?.type === "array" ? ", a list of" : ""}` });
  return rows.length ? [head, table(["field", "kind", "what", "example"], rows)] : [head];
});
const operation = (path, method, told) => {
  const summary = make("summary", {}, make("span", { className: "verb", text: method.toUpperCase() }), make("code", { text: path }));
  const parts = [make("p", { text: told.description ?? told.summary })];
  if (told.parameters?.length) parts.push(make("h3", { text: "Parameters" }), table(["name", "in", "kind"], told.parameters.map((one) => [one.name, one.in, kind(one.schema)])));
  parts.push(...described("Body", told.requestBody?.content), ...described("Answer", told.responses?.["200"]?.content));
  parts.push(make("h3", { text: "Status" }), table(["code", "when"], Object.entries(told.responses).map(([code, one]) => [code, one.description])));
  return make("details", { className: "operation" }, summary, ...parts);
};

by("about").textContent = `${api.info.title} ${api.info.version}: ${api.info.description} Every error is {"error", "where", "fix"}.`;
by("commands").textContent = [
  `curl ${base}v1/predict -F text='what a lovely monday #monday' -F image=@photo.jpg`,
  `curl '${base}v1/predict?explain=true' -H 'Content-Type: application/json' -d '{"text": "what a lovely monday #monday"}'`,
  `curl ${base}v1/predict/batch -H 'Content-Type: application/json' -d '[{"text": "one"}, {"text": "another"}]'`,
].join("\n");
by("operations").replaceChildren(...Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, told]) => operation(path, method, told))));
