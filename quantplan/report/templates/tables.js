// Tables: sorted by a click on a heading, made only when they are looked at.

/** `columns`: [heading, row => value, value => text]; those shown by `words` are text, the first one heads its row. */
function table(columns, rows, sortable = true) {
  const kind = show => show === words ? 'text' : undefined;
  const headings = columns.map(([title, , show]) => make('th', { scope: 'col', class: kind(show) }, title));
  const body = rows.map(row => make('tr', {}, ...columns.map(([, value, show = figure], at) => {
    const content = value(row);
    const attributes = { class: kind(show), 'data-value': typeof content === 'number' ? content : undefined };
    const shown = content instanceof Node || typeof content === 'string' ? content : show(content);
    return at ? make('td', attributes, shown) : make('th', { ...attributes, scope: 'row' }, shown);
  })));
  const found = make('table', { class: sortable ? 'sortable' : '' }, make('thead', {}, make('tr', {}, ...headings)), make('tbody', {}, ...body));
  if (sortable) makeSortable(found);
  return found;
}

/** Headings become buttons. Values are `data-value`, else the text; what has none stays at the end. */
function makeSortable(found) {
  found.querySelectorAll('thead th').forEach((heading, at) => {
    if (!heading.textContent) return;
    const button = make('button', { type: 'button', onclick: () => sortBy(found, heading, at) }, heading.textContent);
    heading.replaceChildren(button);
  });
}

function sortBy(found, heading, at) {
  const falling = heading.getAttribute('aria-sort') === 'ascending';
  found.querySelectorAll('[aria-sort]').forEach(each => each.removeAttribute('aria-sort'));
  heading.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
  const body = found.tBodies[0];
  const keyed = [...body.rows].map(row => [sortKey(row.cells[at]), row]);
  keyed.sort(([one], [other]) => compare(one, other, falling ? -1 : 1));
  body.append(...keyed.map(([, row]) => row));
}

function sortKey(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const value = Number(text.replaceAll(',', ''));
  return text === '' || text === '–' || text === 'None' ? null : Number.isNaN(value) ? text : value;
}

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === 'number' && typeof other === 'number') return sign * (one - other);
  return sign * String(one).localeCompare(String(other), 'en', { numeric: true });
}

/** Fills a `details` when it is opened for the first time. */
function lazily(id, fill) {
  const details = byId(id);
  details?.addEventListener('toggle', () => {
    if (details.open && !details.dataset.filled) {
      details.dataset.filled = 'yes';
      details.querySelector('.scroll').append(fill());
    }
  });
}

const perToken = value => value == null ? '–' : size(value);
const words = value => value ?? '–';

function statisticsTable() {
  const { fields, rows } = data.statistics;
  return table([
    ['Tensor', row => row.name, words],
    ['Block', row => row.block, value => value ?? '–'],
    ...fields.map((field, at) => [`${field.title} ${field.unit}`.trim(), row => row.values[at], value => value === null ? '–' : value.toFixed(field.decimals)]),
  ], rows);
}

function plansTable(choose) {
  return table([
    ['Budget', plan => plan.asked, words],
    ['Bytes', plan => plan.bytes, whole],
    ['bpw', plan => plan.bpw, value => value.toFixed(3)],
    ['Read/token', plan => plan.bytes_per_token, perToken],
    ['Expected KLD', plan => plan.kld, figure],
    ['Standard error', plan => plan.kld_err, figure],
    ['Proven gap', plan => plan.gap, value => value < 1e-9 ? '0' : value.toExponential(1)],
    ['', plan => make('button', { type: 'button', onclick: () => choose(data.plans.indexOf(plan)) }, 'show')],
  ], data.plans);
}

function stockQuantsTable(choose) {
  const rows = data.mixes.map(stock => ({ stock, plan: planWithin(stock.bytes) }));
  return table([
    ['Stock quant', ({ stock }) => stock.name, words],
    ['Bytes', ({ stock }) => stock.bytes, whole],
    ['bpw', ({ stock }) => stock.bpw, value => value.toFixed(3)],
    ['Read/token', ({ stock }) => stock.bytes_per_token, perToken],
    ['KLD of the stock quant', ({ stock }) => stock.kld, figure],
    ['KLD of the plan', ({ plan }) => plan?.kld, figure],
    ['Ratio', ({ stock, plan }) => plan && stock.kld ? plan.kld / stock.kld : null, value => value === null ? '–' : value.toFixed(3)],
    ['', ({ stock, plan }) => plan ? make('button', { type: 'button', 'aria-label': `show the plan of the size of ${stock.name}`, onclick: () => choose(data.plans.indexOf(plan)) }, 'show plan') : 'smaller than every plan'],
    ...(data.mixes.some(stock => stock.unpriced) ? [['Remark', ({ stock }) => stock.unpriced && `no sensitivity for ${stock.unpriced}`, words]] : []),
  ], rows);
}

/** Bytes and types of a plan or stock quant by role, largest roles first. */
function byRoleTable(sized) {
  const found = new Map();
  data.tensors.forEach((tensor, at) => {
    const type = typeOf(sized, at);
    const entry = found.get(tensor.role) ?? { role: tensor.role, bytes: 0, damage: 0, types: new Map() };
    entry.bytes += tensorBytes(at, type);
    entry.damage += damageOf(sized, at) ?? NaN;
    entry.types.set(type.name, (entry.types.get(type.name) ?? 0) + 1);
    found.set(tensor.role, entry);
  });
  const rows = [...found.values()].sort((one, other) => other.bytes - one.bytes);
  const total = rows.reduce((sum, row) => sum + row.damage, 0);
  const list = types => [...types].sort((one, other) => other[1] - one[1]).map(([name, count]) => count > 1 ? `${name} ×${count}` : name).join(', ');
  return table([
    ['Role', row => row.role, words],
    ['Types', row => list(row.types), words],
    ['Size', row => row.bytes, size],
    ['Share of KLD', row => Number.isNaN(row.damage) ? null : row.damage / total, share => share === null ? '–' : percent(share)],
  ], rows, false);
}
