// What every page shares: elements, figures, and text that stays text, whatever a model wrote.

const byId = id => document.getElementById(id);
const number = value => value.toLocaleString("en");
const percent = share => `${(share * 100).toFixed(1)}%`;
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter(child => child !== undefined && child !== null));
  return made;
}

// 0.1234, 12.3, 1,234, 1.2e-7: as few digits as tell values apart.
function figure(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e7)) return value.toExponential(1).replace("e+", "e");
  return value.toLocaleString("en", size >= 1000 ? {maximumFractionDigits: 0} : {maximumSignificantDigits: 4});
}

function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (minutes < 60) return `${minutes} min`;
  return days ? `${days} d ${hours % 24} h` : `${hours} h ${minutes % 60} min`;
}

const LONG = 20000;
// Characters that would hide or reorder what stands around them; they are shown by their code.
const ODD = "[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069\\ufeff]";

// `text` as nodes: what `query` finds and what `pattern` matches are marked, odd characters are named.
function written(text, query = "", pattern = "") {
  const words = query.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const choices = [`(?<odd>(?<one>${ODD})\\k<one>*)`, words && `(?<hit>${words})`, pattern && `(?<mark>${pattern})`].filter(Boolean);
  const nodes = document.createDocumentFragment();
  let from = 0;
  for (const match of text.matchAll(new RegExp(choices.join("|"), "gi"))) {
    if (!match[0]) continue;
    nodes.append(text.slice(from, match.index));
    if (match.groups.odd) nodes.append(element("span", "odd", code(match[0]) + (match[0].length > 1 ? ` × ${number(match[0].length)}` : "")));
    else nodes.append(element("mark", match.groups.hit ? "hit" : "", match[0]));
    from = match.index + match[0].length;
  }
  nodes.append(text.slice(from));
  return nodes;
}

