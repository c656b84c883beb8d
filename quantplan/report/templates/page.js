// What belongs together on the page: the slider's plan, its figures, commands, chart, map and tables.

const state = { plan: data.opens_at, shown: '', colour: 'bits', kept: null };
let markPlan = () => {};
let cells = new Map();

const plan = () => data.plans[state.plan];
/** What the map shows: the slider's plan or a stock quant. */
const shown = () => data.mixes.find(stock => stock.name === state.shown) ?? plan();

function choose(index) {
  state.plan = Math.min(Math.max(index, 0), data.plans.length - 1);
  byId('size').value = state.plan;
  showPlan();
}

/** The address names the plan. Some browsers refuse after a hundred changes in half a minute, which harms nothing. */
function keepAddress() {
  try {
    history.replaceState(null, '', `#${plan().budget}`);
  } catch { /* it names an earlier plan until the next change */ }
}

function chooseAndKeep(index) {
  choose(index);
  keepAddress();
}

function showPlan() {
  const current = plan();
  const facts = [['size', size(current.bytes)], ['bits per weight', current.bpw.toFixed(3)], ['read per token', perToken(current.bytes_per_token)], ['expected KLD', withError(current.kld, current.kld_err)]];
  const alike = data.mixes.find(stock => stock.name === current.asked);
  byId('figures').replaceChildren(...facts.map(([name, value]) => make('span', {}, `${name} `, make('b', {}, value))));
  if (alike) facts.push(['size of', alike.name]);
  byId('size').setAttribute('aria-valuetext', facts.map(([name, value]) => `${name} ${value}`).join(', '));
  byId('like').value = alike?.name ?? '';
  byId('smaller').disabled = state.plan === 0;
  byId('larger').disabled = state.plan === data.plans.length - 1;
  byId('verdict').textContent = verdict(current) + (current.rounding ? ` Rounding ${current.rounding.words}.` : '');
  byId('rules-note').textContent = current.rounding ? `With llama-quantize alone: ${current.rounding.note}.` : '';
  byId('rules-note').hidden = !current.rounding;
  byId('by-role').replaceChildren(byRoleTable(current));
  byId('command-quantplan').textContent = current.commands.quantplan;
  byId('command-tool').textContent = current.commands['llama-quantize'];
  markPlan(current);
  if (!state.shown) repaint();
}

/** Against the best stock quant that is no larger. */
function verdict(current) {
  const rivals = data.mixes.filter(stock => stock.bytes <= current.bytes && stock.kld !== null);
  const rival = rivals.sort((one, other) => one.kld - other.kld)[0];
  const left = current.budget - current.bytes;
  const exact = `${whole(current.bytes)} bytes${left ? `, ${whole(left)} below the budget` : ''}.`;
  if (!rival?.kld) return exact;
  const ratio = current.kld / rival.kld;
  const name = `${rival.name} (${size(rival.bytes)})`;
  return `${exact} Expected to lose ${percent(Math.abs(1 - ratio))} ${ratio <= 1 ? 'less' : 'more'} than ${name}, the best stock quant of at most this size.`;
}

function repaint() {
  paintMap(cells, shown(), state.colour);
  showTensor(state.kept);
}

function tensorWords(at) {
  const type = typeOf(shown(), at);
  return `${data.tensors[at].name}\n${type.name}, ${type.bits.toFixed(2)} bits, ${size(tensorBytes(at, type))}\nKLD ${figure(damageOf(shown(), at))}`;
}

function look(at) {
  showTensor(at ?? state.kept);
}

function keep(at) {
  if (state.kept !== null) cells.get(state.kept).classList.remove('kept');
  state.kept = state.kept === at ? null : at;
  if (state.kept !== null) cells.get(at).classList.add('kept');
  showTensor(at);
}

