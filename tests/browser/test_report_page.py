"""The report page in Chromium: real keys and clicks, real styles, no network."""

import json
import re

import pytest
from report_parts import made_up_data, types_of

from quantplan.report.page import page, write_page

HOSTILE = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"


@pytest.fixture(scope="module")
def data():
    return made_up_data(blocks=6, roles=7, budgets=9)


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(data, path)
    return path


@pytest.fixture
def shown(browser, path):
    """The page, freshly opened in a wide window; whatever it complains of fails the test."""
    browser.prefer("light")
    browser.open(path)
    yield browser
    assert browser.problems == []


def types_on_map(page):
    """{tensor: type} as the map says them to a screen reader."""
    labels = page.value(
        "[...document.querySelectorAll('.cell[tabindex]')].map(cell => cell.getAttribute('aria-label'))"
    )
    return dict(label.split(", ")[:2] for label in labels)


def test_nothing_is_asked_of_any_network(shown, path):
    assert shown.requests == [path.as_uri()]
    text = path.read_text(encoding="utf-8")
    assert not re.findall(
        r"""(?:src|href|action)\s*=\s*["']?(?!data:)[^"'\s>]""", text.partition('<script type="application')[0]
    )
    assert not re.findall(r"(?:@import|url\()", text)
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_the_page_forbids_itself_the_network(shown):
    assert shown.value("fetch('data:text/plain,x').then(() => 'fetched', () => 'refused')") == "refused"
    assert any("Content Security Policy" in each for each in shown.problems)
    shown.forget()


def test_it_opens_at_its_plan(shown, data):
    plan = data["plans"][data["opens_at"]]
    assert shown.value("document.getElementById('size').value") == str(data["opens_at"])
    assert f"{plan['bpw']:.3f}" in shown.text("#figures")
    assert types_on_map(shown) == types_of(data, plan)


def test_keys_move_the_slider_and_everything_follows(shown, data):
    shown.value("document.getElementById('size').focus()")
    for steps, key in ((2, "ArrowRight"), (3, "ArrowLeft")):
        before = int(shown.value("document.getElementById('size').value"))
        shown.press(key, steps)
        at = before + (steps if key == "ArrowRight" else -steps)
        plan = data["plans"][at]
        assert types_on_map(shown) == types_of(data, plan)
        assert f"{plan['bpw']:.3f}" in shown.text("#figures")
        assert f"{plan['bpw']:.3f}" in shown.value("document.getElementById('size').getAttribute('aria-valuetext')")
        assert shown.text("#command-quantplan") == plan["commands"]["quantplan"]
        assert shown.text("#command-tool") == plan["commands"]["llama-quantize"]
        assert shown.value("location.hash") == f"#{plan['budget']}"


def test_buttons_move_it_by_one_and_stop_at_the_ends(shown, data):
    shown.point("#larger", click=True)
    assert shown.value("document.getElementById('size').value") == str(data["opens_at"] + 1)
    shown.value("document.getElementById('size').focus()")
    shown.press("Home")
    assert shown.value("document.getElementById('smaller').disabled") is True
    assert types_on_map(shown) == types_of(data, data["plans"][0])


def test_an_address_names_a_plan(shown, path, data):
    shown.open(path, address=f"#{data['plans'][2]['budget']}")
    assert types_on_map(shown) == types_of(data, data["plans"][2])


def test_a_point_of_the_chart_leads_to_its_plan(shown, data):
    shown.point("#chart .stock[data-name=Q8_0]", click=True)
    size = next(stock_quant["bytes"] for stock_quant in data["mixes"] if stock_quant["name"] == "Q8_0")
    plan = [each for each in data["plans"] if each["bytes"] <= size][-1]
    assert types_on_map(shown) == types_of(data, plan)
    assert "Q8_0" in shown.text("#tip")


def test_a_stock_quant_without_a_price_or_a_plan_says_so(shown):
    row = shown.value("[...document.querySelectorAll('#mixes tbody tr')].map(row => row.textContent)")[0]
    assert "smaller than every plan" in row and "no sensitivity for IQ1_S" in row