// As `written`, but of a long text only the beginning (up to what is searched for, at least), and more on demand.
function begun(text, query = "", pattern = "", from = 0) {
  const found = query.trim() ? text.toLowerCase().indexOf(query.trim().toLowerCase(), from) : -1;
  const to = Math.max(from, found) + LONG, nodes = document.createDocumentFragment();
  nodes.append(written(text.slice(from, to), query, pattern));
  if (to >= text.length) return nodes;
  const more = element("button", "plain", `Show more (${plural(text.length - to, "character")} left)`);
  more.type = "button";
  more.addEventListener("click", () => more.replaceWith(begun(text, query, pattern, to)));
  nodes.append(element("br"), more);
  return nodes;
}
function code(character) { return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`; }

// Parts of a completion: ["plain" | "think" | "answer", text, finished]. Reasoning ends at the last </think>, or never if
// the completion was cut; the prompt may have opened it.
function parts(text) {
  const found = [];
  const add = (kind, words, finished = true) => { if (words.trim() || kind !== "plain") found.push([kind, words.trim(), finished]); };
  const close = text.lastIndexOf("</think>"), open = text.indexOf("<think>");
  let rest = text;
  if (close >= 0 || open >= 0) {
    const begun = open >= 0 && (close < 0 || open < close);
    if (begun) add("plain", text.slice(0, open));
    add("think", text.slice(begun ? open + 7 : 0, close < 0 ? text.length : close), close >= 0);
    rest = close < 0 ? "" : text.slice(close + 8);
  }
  const answer = rest.match(/<answer>([\s\S]*?)(<\/answer>|$)/);
  if (!answer) { add("plain", rest); return found; }
  add("plain", rest.slice(0, answer.index));
  add("answer", answer[1]);
  add("plain", rest.slice(answer.index + answer[0].length));
  return found;
}

// A completion with its reasoning folded, unless what is searched for stands in it.
function drawText(text, {query = "", pattern = "", unfolded = false} = {}) {
  const box = element("div", "text");
  box.dir = "auto";
  const words = query.trim().toLowerCase();
  for (const [kind, content, finished] of parts(text)) {
    if (kind === "think" && !content && finished) box.append(element("div", "think", element("span", "none", "no reasoning")));
    else if (kind === "think") {
      const title = `Reasoning, ${plural(content.length, "character")}${finished ? "" : ", not finished"}`;
      const think = element("details", "think", element("summary", "", title), begun(content, query, pattern));
      think.open = unfolded || Boolean(words && content.toLowerCase().includes(words));
      box.append(think);
    } else box.append(element("div", kind, content ? begun(content, query, pattern) : element("span", "none", "empty")));
  }
  if (!box.childNodes.length) box.append(element("div", "none", "The completion is empty."));
  else if (box.lastChild.className === "think") box.append(element("div", "none", "There is no answer."));
  return box;
}

// What stands above a completion that was judged: who wrote it, whether it is right, and how long it is.
const VERDICTS = {right: "✓ right", wrong: "✗ wrong", ungradable: "? ungradable"};
function sampleHead(name, {verdict, extracted, tokens, cut}, tag = "div") {
  const head = element(tag, "head", element("b", "", name), element("span", `verdict ${verdict}`, VERDICTS[verdict]));
  if (extracted === null) head.append(element("span", "none", "no answer found"));
  else if (extracted !== undefined) head.append(element("span", "extracted", written(extracted)));
  if (tokens !== null) head.append(element("small", "", plural(tokens, "token")));
  if (cut) head.append(element("span", "tag doubt", "cut off"));
  return head;
}

// Fills `details` when it is first opened; where that fails, it says so and tries again when it is opened again.
function whenOpened(details, make) {
  details.addEventListener("toggle", async () => {
    if (!details.open || details.childNodes.length > 1) return;
    const waiting = element("p", "inside none", "reading …");
    details.append(waiting);
    try { waiting.replaceWith(...(await make()).filter(Boolean)); } catch (error) {
      waiting.textContent = error.message;
      details.addEventListener("toggle", () => waiting.remove(), {once: true});
    }
  });
}

// Radio buttons that look like pills; `items` are [value, label].
function pills(fieldset, name, items, current, onPick) {
  const legend = fieldset.querySelector("legend");
  fieldset.replaceChildren(...(legend ? [legend] : []), ...items.map(([value, label]) => {
    const input = element("input");
    Object.assign(input, {type: "radio", name, value, checked: value === current});
    input.addEventListener("change", () => onPick(value));
    return element("label", "", input, element("span", "", label));
  }));
}

// Pills that say how many of `items` pass each of `filters`, [name, label, passes]; which items `state.filter` lets pass.
function filterPills(filters, items, state, draw) {
  pills(byId("filters"), "filter", filters.map(([name, label, passes]) => [name, `${label} ${number(items.filter(passes).length)}`]), state.filter, name => { state.filter = name; draw(); });
  return filters.find(([name]) => name === state.filter)[2];
}

// Draws a page of `items` into `list`, with buttons for the others.
function paged(list, perPage, noun) {
  const previous = element("button", "", "← Previous"), next = element("button", "", "Next →"), place = element("span", "count");
  previous.type = next.type = "button";
  const pager = element("nav", "pager", previous, place, next);
  pager.setAttribute("aria-label", `Pages of ${noun}`);
  list.after(pager);
  let items = [], draw = () => "", page = 0;
  function show() {
    const pages = Math.max(1, Math.ceil(items.length / perPage));
    page = Math.min(page, pages - 1);
    list.replaceChildren(...items.slice(page * perPage, (page + 1) * perPage).map(draw));
    if (!items.length) list.append(element("p", "empty", `There are no such ${noun}.`));
    place.textContent = `page ${number(page + 1)} of ${number(pages)}`;
    pager.hidden = pages < 2;
    previous.disabled = page === 0;
    next.disabled = page === pages - 1;
  }
  const turn = by => { page += by; show(); list.scrollIntoView({block: "start"}); };
  previous.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  return {
    show(newItems, newDraw) { items = newItems; draw = newDraw; page = 0; show(); },
    say(words) { items = []; show(); list.firstChild.textContent = words; },
  };
}

// Calls `act` when typing pauses.
function onTyping(input, act) {
  let waiting;
  input.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(act, 200); });
}

// Asks a live page's server.
const ask = (path, options) => fetch(path, {cache: "no-store", ...options}).catch(error => {
  throw error.name === "AbortError" ? error : new Error("The server does not answer. Start the command again, and open the address that it prints.");
});

const embedded = id => JSON.parse(byId(id).textContent);

// What the page carries compressed: base64 of zlib of JSON, by name.
async function unpack(name) {
  const piece = byId(`piece-${name}`);
  if (!piece) throw new Error(`The page does not contain ${name}.`);
  const bytes = Uint8Array.from(atob(piece.textContent.trim()), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
