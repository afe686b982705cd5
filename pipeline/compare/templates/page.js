// Values on hovering, zooming, and a state that outlives a reload of the page. Without it the page is whole: lines have
// titles, and the legends hide attempts and metrics by the stylesheet alone.
(() => {
  const make = (name, kind, parent) => { const found = document.createElementNS(parent.namespaceURI, name);
    found.setAttribute('class', kind); return parent.appendChild(found); };
  const set = (node, values) => { for (const key in values) node.setAttribute(key, values[key]); return node; };
  const round = value => Math.round(value * 100) / 100;
  const listed = text => text.split(' ').map(Number);
  const pairs = text => text.split(' ').map(each => each.split(',').map(Number));
  const charts = [...document.querySelectorAll('svg.chart')];
  const tip = make('div', 'tip', document.body), near = 40;
  let whose = '';
  for (const each of document.querySelectorAll('header[id], article[id], svg.chart'))
    if (each.id) whose = each.id; else each.name = `${whose} ${each.getAttribute('aria-label')}`;

  // What the page keeps while it is open, whether it reloads or not
  const kept = name => `${name} ${location.pathname}`;
  const remembered = name => { try { return JSON.parse(sessionStorage.getItem(kept(name))); } catch { return null; } };
  const remember = (name, value) => { try { sessionStorage.setItem(kept(name), JSON.stringify(value)); } catch { } };

  // Axes. A place on the vertical one is a value, or its logarithm, with room for 0 where `linear` is not 0.
  const box = chart => { const [x, y, width, height] =
    ['x', 'y', 'width', 'height'].map(each => Number(chart.querySelector('.plot').getAttribute(each)));
    return {x, y, width, height, floor: y + height}; };
  const span = chart => listed(chart.dataset.span);
  const scales = ({dataset: {linear}}) => linear === undefined ? [v => v, v => v] : Number(linear) === 0
    ? [v => Math.log10(Math.max(v, 1e-300)), v => 10 ** v]
    : [v => Math.sign(v) * Math.log10(1 + Math.abs(v) / linear), v => Math.sign(v) * linear * (10 ** Math.abs(v) - 1)];
  const ticks = (low, high, count) => {
    const power = 10 ** Math.floor(Math.log10((high - low) / count)), far = step => Math.abs(Math.log(step * count / (high - low)));
    const step = [1, 2, 5, 10].map(each => each * power).reduce((a, b) => far(b) < far(a) ? b : a), found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && found.length < 99; k++)
      found.push(Number((k * step).toPrecision(12)));
    return found;
  };
  const powers = (low, high) => { const found = low <= 0 && high >= 0 ? [0] : [];
    for (let k = -300; k <= 300; k++) for (const each of [10 ** k, -(10 ** k)]) if (low <= each && each <= high) found.push(each);
    return found.length > 1 ? found.sort((a, b) => a - b) : ticks(low, high, 4); };
  const number = (value, digits) => { const [size, letter] = Math.abs(value) >= 1e9 ? [1, ''] : Math.abs(value) >= 1e6
    ? [1e6, 'M'] : Math.abs(value) >= 1e3 ? [1e3, 'k'] : [1, '']; return Number((value / size).toPrecision(digits)) + letter; };
  const numbers = values => { for (let digits = 3; ; digits++) { const found = values.map(each => number(each, digits));
    if (digits > 9 || new Set(found).size === found.length) return found; } };
  const spaced = (places, least) => { let last = -1e9;
    return places.filter(([, at]) => Math.abs(at - last) >= least && ((last = at), true)); };

  const drawTicks = (chart, {x, y, width, floor}, [from, to], [low, high]) => {
    const parent = chart.querySelector('.ticks'), [forth, back] = scales(chart), plain = chart.dataset.linear === undefined;
    parent.textContent = '';
    const across = (kind, at) => set(make('line', kind, parent), {x1: x, x2: x + width, y1: at, y2: at});
    const word = (text, values) => { set(make('text', 'tick', parent), values).textContent = text; };
    const levels = (plain ? ticks : powers)(back(low), back(high), 4)
      .map(value => [value, floor - (floor - y) * (forth(value) - low) / (high - low)]);
    const rows = spaced(levels, 16), names = numbers(rows.map(each => each[0]));
    rows.forEach(([, at], k) => { across('grid', at); word(names[k], {x: x - 6, y: round(at + 4), 'text-anchor': 'end'}); });
    across('axis', floor);
    const marks = ticks(from, to, Math.max(2, Math.floor(width / 110))), said = numbers(marks);
    let free = x + width + 12;
    for (let k = marks.length - 1; k >= 0; k--) {
      const at = round(x + width * (marks[k] - from) / (to - from)), last = k === marks.length - 1;
      set(make('line', 'axis', parent), {x1: at, x2: at, y1: floor, y2: floor + 3});
      const text = said[k] + (last ? ` ${chart.dataset.unit}` : ''), end = last && at > x + width - 48, wide = 8.4 * text.length;
      const place = end ? x + width : at;
      if (place + (end ? 0 : wide / 2) > free) continue;
      free = place - (end ? wide : wide / 2);
      word(text, {x: place, y: floor + 16, 'text-anchor': end ? 'end' : 'middle'});
    }
  };

  // Zooming: `chart.range` are the ends of the shown part of the horizontal axis. It is drawn from the whole chart.
  const draw = (chart, range) => {
    hide(chart);
    chart.innerHTML = chart.whole ??= chart.innerHTML;
    chart.classList.toggle('zoomed', Boolean(range));
    if (!range) return;
    const plot = box(chart), {x, y, width, height, floor} = plot, [x0, x1, y0, y1] = span(chart), [forth] = scales(chart);
    const wide = (x1 - x0) / (range[1] - range[0]), start = (range[0] - x0) / (x1 - x0) * width;
    const X = at => round(x + (at - x - start) * wide);
    let top = Infinity, bottom = -Infinity;
    const lines = [...chart.querySelectorAll('polyline[data-y]')].map(line => {
      const steps = listed(line.dataset.x), values = listed(line.dataset.y);
      const at = steps.map((step, k) => [round(x + width * (step - range[0]) / (range[1] - range[0])),
        floor - height * (forth(values[k]) - y0) / (y1 - y0)]);
      if (line.getClientRects().length) at.forEach(([px, py], k) => {
        const beside = at[k + 1]?.[0] ?? px, before = at[k - 1]?.[0] ?? px;
        if (beside >= x && before <= x + width) { top = Math.min(top, py); bottom = Math.max(bottom, py); } });
      return [line, at];
    });
    if (!(bottom > top)) [top, bottom] = bottom === top ? [top - height / 8, top + height / 8] : [y, floor];
    else { const room = (bottom - top) * .06; [top, bottom] = [top - room, bottom + room]; }
    const tall = height / (bottom - top), Y = at => round(y + (at - top) * tall);
    for (const [line, at] of lines) line.setAttribute('points', at.map(([a, b]) => `${a},${Y(b)}`).join(' '));
    for (const node of chart.querySelectorAll('.plot polygon'))
      node.setAttribute('points', pairs(node.getAttribute('points')).map(([a, b]) => `${X(a)},${Y(b)}`).join(' '));
    const move = (node, kind, keys) => keys.forEach(key => set(node, {[key]: kind(Number(node.getAttribute(key)))}));
    for (const node of chart.querySelectorAll('.plot circle')) { move(node, X, ['cx']); move(node, Y, ['cy']); }
    for (const node of chart.querySelectorAll('.plot .cross')) { const [, a, b] = node.getAttribute('transform').match(/([-\d.]+) ([-\d.]+)/);
      node.setAttribute('transform', `translate(${X(Number(a))} ${Y(Number(b))})`); }
    for (const node of chart.querySelectorAll('.plot line')) move(node, Y, ['y1', 'y2']);
    for (const node of chart.querySelectorAll('.plot text')) { move(node, X, ['x']); move(node, Y, ['y']); }
    for (const node of chart.querySelectorAll('.plot rect')) { const left = Number(node.getAttribute('x'));
      const right = left + Number(node.getAttribute('width')); set(node, {x: X(left), width: Math.max(2, X(right) - X(left))}); }
    const level = at => y0 + (floor - at) / height * (y1 - y0);
    drawTicks(chart, plot, range, [level(bottom), level(top)]);
  };
  const zoom = (chart, range) => {
    const [x0, x1] = span(chart);
    if (range) {
      const least = (x1 - x0) / 5000, size = Math.max(least, Math.min(x1 - x0, range[1] - range[0]));
      const from = Math.max(x0, Math.min(range[0], x1 - size));
      range = size >= (x1 - x0) * .999 ? null : [from, from + size];
    }
    chart.range = range;
    draw(chart, range);
    chart.button ??= Object.assign(document.createElement('button'),
      {type: 'button', className: 'whole', textContent: 'whole range', onclick: () => { zoom(chart, null); chart.focus(); }});
    range ? chart.parentNode.append(chart.button) : chart.button.remove();
    remember('zoomed', Object.fromEntries(charts.filter(each => each.range).map(each => [each.name, each.range])));
  };

  const hide = chart => { tip.textContent = ''; chart.querySelector('.hover')?.remove(); };
  const place = (chart, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
  const show = (chart, event) => {
    const mouse = place(chart, event), {x: left, y: top, width, floor} = box(chart), edge = 5;
    let best = {far: near};
    for (const line of chart.querySelectorAll('[data-y]')) {
      const title = line.querySelector('title');
      if (title) { line.dataset.name = title.textContent.split(':')[0]; title.remove(); }
      if (!line.getClientRects().length) continue;
      line.values ??= line.dataset.y.split(' ');
      line.at ??= pairs(line.getAttribute('points')).slice(0, line.values.length);
      line.at.forEach(([x, y], index) => { const far = Math.hypot(2 * (x - mouse.x), y - mouse.y);
        const inside = x > left - edge && x < left + width + edge && y > top - edge && y < floor + edge;
        if (inside && far < best.far) best = {far, line, index, x, y}; });
    }
    hide(chart);
    if (!best.line) return;
    const {line, index, x, y} = best, at = Number(line.dataset.x.split(' ')[index]).toLocaleString('en');
    set(make('circle', 'hover', chart), {cx: x, cy: y, r: 4});
    tip.textContent = `${line.values[index]} at ${at} ${chart.dataset.unit}\n${line.dataset.name ?? ''}`;
    tip.style.left = '0';
    const side = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, side)}px`; tip.style.top = `${event.clientY + 16}px`;
  };

  for (const chart of charts) {
    chart.addEventListener('pointerleave', () => hide(chart));
    for (const kind of ['pointermove', 'pointerdown']) chart.addEventListener(kind, event => show(chart, event));
    if (!chart.dataset.span) continue;
    const shown = () => chart.range ?? span(chart).slice(0, 2);
    const moved = (from, to) => { const [a, b] = shown(); zoom(chart, [a + from * (b - a), a + to * (b - a)]); };
    const share = event => { const {x, width} = box(chart); return Math.min(1, Math.max(0, (place(chart, event).x - x) / width)); };
    let from = null;
    chart.addEventListener('pointerdown', event => { if (event.isPrimary && !event.button) from = share(event); });
    chart.addEventListener('pointermove', event => {
      if (from === null) return;
      if (!chart.hasPointerCapture(event.pointerId)) try { chart.setPointerCapture(event.pointerId); } catch { }
      const {x, y, width, height} = box(chart), to = share(event);
      const picked = chart.querySelector('.picked') ?? make('rect', 'picked', chart);
      set(picked, {x: x + width * Math.min(from, to), y, width: width * Math.abs(to - from), height});
    });
    const end = event => { const begun = from, to = share(event); from = null; chart.querySelector('.picked')?.remove();
      if (begun !== null && event.type === 'pointerup' && Math.abs(to - begun) > .02) moved(Math.min(begun, to), Math.max(begun, to)); };
    for (const kind of ['pointerup', 'pointercancel']) chart.addEventListener(kind, end);
    chart.addEventListener('dblclick', () => zoom(chart, null));
    const keys = {'+': [.25, .75], '=': [.25, .75], '-': [-.5, 1.5], ArrowLeft: [-.25, .75], ArrowRight: [.25, 1.25]};
    chart.addEventListener('keydown', event => { if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === 'Escape') zoom(chart, null);
      else if (keys[event.key] && (chart.range || '+='.includes(event.key))) { event.preventDefault(); moved(...keys[event.key]); } });
    set(chart, {tabindex: 0, 'aria-keyshortcuts': '+ - ArrowLeft ArrowRight Escape'});
  }

  const boxes = [...document.querySelectorAll('.legend input')], hidden = remembered('hidden') ?? [];
  for (const each of boxes) if (hidden.includes(each.name)) each.checked = false;
  document.addEventListener('change', () => {
    remember('hidden', boxes.filter(each => !each.checked).map(each => each.name));
    for (const chart of charts) if (chart.range) draw(chart, chart.range);
  });
  const zoomed = remembered('zoomed') ?? {};
  for (const chart of charts) if (chart.dataset.span && zoomed[chart.name]) zoom(chart, zoomed[chart.name]);

  // Paper shows everything
  const closed = [...document.querySelectorAll('details:not([open])')];
  addEventListener('beforeprint', () => { for (const chart of charts) if (chart.range) draw(chart, null);
    for (const each of closed) each.open = true; });
  addEventListener('afterprint', () => { for (const chart of charts) if (chart.range) draw(chart, chart.range);
    for (const each of closed) each.open = false; });
  document.documentElement.classList.add('scripted');
})();