def test_the_map_shows_a_stock_quant_too(shown, data):
    shown.value("(s => { s.value = 'Q8_0'; s.dispatchEvent(new Event('change')); })(document.getElementById('shown'))")
    assert set(types_on_map(shown).values()) == {"Q8_0"}


def test_the_mouse_tells_damage_and_bytes(shown, data):
    shown.point(".map .cell[tabindex]")
    tip = shown.text("#tip")
    name, kind = tip.split("\n")[0], tip.split("\n")[1].split(",")[0]
    at = [each["name"] for each in data["tensors"]].index(name)
    damage = data["damage"][at][[each["name"] for each in data["types"]].index(kind)]
    said = re.search(r"KLD (\S+)$", tip)[1]
    assert float(said) == pytest.approx(damage, rel=0.06)
    assert re.search(r"\d MB", tip) and name in shown.text("#tensor")


def test_arrow_keys_walk_over_the_map(shown):
    shown.value("document.querySelector('.map .cell[tabindex]').focus()")
    first = shown.text("#tensor h3")
    shown.press("ArrowRight", 2)
    shown.press("ArrowDown")
    assert shown.text("#tensor h3") == "blk.2.attn_k.weight" != first
    shown.press("Enter")
    assert shown.value("document.querySelectorAll('.kept').length") == 1


def test_colours_follow_the_measure(shown):
    colours = "[...document.querySelectorAll('.cell[tabindex]')].map(cell => cell.style.background).join()"
    before = shown.value(colours)
    for measure in ("damage", "zd", "cossim", "bits"):
        shown.value(
            f"(s => {{ s.value = '{measure}'; s.dispatchEvent(new Event('change')); }})(document.getElementById('colour'))"
        )
        now = shown.value(colours)
        assert (now == before) is (measure == "bits")


def test_tables_sort_by_value(shown):
    heading = "#mixes th:nth-child(2) button"
    column = "[...document.querySelectorAll('#mixes tbody tr')].map(row => Number(row.cells[1].dataset.value))"
    for order in (sorted, lambda values: sorted(values, reverse=True)):
        shown.point(heading, click=True)
        values = shown.value(column)
        assert values == order(values) and len(values) == 3
    assert shown.value("document.querySelector('#mixes th:nth-child(2)').getAttribute('aria-sort')") == "descending"


def test_statistics_are_made_when_they_are_opened(shown, data):
    assert shown.value("document.querySelectorAll('#statistics tbody tr').length") == 0
    shown.point("#statistics summary", click=True)
    shown.settle()
    assert shown.value("document.querySelectorAll('#statistics tbody tr').length") == len(data["statistics"]["rows"])


def test_copy_takes_the_command(shown):
    """Where the browser forbids it the command is selected, to be copied by hand."""
    shown.point("[data-copy=command-quantplan]", click=True)
    shown.settle()
    said, selected = shown.text("[data-copy=command-quantplan]"), shown.value("getSelection().toString()")
    assert said == "Copied" or (said == "Selected" and selected == shown.text("#command-quantplan"))


def test_light_dark_and_the_choice_between_them(shown, path):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert shown.value(ground) == "rgb(255, 255, 255)"
    shown.prefer("dark")
    dark = shown.value(ground)
    assert dark != "rgb(255, 255, 255)"
    shown.point("#theme", click=True)
    assert (shown.text("#theme"), shown.value(ground)) == ("Theme: light", "rgb(255, 255, 255)")
    shown.point("#theme", click=True)
    shown.prefer("light")
    assert (shown.text("#theme"), shown.value(ground)) == ("Theme: dark", dark)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(shown, scheme):
    """At least 4.5, as WCAG 2 asks of text of this size."""
    shown.prefer(scheme)
    style = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
    colours = {
        name: shown.value(style.format(name)) for name in ("ground", "raised", "text", "soft", "plan", "stock", "warn")
    }
    for ink, ground in (
        ("text", "ground"),
        ("soft", "ground"),
        ("soft", "raised"),
        ("stock", "ground"),
        ("plan", "ground"),
        ("text", "warn"),
    ):
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def test_cells_can_be_read(shown):
    cells = "[...document.querySelectorAll('.cell[tabindex]')].map(cell => getComputedStyle(cell))"
    pairs = shown.value(f"{cells}.map(style => [style.color, style.backgroundColor])")
    assert min(contrast(ink, ground) for ink, ground in pairs) >= 4.5