/** The panel of one tensor: what it is, and what each type would cost. */
function showTensor(at) {
  if (at === null) return;
  const tensor = data.tensors[at];
  const type = typeOf(shown(), at);
  const total = data.tensors.reduce((sum, _, index) => sum + (damageOf(shown(), index) ?? NaN), 0);
  const damage = damageOf(shown(), at);
  const facts = [
    ['shape', tensor.shape.join(' × ')], ['type', `${type.name}, ${type.bits.toFixed(2)} bits`], ['bytes', whole(tensorBytes(at, type))],
    ['expected KLD', figure(damage)], ['of the total', damage === null || Number.isNaN(total) || !total ? '–' : percent(damage / total)],
    ['scale', `${tensor.source}, ± ${percent(tensor.error)}`],
  ];
  if (data.stock_damage) facts.push(['rounding', roundingOf(at)]);
  const rows = data.types.map((each, index) => ({ type: each, damage: data.damage[at][index], stock: stockDamage(at, index) })).filter(row => row.damage !== null || row.type === type);
  const choices = table([
    ['Type', row => row.type.name, words], ['Bytes', row => tensorBytes(at, row.type), size], ['KLD', row => row.damage, figure],
    ...(data.stock_damage ? [['Stock rounding', row => row.stock, figure]] : []),
  ], rows, false);
  [...choices.tBodies[0].rows].forEach((row, index) => row.classList.toggle('here', rows[index].type === type));
  byId('tensor').replaceChildren(make('h3', {}, tensor.name), make('dl', {}, ...facts.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)])), choices);
}

/** How the rounding of a tensor is compensated in what the map shows, and what that gains. */
function roundingOf(at) {
  if (!isCompensated(shown(), at)) return "llama-quantize's";
  return `compensated, KLD ${figure(stockDamage(at, typeIndex(shown(), at)))} without`;
}

const THEMES = ['auto', 'light', 'dark'];

function setTheme(theme) {
  byId('theme').textContent = `Theme: ${theme}`;
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

async function copy(button) {
  const code = byId(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = 'Copied';
  } catch { // not allowed in pages opened from a disk by some browsers: what is selected can be copied by hand
    getSelection().selectAllChildren(code);
    button.textContent = document.execCommand('copy') ? 'Copied' : 'Selected';
  }
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

function redrawChart() {
  markPlan = drawChart(chooseAndKeep);
  markPlan(plan());
}

function fromAddress() {
  const index = data.plans.findIndex(each => String(each.budget) === location.hash.slice(1));
  if (index >= 0) state.plan = index;
}

function start() {
  fromAddress();
  byId('size').addEventListener('input', event => choose(Number(event.target.value)));
  byId('size').addEventListener('change', keepAddress);
  byId('smaller').addEventListener('click', () => chooseAndKeep(state.plan - 1));
  byId('larger').addEventListener('click', () => chooseAndKeep(state.plan + 1));
  for (const stock of data.mixes) {
    byId('shown').append(make('option', { value: stock.name }, stock.name));
    if (planWithin(stock.bytes)) byId('like').append(make('option', { value: stock.name }, stock.name));
  }
  byId('like').addEventListener('change', event => {
    const stock = data.mixes.find(each => each.name === event.target.value);
    if (stock) chooseAndKeep(data.plans.indexOf(planWithin(stock.bytes)));
  });
  for (const [name, measure] of Object.entries(measures)) byId('colour').append(make('option', { value: name }, measure.title));
  byId('shown').addEventListener('change', event => { state.shown = event.target.value; repaint(); });
  byId('colour').addEventListener('change', event => { state.colour = event.target.value; repaint(); });
  byId('theme').addEventListener('click', () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? 'auto') + 1) % 3]));
  document.querySelectorAll('[data-copy]').forEach(button => button.addEventListener('click', () => copy(button)));
  document.querySelectorAll('table.sortable').forEach(makeSortable);
  cells = buildMap(look, keep);
  chartLegend();
  byId('mixes').append(stockQuantsTable(chooseAndKeep));
  lazily('statistics', statisticsTable);
  lazily('every-plan', () => plansTable(chooseAndKeep));
  redrawChart();
  byId('size').value = state.plan;
  showPlan();
  let width = byId('chart').clientWidth;
  new ResizeObserver(() => {
    if (byId('chart').clientWidth !== width) { width = byId('chart').clientWidth; redrawChart(); }
  }).observe(byId('chart'));
  document.documentElement.dataset.readyAfter = Math.round(performance.now()); // ms since the page was asked for
}

start();
