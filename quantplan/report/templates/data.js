// The page's data (docs/formats.md), and how its figures are written.

const data = JSON.parse(document.getElementById('data').textContent);
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** The type of tensor `at` in a plan or stock quant. */
const typeIndex = (sized, at) => LETTERS.indexOf(sized.types[at]);
const typeOf = (sized, at) => data.types[typeIndex(sized, at)];

const elements = data.tensors.map(tensor => tensor.shape.reduce((product, size) => product * size, 1));
const tensorBytes = (at, type) => elements[at] / type.block * type.block_bytes;

/** Nats per token of tensor `at` as a type (by its index) with llama-quantize's rounding; null where none is compensated. */
const stockDamage = (at, index) => data.stock_damage?.[at][index] ?? null;

/** Whether the rounding of tensor `at` is compensated: in plans only, stock quants are rounded by llama-quantize. */
const isCompensated = (sized, at) => Boolean(sized.rounding) && stockDamage(at, typeIndex(sized, at)) !== null;

/** Nats per token of tensor `at` in a plan or stock quant: null where the table has no value for its type. */
function damageOf(sized, at) {
  const index = typeIndex(sized, at);
  return (isCompensated(sized, at) ? null : stockDamage(at, index)) ?? data.damage[at][index];
}

/** The largest plan that is no larger than so many bytes; undefined where all are larger. */
const planWithin = bytes => data.plans.findLast(plan => plan.bytes <= bytes);

const statisticRow = new Map((data.statistics?.rows ?? []).filter(row => row.tensor !== null).map(row => [row.tensor, row]));

function size(bytes) {
  for (const [unit, scale] of [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]]) {
    if (bytes >= scale) return `${(bytes / scale).toFixed(2)} ${unit}`;
  }
  return `${bytes} B`;
}

const whole = value => value.toLocaleString('en-US');

/** Three significant digits, two of what is tiny; a dash for what is not known. */
function figure(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0';
  if (Math.abs(value) >= 1000) return whole(Math.round(value));
  return Math.abs(value) < 1e-4 ? value.toExponential(1) : value.toPrecision(3);
}

function withError(value, error) {
  if (value === null) return '–';
  if (!error) return figure(value);
  const decimals = Math.min(9, Math.max(0, 1 - Math.floor(Math.log10(error))));
  return `${value.toFixed(decimals)} ± ${error.toFixed(decimals)}`;
}

const percent = share => `${(100 * share).toFixed(Math.abs(share) < 0.1 ? 1 : 0)} %`;

const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes and children; strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children);
  return element;
}

const byId = id => document.getElementById(id);

/** A text next to a point of the browser window, kept inside of it; without a text it is hidden. */
function tip(text, x = 0, y = 0) {
  const box = byId('tip');
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  const { width, height } = box.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - 14 - width : x + 14;
  box.style.left = `${Math.max(4, left)}px`;
  box.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - height - 4))}px`;
}