def luminance(colour):
    parts = (
        [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        if colour.startswith("#")
        else [int(each) for each in re.findall(r"\d+", colour)[:3]]
    )
    linear = [
        value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4
        for value in (each / 255 for each in parts)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [1400, 900, 400, 320])
def test_it_fits_the_chunk(shown, width):
    shown.resize(width)
    shown.settle()
    assert shown.value("document.documentElement.scrollWidth") <= width


def test_names_cannot_run(browser, tmp_path):
    fields = ("file", "name")
    row = {
        "file_bytes": 9,
        "bpw": 1.0,
        "bytes_per_token": 9,
        "ppl": 1.0,
        "ppl_err": 0.1,
        "kld": 0.1,
        "kld_err": 0.01,
        "kld_median": 0.1,
        "kld_p99": 0.1,
        "rms_dp": 1.0,
        "rms_dp_err": 0.1,
        "same_top": 90.0,
        "same_top_err": 1.0,
        "kld_ratio": None,
        "kld_ratio_low": 0.5,
        "kld_ratio_high": 1.0,
        "larger": False,
        "told_apart": True,
        "gaps": {"kld": {}},
        "average": None,
        "average_err": None,
        "model_digest": HOSTILE,
        "conditions": {
            "windows": 1,
            "n_ctx": 8,
            "text_digest": HOSTILE,
            "engine": HOSTILE,
            "base_digest": "",
            "cache_types": HOSTILE,
        },
    } | {field: HOSTILE for field in fields}
    odd = {"larger": True, "told_apart": False}
    data = made_up_data(name=HOSTILE, notes=(HOSTILE,))
    data["comparisons"] = [{"verdict": HOSTILE, "rows": [row, row | odd, row | {"gaps": {}}]}]
    assert "larger, not significant" in page(data) and "not comparable" in page(data)
    for each in data["tensors"][1:]:
        each["name"] += HOSTILE
        each["role"] += HOSTILE
    data["roles"] = [each + HOSTILE for each in data["roles"]]
    data["measurements"] = [row]
    data["provenance"].append([HOSTILE, HOSTILE])
    write_page(data, tmp_path / "hostile.html")
    browser.open(tmp_path / "hostile.html")
    browser.point(".map .cell[tabindex]")
    for selector in ("#statistics", "#every-plan", "#provenance"):
        browser.point(f"{selector} summary", click=True)
    browser.settle()
    assert browser.value("window.ran") is None
    assert browser.problems == [] and len(browser.requests) == 1
    assert browser.text("h1") == HOSTILE and HOSTILE in browser.text("#tensor") and HOSTILE in browser.text(".said")


def test_1100_tensors_and_100_budgets_open_in_a_moment(browser, tmp_path, pytestconfig):
    """The figure is shown; the limit is there for a page that hangs, the machine may be busy."""
    path = tmp_path / "large.html"
    write_page(made_up_data(blocks=61, roles=18, budgets=100), path)
    browser.open(path)
    drawn = browser.value("Number(document.documentElement.dataset.readyAfter)")
    loaded = browser.value("performance.getEntriesByType('navigation')[0].loadEventEnd")
    click = "(t => { document.getElementById('larger').click(); return performance.now() - t; })(performance.now())"
    moved = browser.value(click)
    words = f"1,100 tensors x 100 budgets: {path.stat().st_size / 1e6:.2f} MB, drawn after {drawn} ms, "
    words += f"loaded after {loaded:.0f} ms, a step of the slider takes {moved:.0f} ms"
    pytestconfig.get_terminal_writer().line(f"\n{words}")
    assert browser.problems == []
    assert 0 < drawn < 20_000


def test_an_uncalibrated_page_says_so(data):
    assert "For ranking only" not in page(data)
    assert "scales come from a prior" in page(data | {"calibrated": False, "scales": "prior"})
    assert "was imported" in page(data | {"calibrated": False, "scales": "imported"})


def test_the_data_can_be_taken_from_the_page(data, path):
    text = path.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(text) == data
