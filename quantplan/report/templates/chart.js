// File size against expected KLD: the plans as a line, stock quants and measured files as points.

const MARGIN = { left: 58, right: 16, top: 12, bottom: 40 };

/** Every measured file once, with the conditions that it was measured under. */
function measuredFiles() {
  const found = new Map();
  const add = (row, own) => {
    const { text_digest: text, n_ctx: ctx, windows } = row.conditions;
    const key = [row.model_digest, text, ctx, windows].join();
    if (!found.has(key)) found.set(key, { name: row.name ?? row.file, bytes: row.file_bytes, kld: row.kld, error: row.kld_err, own, ctx, windows });
  };
  data.comparisons.forEach(each => each.rows.forEach((row, at) => add(row, at === 0)));
  data.measurements.forEach(row => add(row, false));
  return [...found.values()].filter(each => each.kld > 0);
}

const measured = measuredFiles();
const priced = data.mixes.filter(stock => stock.kld > 0);
const lossy = data.plans.filter(plan => plan.kld > 0);

/** Draws the chart into its figure; `choose(index)` is called with the plan that was clicked. Returns how to mark a plan. */
function drawChart(choose) {
  const figureElement = byId('chart');
  const width = figureElement.clientWidth || 600;
  const height = Math.max(260, Math.min(440, width * 0.6));
  const scale = scales(width, height);
  const svg = draw('svg', { height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': summary() });
  const now = draw('line', { class: 'now', y1: MARGIN.top, y2: height - MARGIN.bottom });
  const dot = draw('circle', { class: 'dot', r: 6 });
  svg.append(...axes(scale, width, height), band(scale), line(scale), now, catcher(scale, width, height, choose),
    ...stockPoints(scale, choose), ...measuredPoints(scale), ...labels(scale, width, height), dot);
  figureElement.replaceChildren(svg);
  return plan => {
    const x = scale.x(plan.bytes);
    now.setAttribute('x1', x);
    now.setAttribute('x2', x);
    dot.setAttribute('cx', x);
    dot.setAttribute('cy', scale.y(plan.kld));
  };
}

function summary() {
  const [first, last] = [data.plans[0], data.plans.at(-1)];
  return `Expected KLD from ${figure(first.kld)} at ${size(first.bytes)} to ${figure(last.kld)} at ${size(last.bytes)}; `
    + `${priced.length} stock quants and ${measured.length} measured files. All values are in the tables below.`;
}

function scales(width, height) {
  const inRange = priced.filter(stock => stock.kld < 30 * data.plans[0].kld);
  const bytes = [...data.plans, ...inRange].map(each => each.bytes);
  const klds = [...lossy, ...inRange, ...measured].map(each => each.kld);
  const [left, right] = [Math.min(...bytes), Math.max(...bytes)];
  const [low, high] = klds.length ? [Math.log10(Math.min(...klds)), Math.log10(Math.max(...klds))] : [-3, 0];
  const room = { x: (right - left || 1) * 0.02, y: (high - low || 1) * 0.04 };
  const inner = { x: width - MARGIN.left - MARGIN.right, y: height - MARGIN.top - MARGIN.bottom };
  const bounds = { left: left - room.x, right: right + room.x, low: low - room.y, high: high + room.y };
  return {
    bounds,
    x: value => MARGIN.left + inner.x * (value - bounds.left) / (bounds.right - bounds.left),
    y: value => MARGIN.top + inner.y * (bounds.high - Math.min(Math.max(Math.log10(value), bounds.low), bounds.high)) / (bounds.high - bounds.low),
    bytes: x => bounds.left + (x - MARGIN.left) / inner.x * (bounds.right - bounds.left),
  };
}

function axes(scale, width, height) {
  const { bounds } = scale;
  const foot = height - MARGIN.bottom;
  const marks = [];
  const decades = bounds.high - bounds.low;
  const steps = decades > 3.5 ? [1] : decades > 1.5 ? [1, 3] : [1, 2, 5];
  for (let power = Math.floor(bounds.low); power <= bounds.high; power++) {
    for (const value of steps.map(step => step * 10 ** power)) {
      const y = scale.y(value);
      if (Math.log10(value) < bounds.low || Math.log10(value) > bounds.high) continue;
      marks.push(draw('line', { class: 'grid', x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
      marks.push(draw('text', { x: MARGIN.left - 6, y: y + 4, 'text-anchor': 'end' }, String(+value.toPrecision(1))));
    }
  }
  const [unit, factor] = bounds.right > 2e9 ? ['GB', 1e9] : bounds.right > 2e6 ? ['MB', 1e6] : ['kB', 1e3];
  const step = niceStep((bounds.right - bounds.left) / factor / Math.max(2, width / 110));
  for (let value = Math.ceil(bounds.left / factor / step) * step; value <= bounds.right / factor; value += step) {
    const x = scale.x(value * factor);
    marks.push(draw('line', { class: 'grid', x1: x, x2: x, y1: foot, y2: foot + 4 }));
    marks.push(draw('text', { x, y: foot + 18, 'text-anchor': 'middle' }, String(+value.toPrecision(6))));
  }
  marks.push(draw('text', { x: width - MARGIN.right, y: foot + 34, 'text-anchor': 'end' }, `file size, ${unit}`));
  marks.push(draw('text', { x: 12, y: MARGIN.top + 4, transform: `rotate(-90 12 ${MARGIN.top + 4})`, 'text-anchor': 'end' }, 'KLD'));
  return marks;
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map(each => each * power).find(each => each >= least);
}

const line = scale => draw('polyline', { class: 'plans', points: lossy.map(plan => `${scale.x(plan.bytes)},${scale.y(plan.kld)}`).join(' ') });

/** One standard error to both sides; at most down to a twentieth. */
function band(scale) {
  const upper = lossy.map(plan => `${scale.x(plan.bytes)},${scale.y(plan.kld + plan.kld_err)}`);
  const lower = lossy.map(plan => `${scale.x(plan.bytes)},${scale.y(Math.max(plan.kld - plan.kld_err, plan.kld / 20))}`);
  return draw('polygon', { class: 'band', points: [...upper, ...lower.reverse()].join(' ') });
}

function catcher(scale, width, height, choose) {
  const nearest = event => {
    const bytes = scale.bytes(event.offsetX);
    let best = 0;
    data.plans.forEach((plan, at) => { if (Math.abs(plan.bytes - bytes) < Math.abs(data.plans[best].bytes - bytes)) best = at; });
    return best;
  };
  return draw('rect', {
    class: 'catch', x: MARGIN.left, y: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom,
    onclick: event => choose(nearest(event)),
    onpointermove: event => {
      const plan = data.plans[nearest(event)];
      tip(`plan of ${size(plan.bytes)}, ${plan.bpw.toFixed(2)} bpw\nexpected KLD ${withError(plan.kld, plan.kld_err)}`, event.clientX, event.clientY);
    },
    onpointerleave: () => tip(''),
  });
}

function stockPoints(scale, choose) {
  return priced.map(stock => {
    const [x, y] = [scale.x(stock.bytes), scale.y(stock.kld)];
    const same = planWithin(stock.bytes);
    const words = `${stock.name}: ${size(stock.bytes)}, ${stock.bpw.toFixed(2)} bpw\nexpected KLD ${withError(stock.kld, stock.kld_err)}`
      + (same ? `\nthe plan of this size: ${figure(same.kld)}` : '');
    return draw('path', {
      class: 'stock', d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z`, 'data-name': stock.name,
      onpointermove: event => tip(words, event.clientX, event.clientY), onpointerleave: () => tip(''),
      onclick: () => { if (same) choose(data.plans.indexOf(same)); },
    });
  });
}

function measuredPoints(scale) {
  return measured.map(each => draw('circle', {
    class: each.own ? 'measured own' : 'measured', cx: scale.x(each.bytes), cy: scale.y(each.kld), r: 4.5,
    onpointermove: event => tip(`${each.name}, measured: ${size(each.bytes)}\nKLD ${withError(each.kld, each.error)}\n${each.windows} chunks of ${each.ctx} tokens`, event.clientX, event.clientY),
    onpointerleave: () => tip(''),
  }));
}

/** Names of the stock quants where there is room for them: next to their point, off other names, points and the line of the plans. */
function labels(scale, width, height) {
  const taken = [...priced, ...measured].map(each => boxAround(scale.x(each.bytes), scale.y(each.kld), 8));
  const curve = lossy.map(plan => boxAround(scale.x(plan.bytes), scale.y(plan.kld), 4));
  const found = [];
  for (const stock of [...priced].sort((one, other) => importance(other) - importance(one))) {
    const [x, y] = [scale.x(stock.bytes), scale.y(stock.kld)];
    const long = stock.name.length * 7;
    const places = [[x + 9, y + 4], [x - 9 - long, y + 4], [x - long / 2, y - 10], [x + 4, y - 8], [x - long / 2, y + 20]];
    const place = places.find(([left, base]) => {
      const box = { left, right: left + long, top: base - 11, bottom: base + 3 };
      return box.left > MARGIN.left && box.right < width && box.top > 0 && box.bottom < height - MARGIN.bottom
        && [...taken, ...curve].every(other => other.centre === `${x},${y}` || apart(box, other)) && taken.push(box);
    });
    if (place) found.push(draw('text', { class: 'label', x: place[0], y: place[1] }, stock.name));
  }
  return found;
}

const importance = stock => (stock.name.endsWith('_M') ? 3 : 0) + (/^(Q8_0|Q6_K|IQ4_XS|IQ3_XXS)$/.test(stock.name) ? 2 : 0);
const boxAround = (x, y, reach) => ({ left: x - reach, right: x + reach, top: y - reach, bottom: y + reach, centre: `${x},${y}` });
const apart = (one, other) => one.right < other.left || other.right < one.left || one.bottom < other.top || other.bottom < one.top;

function chartLegend() {
  const entry = (mark, words) => make('span', {}, draw('svg', { viewBox: '0 0 16 12', 'aria-hidden': 'true' }, mark), words);
  const entries = [
    entry(draw('path', { d: 'M0 6H16', stroke: 'var(--plan)', 'stroke-width': 2.5 }), 'plans, with one standard error'),
    entry(draw('path', { d: 'M8 1l5 5l-5 5l-5 -5z', fill: 'var(--stock)' }), 'stock quants'),
  ];
  if (measured.length) {
    entries.push(entry(draw('circle', { cx: 8, cy: 6, r: 4.5, fill: 'var(--measured)' }), 'measured plan'));
    entries.push(entry(draw('circle', { cx: 8, cy: 6, r: 3.8, fill: 'none', stroke: 'var(--measured)', 'stroke-width': 2 }), 'other measured file'));
  }
  byId('chart-legend').replaceChildren(...entries);
}
