// Theme switch, menu on narrow screens, the search box, and the mark in the page's table of contents.
(() => {
  const up = document.currentScript.dataset.up, root = document.documentElement, $ = q => document.querySelector(q);
  $('button.theme').onclick = () => {
    root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
    localStorage.setItem('theme', root.dataset.theme);
  };

  // the menu on narrow screens covers the page: what it covers cannot be reached, Escape closes it, focus comes back to its button
  const opener = $('button.menu'), side = $('nav.side'), covered = [$('.skip'), $('main'), $('aside.toc'), $('.search'), $('.brand'), $('button.theme')];
  const narrow = matchMedia('(max-width: 52rem)');
  const menu = open => {
    document.body.classList.toggle('menu-open', open);
    opener.setAttribute('aria-expanded', open);
    opener.setAttribute('aria-label', open ? 'Hide the table of pages' : 'Show the table of pages');
    for (const el of covered) if (el) el.inert = open;
    if (open) (side.querySelector('[aria-current]') || side.querySelector('a, summary')).focus(); else opener.focus();
  };
  const isOpen = () => document.body.classList.contains('menu-open');
  opener.onclick = () => menu(!isOpen());
  addEventListener('keydown', ev => { if (ev.key === 'Escape' && isOpen()) menu(false); });
  narrow.addEventListener('change', () => { if (!narrow.matches && isOpen()) menu(false); });
  side.addEventListener('click', ev => { if (isOpen() && ev.target.closest('a[aria-current]')) menu(false); });
  const here = $('nav.side [aria-current]');
  // only the menu scrolls: scrollIntoView would scroll the page, too, and hide its title
  if (here && here.offsetTop > side.clientHeight - 60) side.scrollTop = here.offsetTop - side.clientHeight / 2;

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

  // the contents of the page again under its first lines, for screens without room beside the text
  const contents = $('aside.toc ul');
  if (contents) {
    const box = document.createElement('details'), after = $('main .lead') || $('main h1');
    box.className = 'toc-small';
    box.append(Object.assign(document.createElement('summary'), {textContent: 'On this page'}), contents.cloneNode(true));
    box.addEventListener('click', ev => { if (ev.target.closest('a')) box.open = false; });
    box.addEventListener('keydown', ev => { if (ev.key === 'Escape' && box.open) { box.open = false; box.querySelector('summary').focus(); } });
    if (after) after.after(box);
  }

  // tables whose rows become cards on a phone: those of many columns, or with text
  for (const table of document.querySelectorAll('main table')) {
    const heads = table.tHead && table.tHead.rows.length === 1 ? [...table.tHead.rows[0].cells].map(c => c.textContent.trim()) : null;
    const cells = [...table.querySelectorAll('tbody td, tbody th')];
    if (!heads || cells.some(c => c.colSpan > 1 || c.rowSpan > 1)) continue;
    if (heads.length < 4 && !cells.some(c => c.textContent.length > 32)) continue;
    table.classList.add('cards');
    table.setAttribute('role', 'table');  // cards are no longer laid out as a table: say that they are one
    for (const part of table.querySelectorAll('thead, tbody')) part.setAttribute('role', 'rowgroup');
    for (const row of table.rows) {
      row.setAttribute('role', 'row');
      [...row.cells].forEach((cell, k) => {
        cell.setAttribute('role', cell.closest('thead') ? 'columnheader' : 'cell');
        if (cell.closest('thead')) return;
        if (!cell.textContent.trim() && !cell.children.length) cell.textContent = '';
        cell.dataset.label = heads[k] || '';
        cell.classList.toggle('first', k === 0);
        cell.classList.toggle('long', cell.textContent.length > 32);
      });
    }
  }

  // output in columns keeps them and scrolls; other output is text, and its lines are broken
  for (const out of document.querySelectorAll('main pre.out')) out.classList.toggle('columns', /\S {3,}\S|[─━═]{4}/.test(out.textContent));

  // wide pictures scroll in themselves on a phone rather than shrink until nobody can read them
  for (const img of document.querySelectorAll('main figure img[width]')) if (img.width > 560) {
    img.closest('figure').classList.add('wide');
    img.style.setProperty('--natural', img.getAttribute('width') + 'px');
  }

  // a formula that is wider than the text may use the room beside it
  const spread = () => {
    for (const p of document.querySelectorAll('main > p')) p.classList.toggle('wide', [...p.querySelectorAll('mjx-container[display=true]')].some(f => f.scrollWidth > f.clientWidth + 1));
  };

  // a table that is wider than the text is set closer before it has to scroll
  const tighten = () => {
    for (const table of document.querySelectorAll('main table')) {
      table.classList.remove('tight');
      table.classList.toggle('tight', table.scrollWidth > table.clientWidth + 1);
    }
  };

  // a table that no sheet of paper is wide enough for is printed as cards; where tables are cards already, there is nothing to measure
  const forPaper = () => {
    const tables = [...document.querySelectorAll('table.cards')], wide = matchMedia('(min-width: 50.01rem)').matches;
    for (const table of tables) { table.classList.remove('tight'); table.style.width = wide ? 0 : ''; }  // it is then as narrow as its words allow
    const narrowest = tables.map(table => wide ? table.scrollWidth : Infinity);
    tables.forEach((table, k) => {  // on paper letters are .805 as large, and a column has 13 px of margins instead of 26
      table.style.width = ''; table.classList.toggle('paper', narrowest[k] * .805 - table.rows[0].cells.length * 7.8 > 700);
    });
  };

  const fit = () => { forPaper(); tighten(); reach.scrolling(); };
  addEventListener('resize', fit); addEventListener('load', () => {
    fit();
    if (window.MathJax && MathJax.startup && MathJax.startup.promise) MathJax.startup.promise.then(() => { reach.formulas(); spread(); fit(); });
  });

  // search: index and ranking are scripts, so that they also load from a folder opened without a server
  const box = $('.search input'), hits = $('.search .hits');
  let index = null, chosen = -1;
  const script = name => new Promise(done => {
    document.head.append(Object.assign(document.createElement('script'), {src: up + name, onload: done}));
  });
  const load = () => index ? Promise.resolve() : Promise.all([script('search.js'), script('theme/ranking.js')]).then(() => {
    index = index || siteSearch.prepare(window.SITE_INDEX);
  });
  const esc = s => s.replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'}[c]));
  const show = () => {
    if (!box.value.trim() || !index) { hits.hidden = true; return; }
    chosen = -1;
    hits.innerHTML = siteSearch.rank(index, box.value).slice(0, 12).map(({entry, text}) =>
      `<a href="${up}${esc(entry.u)}"><b>${esc(entry.h)}</b> <i>${entry.p === entry.h ? '' : esc(entry.p)}</i><span>${esc(text)}</span></a>`
    ).join('') || '<p>Nothing found. Fewer or other words may help; every name of the library is in <a href="' + up + 'names.html">the index</a>.</p>';
    hits.hidden = false;
  };
  box.onfocus = () => load().then(show);
  box.oninput = () => load().then(show);
  box.onkeydown = ev => {
    const all = [...hits.querySelectorAll('a')];
    if (ev.key === 'Enter' && all.length) location.href = all[Math.max(0, chosen)].href;
    else if ((ev.key === 'ArrowDown' || ev.key === 'ArrowUp') && all.length) {
      chosen = (chosen + (ev.key === 'ArrowDown' ? 1 : all.length - 1) + (chosen < 0 && ev.key === 'ArrowUp' ? 1 : 0)) % all.length;
      all.forEach((a, i) => a.classList.toggle('now', i === chosen)); ev.preventDefault();
    }
  };
  // Escape closes the list from wherever one is in it; an empty box is left. Who tabs on does not leave the list over the page
  const search = $('.search');
  search.addEventListener('keydown', ev => {
    if (ev.key !== 'Escape') return;
    if (!box.value) box.blur(); else { box.value = ''; hits.hidden = true; box.focus(); }
    ev.preventDefault();
  });
  search.addEventListener('focusout', ev => { if (ev.relatedTarget && !search.contains(ev.relatedTarget)) hits.hidden = true; });
  addEventListener('keydown', ev => {
    if (ev.key === '/' && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { ev.preventDefault(); box.focus(); }
  });
  addEventListener('click', ev => { if (!ev.target.closest('.search')) hits.hidden = true; });
})();
