// Values on hovering, and attempts that stay hidden when the page reloads. Without it the page is whole: lines have
// titles, and the legend hides attempts by the stylesheet alone.
(() => {
  const make = (name, kind, parent) => { const found = document.createElementNS(parent.namespaceURI, name);
    found.setAttribute('class', kind); return parent.appendChild(found); };
  const tip = make('div', 'tip', document.body), near = 40;
  const read = line => line.known ??= {
    name: line.querySelector('title')?.textContent.split(':')[0] ?? '',
    at: line.getAttribute('points').split(' ').map(each => each.split(',').map(Number)),
    x: line.dataset.x.split(' '), y: line.dataset.y.split(' ') };
  const hide = chart => { tip.textContent = ''; chart.querySelector('.hover')?.remove(); };
  const show = (chart, event) => {
    const mouse = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    let best = {far: near};
    for (const line of chart.querySelectorAll('[data-y]')) {
      if (!line.getClientRects().length) continue;
      read(line).at.forEach(([x, y], index) => { const far = Math.hypot(2 * (x - mouse.x), y - mouse.y);
        if (far < best.far) best = {far, line, index, x, y}; });
      line.querySelector('title')?.remove();
    }
    hide(chart);
    if (!best.line) return;
    const {name, x, y} = best.line.known, ring = make('circle', 'hover', chart);
    const at = `${Number(x[best.index]).toLocaleString('en')} ${chart.dataset.unit}`;
    for (const [key, value] of [['cx', best.x], ['cy', best.y], ['r', 4]]) ring.setAttribute(key, value);
    tip.textContent = `${y[best.index]} at ${at}\n${name}`;
    tip.style.left = '0';
    const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, left)}px`; tip.style.top = `${event.clientY + 16}px`;
  };
  for (const chart of document.querySelectorAll('svg.chart')) {
    for (const kind of ['pointermove', 'pointerdown']) chart.addEventListener(kind, event => show(chart, event));
    chart.addEventListener('pointerleave', () => hide(chart));
  }
  const boxes = [...document.querySelectorAll('.legend input')], key = `hidden ${location.pathname}`;
  try {
    const hidden = JSON.parse(sessionStorage.getItem(key) ?? '[]');
    for (const box of boxes) if (hidden.includes(box.name)) box.checked = false;
    document.addEventListener('change', () =>
      sessionStorage.setItem(key, JSON.stringify(boxes.filter(box => !box.checked).map(box => box.name))));
  } catch { /* no storage: all attempts are shown again */ }
})();
