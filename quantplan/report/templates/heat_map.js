// Blocks across, roles down: each tensor coloured by what is asked for.

// matplotlib's viridis at nine even steps: rises evenly in lightness, and reads the same without red and green
const RAMP = ['#440154', '#472d7b', '#3b528b', '#2c728e', '#21918c', '#28ae80', '#5ec962', '#addc30', '#fde725']
  .map(hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)));

function rampColour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((value, at) => Math.round(value + (place - low) * (RAMP[low + 1][at] - value)));
}

const cssColour = rgb => `rgb(${rgb.join(' ')})`;
const inkOn = ([red, green, blue]) => 0.299 * red + 0.587 * green + 0.114 * blue > 120 ? '#000' : '#fff';

const usedTypes = new Set(data.plans.flatMap(sized => [...sized.types]));
const usedBits = data.types.filter((_, at) => usedTypes.has(LETTERS[at])).map(type => type.bits);
const MOST_BITS = 8.5; // 16-bit types share the colour of Q8_0: else they would take half of the scale

/** What cells can be coloured by: value of a tensor, on a logarithmic scale or not, and the range that its colours span. */
const measures = {
  bits: { title: 'bits per weight', log: true, value: (sized, at) => typeOf(sized, at).bits, range: () => [Math.min(...usedBits, MOST_BITS), Math.min(Math.max(...usedBits), MOST_BITS)], above: Math.max(...usedBits) > MOST_BITS },
  damage: { title: 'expected KLD', log: true, value: damageOf },
};
(data.statistics?.fields ?? []).forEach((field, index) => {
  if (field.name === 'n') return;
  measures[field.name] = {
    title: `inputs: ${field.meaning}${field.unit ? `, ${field.unit}` : ''}`, log: !field.unit && field.name !== 'cossim',
    value: (_, at) => statisticOf(at, field.name, index),
  };
});

/** A cosine of 0 stands for a tensor without an earlier block: no value, and it would look like the outlier. */
function statisticOf(at, name, index) {
  const value = statisticRow.get(at)?.values[index] ?? null;
  return name === 'cossim' && value === 0 ? null : value;
}

/** Builds the grid once. `look(index)` is called for the tensor that is pointed at, `keep(index)` for one that is clicked. */
function buildMap(look, keep) {
  const blocks = [...new Set(data.tensors.map(tensor => tensor.block).filter(block => block !== null))].sort((one, other) => one - other);
  const place = new Map(data.tensors.map((tensor, at) => [`${tensor.role}/${tensor.block}`, at]));
  const cells = new Map();
  const cell = at => {
    const found = make('div', {
      class: 'cell', role: 'gridcell', tabindex: -1,
      onpointermove: event => { tip(tensorWords(at), event.clientX, event.clientY); look(at); },
      onpointerleave: () => { tip(''); look(null); },
      onfocus: () => look(at), onclick: () => keep(at),
    });
    cells.set(at, found);
    return found;
  };
  const outside = data.tensors.flatMap((tensor, at) => tensor.block === null ? [at] : []);
  const lines = [outside, ...data.roles.map(role => blocks.map(block => place.get(`${role}/${block}`)))].filter(each => each.length);
  const map = make('div', { class: 'map', role: 'grid', 'aria-label': 'Tensors by role and block' });
  map.style.gridTemplateColumns = `max-content repeat(${blocks.length}, minmax(8px, 1fr))`;
  if (blocks.length) {
    for (const role of data.roles) map.append(make('div', { role: 'row' }, make('div', { class: 'role', role: 'rowheader', title: role }, role),
      ...blocks.map(block => place.has(`${role}/${block}`) ? cell(place.get(`${role}/${block}`)) : make('div', { class: 'cell none', role: 'gridcell', 'aria-label': 'none' }))));
    const step = [1, 2, 5, 10, 20].find(each => blocks.length / each <= 24) ?? 50;
    map.append(make('div', { role: 'row', 'aria-hidden': 'true' }, make('div', { class: 'role' }, 'block'),
      ...blocks.map((block, at) => make('div', { class: 'number' }, make('span', {}, at % step ? '' : String(block))))));
  }
  const apartFromBlocks = make('div', { class: 'outside', role: 'grid', 'aria-label': 'Tensors outside the blocks' }, make('div', { role: 'row', class: 'outside' }, ...outside.map(cell)));
  byId('map').replaceChildren(...(outside.length ? [apartFromBlocks] : []), map);
  walkable(lines, cells, keep);
  const fit = () => map.classList.toggle('tight', (cells.get(lines.at(-1)?.find(at => at !== undefined))?.clientWidth ?? 0) < 44);
  new ResizeObserver(fit).observe(byId('map'));
  return cells;
}

/** Arrow keys move from cell to cell, over holes too; one cell at a time is in the tab order. */
function walkable(lines, cells, keep) {
  const where = new Map();
  lines.forEach((line, row) => line.forEach((at, column) => where.set(at, [row, column])));
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const go = at => {
    cells.forEach((element, other) => element.setAttribute('tabindex', other === at ? 0 : -1));
    cells.get(at).focus();
  };
  for (const [at, element] of cells) {
    element.addEventListener('keydown', event => {
      if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); keep(at); }
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      let [row, column] = where.get(at);
      do {
        row += step[0];
        column = Math.min(column + step[1], step[0] ? lines[row]?.length - 1 : Infinity);
      } while (lines[row] && column >= 0 && column < lines[row].length && lines[row][column] === undefined);
      const next = lines[row]?.[column];
      if (next !== undefined) go(next);
    });
  }
  cells.values().next().value?.setAttribute('tabindex', 0);
}

/** Colours all cells for a plan or stock quant. */
function paintMap(cells, sized, measureName) {
  const measure = measures[measureName];
  const values = new Map([...cells.keys()].map(at => [at, measure.value(sized, at)]));
  const known = [...values.values()].filter(value => value !== null && (!measure.log || value > 0));
  const [low, high] = measure.range?.() ?? [Math.min(...known), Math.max(...known)];
  const place = value => measure.log ? Math.log(value / low) / Math.log(high / low || 1) : (value - low) / (high - low);
  for (const [at, element] of cells) {
    const value = values.get(at);
    const bare = value === null || (measure.log && !(value > 0));
    const rgb = bare ? null : rampColour(high > low ? place(value) : 0.5);
    element.classList.toggle('none', bare);
    element.style.background = bare ? '' : cssColour(rgb);
    element.style.color = bare ? 'inherit' : inkOn(rgb);
    const { role, block, name } = data.tensors[at];
    const type = typeOf(sized, at).name;
    element.textContent = block === null ? `${role} ${type}` : measureName === 'bits' ? type : figure(value);
    element.setAttribute('aria-label', `${name}, ${type}, ${measure.title} ${figure(value)}`);
  }
  mapLegend(measure, low, high, known.length);
}

function mapLegend(measure, low, high, count) {
  const ramp = make('i');
  ramp.style.background = `linear-gradient(to right, ${RAMP.map(cssColour).join(', ')})`;
  const scale = count ? [make('span', { class: 'ramp' }, figure(low), ramp, figure(high) + (measure.above ? ' and more' : ''))] : ['no values'];
  byId('map-legend').replaceChildren(make('span', {}, measure.title), ...scale, ...(measure.log && count ? [make('span', {}, 'logarithmic')] : []));
}
