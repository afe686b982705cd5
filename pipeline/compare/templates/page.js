// Values on hovering, zooming, and a state that outlives a reload of the page. Without it the page is whole: lines have
// titles, and the legends hide attempts and metrics by the stylesheet alone.
(() => {
  const make = (name, kind, parent) => {
    const found = document.createElementNS(parent.namespaceURI, name);
    found.setAttribute('class', kind);
    return parent.appendChild(found);
  };
  const set = (node, values) => {
    for (const key in values) node.setAttribute(key, values[key]);
    return node;
  };
  const round = value => Math.round(value * 100) / 100;
  const listed = text => text.split(' ').map(Number);
  const pairs = text => text.split(' ').map(each => each.split(',').map(Number));
  const kept = name => `${name} ${location.pathname}`;
  const remembered = name => { try { return JSON.parse(sessionStorage.getItem(kept(name))); } catch { return null; } };
  const remember = (name, value) => { try { sessionStorage.setItem(kept(name), JSON.stringify(value)); } catch { } };
  const charts = [...document.querySelectorAll('svg.chart')];
  const tip = make('div', 'tip', document.body), near = 40;
  let whose = '';
  for (const each of document.querySelectorAll('header[id], article[id], svg.chart'))
    if (each.id) whose = each.id; else each.name = `${whose} ${each.getAttribute('aria-label')}`;

  // Axes. A place on the vertical one is a value, or its logarithm, with room for 0 where `linear` is not 0.

  const box = chart => {
    const plot = chart.querySelector('.plot');
    const [x, y, width, height] = ['x', 'y', 'width', 'height'].map(each => Number(plot.getAttribute(each)));
    return {x, y, width, height, floor: y + height};
  };
  const span = chart => listed(chart.dataset.span);
  const scales = chart => {
    const linear = Number(chart.dataset.linear ?? NaN);
    if (Number.isNaN(linear)) return [value => value, place => place];
    if (linear === 0) return [value => Math.log10(Math.max(value, 1e-300)), place => 10 ** place];
    return [value => Math.sign(value) * Math.log10(1 + Math.abs(value) / linear),
      place => Math.sign(place) * linear * (10 ** Math.abs(place) - 1)];
  };
  const ticks = (low, high, count) => {
    const rough = (high - low) / count, far = step => Math.abs(Math.log(step / rough)), found = [];
    const step = [1, 2, 5, 10].map(each => each * 10 ** Math.floor(Math.log10(rough)))
      .reduce((a, b) => far(b) < far(a) ? b : a);
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && found.length < 99; k++)
      found.push(Number((k * step).toPrecision(12)));
    return found;
  };
  const powers = (low, high) => {
    const found = low <= 0 && high >= 0 ? [0] : [];
    for (let k = -300; k <= 300; k++)
      for (const each of [10 ** k, -(10 ** k)]) if (low <= each && each <= high) found.push(each);
    return found.length > 1 ? found.sort((a, b) => a - b) : ticks(low, high, 4);
  };
  const number = (value, digits) => {
    const size = Math.abs(value), few = (each, letter) => Number(each.toPrecision(digits)) + letter;
    if (size >= 1e9 || (size && size < 1e-3))
      return Number(value.toPrecision(digits)).toExponential().replace('e+', 'e');
    return size >= 1e6 ? few(value / 1e6, 'M') : size >= 1e3 ? few(value / 1e3, 'k') : few(value, '');
  };
  const numbers = values => {  // with as many digits as tell them apart
    for (let digits = 3; ; digits++) {
      const found = values.map(each => number(each, digits));
      if (digits > 9 || new Set(found).size === found.length) return found;
    }
  };
  const drawTicks = (chart, [from, to], [low, high]) => {
    const {x, y, width, floor} = box(chart), [forth, back] = scales(chart), parent = chart.querySelector('.ticks');
    const word = (text, values) => { set(make('text', 'tick', parent), values).textContent = text; };
    const across = (kind, at) => set(make('line', kind, parent), {x1: x, x2: x + width, y1: at, y2: at});
    parent.textContent = '';
    let last = Infinity;
    const rows = ('linear' in chart.dataset ? powers : ticks)(back(low), back(high), 4)
      .map(value => [value, round(floor - (floor - y) * (forth(value) - low) / (high - low))])
      .filter(([, at]) => Math.abs(last - at) >= 16 && ((last = at), true));
    const levels = numbers(rows.map(([value]) => value));
    rows.forEach(([, at], k) => {
      across('grid', at);
      word(levels[k], {x: x - 6, y: round(at + 4), 'text-anchor': 'end'});
    });
    across('axis', floor);
    const marks = ticks(from, to, Math.max(2, Math.floor(width / 110))), steps = numbers(marks);
    let free = x + width + 12;  // from here on to the left there are no words yet
    for (let k = marks.length - 1; k >= 0; k--) {
      const at = round(x + width * (marks[k] - from) / (to - from)), unit = k === marks.length - 1;
      set(make('line', 'axis', parent), {x1: at, x2: at, y1: floor, y2: floor + 3});
      const text = steps[k] + (unit ? ` ${chart.dataset.unit}` : ''), end = unit && at > x + width - 48;
      const place = end ? x + width : at, wide = 8.4 * text.length;
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
    const {x, y, width, height, floor} = box(chart), [x0, x1, y0, y1] = span(chart), [forth] = scales(chart);
    const [from, to] = range, wide = (x1 - x0) / (to - from), start = x + width * (from - x0) / (x1 - x0);
    const X = at => round(x + (at - start) * wide);
    let top = Infinity, bottom = -Infinity;
    const lines = [...chart.querySelectorAll('polyline[data-y]')].map(line => {
      const values = listed(line.dataset.y), at = listed(line.dataset.x).map((step, k) =>
        [round(x + width * (step - from) / (to - from)), floor - height * (forth(values[k]) - y0) / (y1 - y0)]);
      const shown = line.getClientRects().length > 0;
      at.forEach(([place, level], k) => {
        const [before, after] = [at[k - 1] ?? [place], at[k + 1] ?? [place]].map(([each]) => each);
        if (shown && after >= x && before <= x + width) [top, bottom] = [Math.min(top, level), Math.max(bottom, level)];
      });
      return [line, at];
    });
    const room = bottom > top ? (bottom - top) * .06 : height / 8;
    [top, bottom] = bottom >= top ? [top - room, bottom + room] : [y, floor];
    const Y = at => round(y + (at - top) * height / (bottom - top));
    const move = (nodes, kind, ...keys) => chart.querySelectorAll(`.plot ${nodes}`).forEach(node =>
      keys.forEach(key => node.setAttribute(key, kind(Number(node.getAttribute(key))))));
    for (const [line, at] of lines) line.setAttribute('points', at.map(([a, b]) => `${a},${Y(b)}`).join(' '));
    for (const node of chart.querySelectorAll('.plot polygon'))
      node.setAttribute('points', pairs(node.getAttribute('points')).map(([a, b]) => `${X(a)},${Y(b)}`).join(' '));
    for (const node of chart.querySelectorAll('.plot rect')) {
      const left = Number(node.getAttribute('x')), right = left + Number(node.getAttribute('width'));
      set(node, {x: X(left), width: Math.max(2, X(right) - X(left))});
    }
    for (const node of chart.querySelectorAll('.plot .cross')) {
      const [a, b] = node.getAttribute('transform').match(/[-\d.]+/g).map(Number);
      node.setAttribute('transform', `translate(${X(a)} ${Y(b)})`);
    }
    move('circle', X, 'cx'); move('circle', Y, 'cy');
    move('text', X, 'x'); move('text', Y, 'y');
    move('line', Y, 'y1', 'y2');
    drawTicks(chart, range, [bottom, top].map(at => y0 + (floor - at) / height * (y1 - y0)));
  };
  const zoom = (chart, range) => {
    const [x0, x1] = span(chart);
    if (range) {
      const size = Math.max((x1 - x0) / 5000, Math.min(x1 - x0, range[1] - range[0]));
      const from = Math.max(x0, Math.min(range[0], x1 - size));
      range = size >= (x1 - x0) * .999 ? null : [from, from + size];
    }
    chart.range = range;
    draw(chart, range);
    chart.button ??= Object.assign(document.createElement('button'), {type: 'button', className: 'whole',
      textContent: 'whole range', onclick: () => { zoom(chart, null); chart.focus(); }});
    if (range) chart.parentNode.append(chart.button); else chart.button.remove();
    remember('zoomed', Object.fromEntries(charts.filter(each => each.range).map(each => [each.name, each.range])));
  };
  const redraw = whole => { for (const chart of charts) if (chart.range) draw(chart, whole ? null : chart.range); };

  // Values on hovering

  const place = (chart, event) =>
    new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
  const hide = chart => { tip.textContent = ''; chart.querySelector('.hover')?.remove(); };
  const show = (chart, event) => {
    const mouse = place(chart, event), {x: left, y: top, width, floor} = box(chart), edge = 5;
    let best = {far: near};
    for (const line of chart.querySelectorAll('[data-y]')) {
      const title = line.querySelector('title');
      if (title) { line.dataset.name = title.textContent.split(':')[0]; title.remove(); }
      if (!line.getClientRects().length) continue;
      line.values ??= line.dataset.y.split(' ');
      line.at ??= pairs(line.getAttribute('points')).slice(0, line.values.length);
      line.at.forEach(([x, y], index) => {
        const far = Math.hypot(2 * (x - mouse.x), y - mouse.y);
        const inside = x > left - edge && x < left + width + edge && y > top - edge && y < floor + edge;
        if (inside && far < best.far) best = {far, line, index, x, y};
      });
    }
    hide(chart);
    if (!best.line) return;
    const {line, index, x, y} = best, at = Number(line.dataset.x.split(' ')[index]).toLocaleString('en');
    set(make('circle', 'hover', chart), {cx: x, cy: y, r: 4});
    tip.textContent = `${line.values[index]} at ${at} ${chart.dataset.unit}\n${line.dataset.name ?? ''}`;
    tip.style.left = '0';
    const side = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, side)}px`;
    tip.style.top = `${event.clientY + 16}px`;
  };

  // What the user does

  const KEYS = {'+': [.25, .75], '=': [.25, .75], '-': [-.5, 1.5], ArrowLeft: [-.25, .75], ArrowRight: [.25, 1.25]};
  for (const chart of charts) {
    chart.addEventListener('pointerleave', () => hide(chart));
    for (const kind of ['pointermove', 'pointerdown']) chart.addEventListener(kind, event => show(chart, event));
    if (!chart.dataset.span) continue;
    const part = (from, to) => {
      const [a, b] = chart.range ?? span(chart);
      zoom(chart, [a + from * (b - a), a + to * (b - a)]);
    };
    const share = event => {
      const {x, width} = box(chart);
      return Math.min(1, Math.max(0, (place(chart, event).x - x) / width));
    };
    let from = null;
    chart.addEventListener('pointerdown', event => { if (event.isPrimary && !event.button) from = share(event); });
    chart.addEventListener('pointermove', event => {
      if (from === null) return;
      try { chart.setPointerCapture(event.pointerId); } catch { }
      const {x, y, width, height} = box(chart), to = share(event);
      const picked = chart.querySelector('.picked') ?? make('rect', 'picked', chart);
      set(picked, {x: x + width * Math.min(from, to), y, width: width * Math.abs(to - from), height});
    });
    for (const kind of ['pointerup', 'pointercancel']) chart.addEventListener(kind, event => {
      const [begun, to] = [from, share(event)].sort((a, b) => a - b), moved = from !== null && to - begun > .02;
      from = null;
      chart.querySelector('.picked')?.remove();
      if (moved && kind === 'pointerup') part(begun, to);
    });
    chart.addEventListener('dblclick', () => zoom(chart, null));
    chart.addEventListener('keydown', event => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === 'Escape') zoom(chart, null);
      if (!KEYS[event.key] || !(chart.range || '+='.includes(event.key))) return;
      event.preventDefault();
      part(...KEYS[event.key]);
    });
    set(chart, {tabindex: 0, 'aria-keyshortcuts': '+ - ArrowLeft ArrowRight Escape'});
  }
  const boxes = [...document.querySelectorAll('.legend input')], hidden = remembered('hidden') ?? [];
  for (const each of boxes) if (hidden.includes(each.name)) each.checked = false;
  document.addEventListener('change', () => {
    remember('hidden', boxes.filter(each => !each.checked).map(each => each.name));
    redraw(false);
  });
  const zoomed = remembered('zoomed') ?? {};
  for (const chart of charts) if (chart.dataset.span && zoomed[chart.name]) zoom(chart, zoomed[chart.name]);

  // An orchestrator that was killed cannot say in its page that it runs no more.

  const running = document.querySelector('.live time'), minutes = 5;
  const silent = running ? (Date.now() - Date.parse(running.dateTime)) / 60000 : 0;
  if (silent > minutes) {
    running.parentNode.querySelector('b').textContent = 'Perhaps not running any more.';
    running.nextSibling.textContent = `, ${Math.round(silent)} minutes ago, and not since; while it runs, the page is ` +
      'written about every minute. "ladder status" says what has become of it.';
  }

  // Paper shows everything

  const closed = [...document.querySelectorAll('details:not([open])')];
  addEventListener('beforeprint', () => { redraw(true); for (const each of closed) each.open = true; });
  addEventListener('afterprint', () => { redraw(false); for (const each of closed) each.open = false; });
  document.documentElement.classList.add('scripted');
})();
