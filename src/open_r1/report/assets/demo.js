// The demo's outputs: each held-out problem with what every model wrote.

const {stages, problems} = embedded("data");
const colors = Object.fromEntries(stages.map(stage => [stage.name, stage.color]));
const PER_PAGE = 8;
const at = name => stages.findIndex(stage => stage.name === name);
const right = (problem, name) => at(name) >= 0 && problem.outputs[at(name)].right;
const filters = [
  ["all", "All", () => true],
  ["learned", "Base wrong, R1-Zero right", p => !right(p, "base") && right(p, "zero")],
  ["any", "Some model wrong", p => p.outputs.some(o => !o.right)],
  ["every", "Wrong everywhere", p => p.outputs.every(o => !o.right)],
];
let filter = "all", query = "", page = 0;

function drawOutput(output, stage) {
  const box = element("section", "output");
  box.style.setProperty("--stage", colors[stage.name]);
  box.tabIndex = 0;
  box.setAttribute("aria-label", `${stage.title}: ${output.right ? "right" : "wrong"}`);
  const head = element("p");
  head.append(element("b", "", stage.title),
    element("span", "verdict " + (output.right ? "right" : "wrong"), output.right ? "✓ right" : "✗ wrong"),
    element("span", "size", `${output.tokens.toLocaleString("en")} tokens${output.cut ? ", cut off" : ""}`));
  const text = element("div", "text");
  for (const [kind, words] of parts(output.text)) {
    const part = element("div", kind);
    if (kind === "think") part.append(element("span", "part", "reasoning"));
    part.append(words ? written(words, "", "") : element("span", "none", kind === "think" ? "none" : "empty"));
    text.append(part);
  }
  if (!text.childNodes.length) text.append(element("div", "none", "nothing was written"));
  box.append(head, text);
  return box;
}

function drawProblem(problem) {
  const card = element("article", "problem card");
  const title = element("h3", "", problem.problem + " ");
  title.append(element("span", "", `right answer: ${problem.gold}`));
  const outputs = element("div", "outputs");
  outputs.style.setProperty("--columns", stages.length);
  problem.outputs.forEach((output, index) => outputs.append(drawOutput(output, stages[index])));
  card.append(title, outputs);
  return card;
}

function draw() {
  const passes = filters.find(([name]) => name === filter)[2];
  const words = query.trim().toLowerCase();
  const hits = problems.filter(p => passes(p) && (!words ||
    [p.problem, p.gold, ...p.outputs.map(o => o.text)].some(text => text.toLowerCase().includes(words))));
  const pages = Math.max(1, Math.ceil(hits.length / PER_PAGE));
  page = Math.min(page, pages - 1);
  const list = document.getElementById("list");
  list.replaceChildren(...hits.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(drawProblem));
  if (!hits.length) list.append(element("p", "empty", "No problem fits."));
  document.getElementById("count").textContent = `${hits.length.toLocaleString("en")} of ${problems.length.toLocaleString("en")} problems`;
  document.getElementById("page").textContent = `page ${page + 1} of ${pages}`;
  document.getElementById("pager").hidden = pages < 2;
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page === pages - 1;
}

function turn(by) {
  page += by;
  draw();
  document.getElementById("problems").scrollIntoView();
}

for (const [name, label, passes] of filters) {
  const pill = element("label"), input = element("input");
  input.type = "radio"; input.name = "filter"; input.value = name; input.checked = name === filter;
  input.addEventListener("change", () => { filter = name; page = 0; draw(); });
  pill.append(input, element("span", "", `${label} (${problems.filter(passes).length.toLocaleString("en")})`));
  document.getElementById("filters").append(pill);
}
document.getElementById("search").addEventListener("input", event => { query = event.target.value; page = 0; draw(); });
document.getElementById("controls").addEventListener("submit", event => event.preventDefault());
document.getElementById("previous").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
document.getElementById("controls").hidden = false;
draw();
