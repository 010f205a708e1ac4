// The ranking of the site's search, in the browser and in the tests (node). An entry of the index has an address u, a heading h,
// the title of its page p, a kind k ("page", "heading" or "name"), other words for it a, names and arguments n, and text t.
const siteSearch = (() => {
  const STOP = new Set('a about after an and are as at be before by can do does for from how i in is it me my of on or our that the this to use using what when where which why with you your'.split(' '));
  const WEIGHTS = {h: 8, a: 8, n: 5, p: 3, t: 1};
  const KIND = {page: 1.5, name: 1.05, heading: 1};
  const PER_PAGE = 3;

  // "EarlyStopping" and "early_stopping" are found whole and by their parts
  const stem = word => word.length > 4 ? word.replace(/(?:ies|y)$/, 'i').replace(/(?:ing|ed|es|s|e)$/, '').replace(/([bdgklmnprt])\1$/, '$1') : word.length > 3 ? word.replace(/s$/, '') : word;
  const words = text => (text.match(/[\p{L}\p{N}_]+/gu) || []).flatMap(whole => {
    const parts = whole.split(/_|(?<=[a-z0-9])(?=[A-Z])/).filter(Boolean);
    return (parts.length > 1 ? [whole, ...parts] : [whole]).map(w => w.toLowerCase());
  });
  const plain = text => (text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || []).join(' ');

  // word → how often, for every field of every entry; and in how many entries a word stands
  const prepare = entries => {
    const spread = new Map(), index = entries.map(entry => {
      const fields = {}, all = new Set();
      for (const f in WEIGHTS) {
        fields[f] = new Map();
        for (const w of words(entry[f] || '')) {
          for (const form of new Set([w, '~' + stem(w)])) { fields[f].set(form, (fields[f].get(form) || 0) + 1); all.add(form); }
        }
      }
      for (const form of all) spread.set(form, (spread.get(form) || 0) + 1);
      return {entry, fields, heading: plain(entry.h), other: (entry.a || '').split('|').map(plain)};
    });
    return {index, spread};
  };

  // how well a word of the question fits a field: itself, another ending, or, while it is being typed, its beginning
  const fit = (field, word, open) => {
    const count = field.get(word);
    if (count) return 1 + Math.log(count) / 4;
    if (field.has('~' + stem(word))) return .8;
    if (open && word.length > 2) for (const w of field.keys()) if (w.startsWith(word)) return .5;
    return 0;
  };

  const snippet = (text, asked) => {
    const at = asked.map(w => text.toLowerCase().search(new RegExp('(?<![\\p{L}\\p{N}_])' + w.replace(/[^\p{L}\p{N}_]/gu, ''), 'u'))).filter(k => k >= 0);
    const first = at.length ? Math.min(...at) : 0, start = first < 60 ? 0 : text.indexOf(' ', first - 50) + 1;
    const rest = text.slice(start);
    return (start ? '… ' : '') + (rest.length > 140 ? rest.slice(0, 140).replace(/\s\S*$/, '') + ' …' : rest);
  };

  // entries that hold most of the question, the best first, at most three of one page before the others
  const rank = ({index, spread}, question) => {
    const whole = plain(question), every = whole.split(' ').filter(Boolean);
    const meant = every.filter(w => !STOP.has(w)), asked = meant.length ? meant : every;
    if (!asked.length) return [];
    const rarity = asked.map(w => Math.log(1 + index.length / (1 + (spread.get(w) || spread.get('~' + stem(w)) || 0))));
    const total = rarity.reduce((a, b) => a + b, 0), found = [];
    for (const item of index) {
      let score = 0, covered = 0, met = 0;
      asked.forEach((word, k) => {
        let best = 0, sum = 0;
        for (const f in WEIGHTS) {
          const s = WEIGHTS[f] * fit(item.fields[f], word, k === asked.length - 1);
          best = Math.max(best, s); sum += s;
        }
        if (best) { met++; covered += rarity[k]; score += rarity[k] * (best + sum / 4); }
      });
      if (!met || met * 2 < asked.length) continue;
      score *= (covered / total) ** 2 * KIND[item.entry.k];
      if (item.heading === whole) score += 60 * KIND[item.entry.k];
      else if (item.other.includes(whole)) score += 55 * KIND[item.entry.k];
      else if (every.length > 1 && (' ' + item.heading + ' ').includes(' ' + whole + ' ')) score += 25;
      else if (every.length > 1 && plain(item.entry.t).includes(whole)) score += 8;
      found.push([score, item.entry]);
    }
    found.sort((a, b) => b[0] - a[0]);
    const seen = {}, early = [], late = [];
    for (const [, entry] of found.slice(0, 60)) {
      const page = entry.u.split('#')[0];
      seen[page] = (seen[page] || 0) + 1;
      (seen[page] > PER_PAGE ? late : early).push({entry, text: snippet(entry.t, asked)});
    }
    return [...early, ...late];
  };
  return {prepare, rank};
})();
if (typeof module !== 'undefined') module.exports = siteSearch;
