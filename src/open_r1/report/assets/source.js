// Where a page's JSON comes from: a live page asks its server, a saved one unpacks what it carries.

const {runs: RUNS, live: LIVE, carried: CARRIED} = embedded("data");

async function get(path) {
  if (!LIVE) return unpack(path);
  const reply = await ask(path);
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

const textsOf = (run, step, group) => get(`texts/${run}/${step}/${group.start}/${group.end}`);

// Rows of a step whose completion contains `words`.
async function searchStep(run, step, words) {
  if (LIVE) return new Set(await get(`search/${run}/${step}?q=${encodeURIComponent(words)}`));
  const found = new Set(), {groups} = await get(`rollouts/${run}/${step}`);
  for (const group of groups) (await textsOf(run, step, group)).forEach((text, i) => { if (text.toLowerCase().includes(words.toLowerCase())) found.add(group.start + i); });
  return found;
}
