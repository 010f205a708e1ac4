// Theme switch, menu on narrow screens, the search box, and the mark in the page's table of contents.
(() => {
  const up = document.currentScript.dataset.up, root = document.documentElement, $ = q => document.querySelector(q);
  $('button.theme').onclick = () => {
    root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
    localStorage.setItem('theme', root.dataset.theme);
  };
  $('button.menu').onclick = () => document.body.classList.toggle('menu-open');
  const here = $('nav.side [aria-current]');
  if (here && here.offsetTop > innerHeight - 120) here.scrollIntoView({block: 'center'});

  // copy buttons
  for (const block of document.querySelectorAll('main div.highlight')) {
    const b = Object.assign(document.createElement('button'), {className: 'copy', textContent: 'copy', title: 'Copy this code'});
    b.onclick = () => navigator.clipboard.writeText(block.querySelector('pre').textContent).then(() => {
      b.textContent = 'copied'; setTimeout(() => b.textContent = 'copy', 1200);
    });
    block.append(b);
  }

  // an anchor inside folded source opens it
  const unfold = () => {
    const id = decodeURIComponent(location.hash.slice(1)), el = id && document.getElementById(id);
    const d = el && el.closest('.cell') && el.closest('.cell').querySelector('details');
    if (d) d.open = true;
  };
  addEventListener('hashchange', unfold); unfold();

  // which heading is being read
  const links = [...document.querySelectorAll('aside.toc a')];
  if (links.length) {
    const heads = links.map(a => document.getElementById(decodeURIComponent(a.hash.slice(1))));
    const mark = () => {
      let k = heads.findIndex(h => h && h.getBoundingClientRect().top > 120);
      k = k < 0 ? heads.length - 1 : Math.max(0, k - 1);
      links.forEach((a, i) => a.classList.toggle('now', i === k));
    };
    addEventListener('scroll', mark, {passive: true}); mark();
  }

  // search: the index is a script, so that it also loads from a folder opened without a server
  const box = $('.search input'), hits = $('.search .hits');
  let index = null, chosen = -1;
  const load = () => index ? Promise.resolve() : new Promise(done => {
    const s = document.createElement('script'); s.src = up + 'search.js';
    s.onload = () => { index = window.SITE_INDEX; done(); }; document.head.append(s);
  });
  const esc = s => s.replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'}[c]));
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length || !index) { hits.hidden = true; return; }
    const found = [];
    for (const e of index) {
      let score = 0;
      for (const w of words) {
        const s = (e.h.toLowerCase().includes(w) ? 8 : 0) + (e.p.toLowerCase().includes(w) ? 3 : 0)
                + (e.n.toLowerCase().includes(w) ? 5 : 0) + (e.t.toLowerCase().includes(w) ? 1 : 0);
        if (!s) { score = 0; break; }
        score += s;
      }
      if (score) found.push([score, e]);
    }
    found.sort((a, b) => b[0] - a[0]);
    chosen = -1;
    hits.innerHTML = found.slice(0, 12).map(([, e]) => {
      const found = e.t.toLowerCase().indexOf(words[0]), at = found < 60 ? 0 : e.t.indexOf(' ', found - 50) + 1;
      return `<a href="${up}${esc(e.u)}"><b>${esc(e.h)}</b> <i>${e.p === e.h ? '' : esc(e.p)}</i><span>${at ? '… ' : ''}${esc(e.t.slice(at, at + 140).replace(/\s\S*$/, ''))} …</span></a>`;
    }).join('') || '<p>Nothing found.</p>';
    hits.hidden = false;
  };
  box.onfocus = () => load().then(show);
  box.oninput = () => load().then(show);
  box.onkeydown = ev => {
    const all = [...hits.querySelectorAll('a')];
    if (ev.key === 'Escape') { box.value = ''; hits.hidden = true; box.blur(); }
    else if (ev.key === 'Enter' && all.length) location.href = all[Math.max(0, chosen)].href;
    else if ((ev.key === 'ArrowDown' || ev.key === 'ArrowUp') && all.length) {
      chosen = (chosen + (ev.key === 'ArrowDown' ? 1 : all.length - 1) + (chosen < 0 && ev.key === 'ArrowUp' ? 1 : 0)) % all.length;
      all.forEach((a, i) => a.classList.toggle('now', i === chosen)); ev.preventDefault();
    }
  };
  addEventListener('keydown', ev => {
    if (ev.key === '/' && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { ev.preventDefault(); box.focus(); }
  });
  addEventListener('click', ev => { if (!ev.target.closest('.search')) hits.hidden = true; });
})();
