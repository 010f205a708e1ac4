// What both renderings need so that a page can be used by keyboard and read aloud; each calls it when its layout is done.
const reach = (() => {
  // whatever scrolls can be reached and scrolled by keyboard
  const scrolling = () => {
    for (const el of document.querySelectorAll('main :is(pre, table, figure, div, .math, mjx-container[display=true])')) {
      const over = {x: el.scrollWidth > el.clientWidth + 1, y: el.scrollHeight > el.clientHeight + 1};
      const scrolls = way => over[way] && /auto|scroll/.test(getComputedStyle(el)['overflow-' + way]);
      if (scrolls('x') || scrolls('y')) el.tabIndex = 0;
      else if (el.tabIndex === 0) el.removeAttribute('tabindex');
    }
  };
  addEventListener('toggle', scrolling, true);  // what was folded had no width before

  // a formula with links must not be hidden from those who listen or use the keyboard: its drawing is read, not its copy in MathML
  const formulas = () => {
    for (const svg of document.querySelectorAll('mjx-container > svg[aria-hidden]')) if (svg.querySelector('a')) {
      svg.removeAttribute('aria-hidden'); svg.setAttribute('role', 'group');
      const words = svg.parentElement.querySelector('mjx-assistive-mml');
      if (words) { svg.setAttribute('aria-label', words.textContent.trim()); words.setAttribute('aria-hidden', 'true'); words.inert = true; }
      for (const a of svg.querySelectorAll('a')) a.setAttribute('aria-label', 'equation ' + (a.textContent.trim() || decodeURIComponent(a.getAttribute('href') || '').replace(/^#mjx-eqn:(eq:)?/, '')));
    }
  };
  return {scrolling, formulas};
})();
