"""The page, as a person sees it: in real Chromium, light and dark, wide and narrow, and on paper."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import subprocess
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline.compare.command import compare, show, write_page
from pipeline.compare.from_store import read
from pipeline.compare.live import note
from pipeline.tracking.artifacts import ATTENTION
from pipeline.tracking.store import Store
from tests.compare.conftest import BEGINS_TO_FAIL
from tests.end_to_end.test_ui import CHROMIUM, FLAGS

Nights = tuple[Store, dict[str, tuple[str, list[str]]]]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
MOMENT = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text>a moment</text></svg>'
LOOK = """
<script>
const seen = {width: innerWidth, scroll: document.documentElement.scrollWidth,
  low: [], over: [], charts: 0, blank: 0};
const rgb = text => { const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  c.fillStyle = text; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
const linear = v => v <= 10 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => [r, g, b].map(linear)
  .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
const behind = node => { for (; node; node = node.parentElement) {
  const c = getComputedStyle(node).backgroundColor; if (rgb(c)[3] > 200) return rgb(c); } return [255, 255, 255]; };
const words = 'h1, h2, h3, p, td, th, dt, dd, small, li, figcaption, b, svg.chart text';
for (const node of document.querySelectorAll(words)) {
  const style = getComputedStyle(node), box = node.getBoundingClientRect();
  const colour = node.tagName === 'text' ? style.fill : style.color;
  const [a, b] = [light(rgb(colour)), light(behind(node))].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < 4.5) seen.low.push([node.textContent.slice(0, 40), colour, (a + .05) / (b + .05)]);
  if (node.tagName === 'text' && box.width) seen.smallest = Math.min(seen.smallest ?? 99, box.height);
  if (!node.closest('.scroll, svg') && box.right > innerWidth + 1) seen.over.push(node.textContent.slice(0, 40));
}
for (const chart of document.querySelectorAll('svg.chart')) {
  seen.charts++; if (!chart.querySelector('.line, .dot, .fill')) seen.blank++; }
seen.paper = rgb(getComputedStyle(document.body).backgroundColor);
document.title = 'SEEN' + JSON.stringify(seen);
</script>
"""


PLAY = """
<script>
const drawn = part => [...part.querySelectorAll('svg.chart .line')].filter(each => each.getClientRects().length).length;
const part = [...document.querySelectorAll('section')].filter(each => each.querySelector('.legend input')).at(-1);
const tip = document.querySelector('.tip'), seen = {before: drawn(part), idle: getComputedStyle(tip).display};
const chart = part.querySelector('svg.chart'), line = chart.querySelector('[data-y]');
const all = line.dataset.y.split(' '), middle = Math.floor(all.length / 2);
const [x, y] = line.getAttribute('points').split(' ')[middle].split(',').map(Number);
const point = kind => { const at = new DOMPoint(x, y).matrixTransform(chart.getScreenCTM());
  chart.dispatchEvent(new PointerEvent(kind, {clientX: at.x, clientY: at.y, bubbles: true})); };
point('pointermove');
const box = tip.getBoundingClientRect();
Object.assign(seen, {tip: tip.textContent, inside: box.left >= 0 && box.right <= innerWidth && box.width > 40,
  ring: chart.querySelectorAll('.hover').length, value: all[middle], step: line.dataset.x.split(' ')[middle],
  ink: getComputedStyle(tip).color, paper: getComputedStyle(tip).backgroundColor});
point('pointerleave');
seen.left = tip.textContent + chart.querySelectorAll('.hover').length;
const entry = part.querySelector('.legend input');
entry.click();
seen.hidden = drawn(part);
const [near] = [line.getClientRects().length];
seen.line = near;
point('pointermove');
seen.of_hidden = tip.textContent;
seen.others = drawn(document);
entry.click();
seen.after = drawn(part);
document.title = 'SEEN' + JSON.stringify(seen);
</script>
"""

ZOOM = """
<script>
const chart = [...document.querySelectorAll('svg.chart')].find(each => each.querySelectorAll('[data-y]').length > 1);
const seen = {whole: chart.querySelector('.plot').innerHTML};
const plot = () => chart.querySelector('.plot'), [x, width, y, height] =
  ['x', 'width', 'y', 'height'].map(each => Number(plot().getAttribute(each)));
const [x0, x1] = chart.dataset.span.split(' ').map(Number);
const point = (kind, share) => {
  const at = new DOMPoint(x + share * width, y + 20).matrixTransform(chart.getScreenCTM());
  chart.dispatchEvent(new PointerEvent(kind, {clientX: at.x, clientY: at.y, bubbles: true, isPrimary: true})); };
const drag = (from, to) => { point('pointerdown', from); point('pointermove', to); point('pointerup', to); };
const press = key => chart.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
drag(.5, .5);
seen.clicked = chart.range ?? null;
point('pointerdown', .5); point('pointermove', .75);
seen.picked = Number(chart.querySelector('.picked').getAttribute('width')) / width;
point('pointerup', .75);
const [from, to] = chart.range;
seen.range = chart.range.map(each => (each - x0) / (x1 - x0));
const numbers = (text, mark) => text.split(mark).map(Number);
const lines = [...chart.querySelectorAll('polyline[data-y]')].map(line => [numbers(line.dataset.x, ' '),
  line.getAttribute('points').split(' ').map(each => numbers(each, ','))]);
seen.places = Math.max(...lines.flatMap(([steps, at]) => at.map(([px], k) =>
  Math.abs(px - x - width * (steps[k] - from) / (to - from)))));
const inside = lines.flatMap(([steps, at]) => at.filter((_, k) => steps[k] >= from && steps[k] <= to)
  .map(([, py]) => (py - y) / height));
seen.highest = Math.min(...inside); seen.lowest = Math.max(...inside);
seen.clip = getComputedStyle(plot()).overflow;
const words = [...chart.querySelectorAll('.tick')];
seen.steps = words.filter(each => each.getAttribute('text-anchor') !== 'end' || each.textContent.includes('steps'))
  .map(each => each.textContent);
seen.levels = words.length - seen.steps.length;
point('pointermove', .5);
seen.tip = document.querySelector('.tip').textContent;
drag(.25, .75);
seen.further = (chart.range[1] - chart.range[0]) / (to - from);
press('-'); press('-'); press('-');
seen.out = chart.range;
press('+'); press('ArrowRight');
seen.keys = chart.range.map(each => (each - x0) / (x1 - x0));
seen.button = document.querySelectorAll('button.whole').length;
chart.dispatchEvent(new MouseEvent('dblclick', {bubbles: true}));
const drawn = text => text.replace(/<title>.*?<.title>| data-name="[^"]*"/g, '');
seen.reset = drawn(plot().innerHTML) === drawn(seen.whole);
seen.left = document.querySelectorAll('button.whole, .zoomed, .picked').length;
delete seen.whole;
document.title = 'SEEN' + JSON.stringify(seen);
</script>
"""
KEPT = """
<script>
const charts = [...document.querySelectorAll('svg.chart[data-span]')], box = document.querySelector('.metrics input');
if (!sessionStorage.getItem('again')) {
  sessionStorage.setItem('again', 'yes');
  box.click();
  charts[2].dispatchEvent(new KeyboardEvent('keydown', {key: '+', bubbles: true}));
  location.reload();
} else {
  const figures = [...box.closest('section').querySelectorAll('figure')];
  const gone = figures.filter(each => !each.getClientRects().length);
  const seen = {zoomed: charts.map((each, k) => each.range ? k : -1).filter(k => k >= 0), gone: gone.length,
    names: new Set(gone.map(each => each.querySelector('.title').textContent)).size, all: figures.length};
  document.title = 'SEEN' + JSON.stringify(seen);
}
</script>
"""
CHANGE = """
<script>
for (const box of document.querySelectorAll('.legend input[value=a0], .metrics input[value=m0]')) box.click();
for (const chart of document.querySelectorAll('svg.chart[data-span]'))
  chart.dispatchEvent(new KeyboardEvent('keydown', {key: '+', bubbles: true}));
const first = document.querySelector('polyline[data-y]'), at = first.getBoundingClientRect();
first.dispatchEvent(new PointerEvent('pointermove', {clientX: at.left, clientY: at.top, bubbles: true}));
</script>
"""
FRAME = """<!doctype html><title></title><iframe src="copy.html" style="border:0;width:{}px;height:1200px"></iframe>
<script>addEventListener('message', event => {{ document.title = event.data; }});</script>"""


@pytest.fixture(scope="module")
def page(nights: Nights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one experiment; the settled attempt of one has left a figure."""
    store, made = nights
    drawing = tmp_path_factory.mktemp("figure") / Path(ATTENTION).name
    drawing.write_text(MOMENT)
    store.log_file(made["second"][1][-1], drawing, str(Path(ATTENTION).parent))
    return write_page(read(store), store, tmp_path_factory.mktemp("page"))


def look(page: Path, folder: Path, width: int, *flags: str, script: str = LOOK) -> dict[str, Any]:
    """What a script sees in the page in real Chromium. A window has 500 pixels at least; a frame may have fewer."""
    copy = folder / "copy.html"
    if width < 500:
        frame = folder / "frame.html"
        frame.write_text(FRAME.format(width))
        script += "<script>parent.postMessage(document.title, '*')</script>"
        flags = (*flags, "--virtual-time-budget=5000")
    copy.write_text(page.read_text().replace("</body>", script + "</body>"))
    shown = copy if width >= 500 else frame
    command = [str(CHROMIUM), *FLAGS[:-2], f"--window-size={width},1200", "--dump-dom", f"--user-data-dir={folder}/p"]
    result = subprocess.run([*command, *flags, shown.as_uri()], capture_output=True, text=True, timeout=100, check=True)
    found = re.search(r"<title>SEEN(.*?)</title>", result.stdout)
    assert found, result.stdout[:500]
    return json.loads(html.unescape(found[1]))  # type: ignore[no-any-return]


@needs_chromium
@pytest.mark.parametrize(
    ("width", "flags", "dark"),
    [(1280, (), False), (1280, ("--blink-settings=preferredColorScheme=0",), True), (390, (), False)],
    ids=["light", "dark", "narrow"],
)
def test_page_is_legible(page: Path, tmp_path: Path, width: int, flags: tuple[str, ...], dark: bool) -> None:
    """Contrast of all words 4.5 : 1 as WCAG asks, nothing beyond the edge, no empty chart, no tiny letters."""
    seen = look(page, tmp_path, width, *flags)
    assert seen["low"] == []
    assert seen["over"] == [] and seen["scroll"] <= seen["width"]
    assert seen["charts"] > 20 and seen["blank"] == 0
    assert seen["smallest"] >= 9
    assert (sum(seen["paper"][:3]) < 150) == dark


@needs_chromium
@pytest.mark.parametrize(
    ("width", "flags"),
    [(1280, ()), (1280, ("--blink-settings=preferredColorScheme=0",)), (500, ())],
    ids=["light", "dark", "narrow"],
)
def test_values_are_shown_on_hovering_and_attempts_hide(
    page: Path, tmp_path: Path, width: int, flags: tuple[str, ...]
) -> None:
    seen = look(page, tmp_path, width, *flags, script=PLAY)
    assert seen["idle"] == "none" and seen["left"] == "0"
    assert seen["tip"].startswith(f"{seen['value']} at {int(seen['step']):,} ") and "\n" in seen["tip"]
    assert seen["inside"] and seen["ring"] == 1 and seen["ink"] != seen["paper"]
    assert seen["line"] == 0 and 0 < seen["hidden"] < seen["before"] == seen["after"]
    assert "attempt 0" not in seen["of_hidden"]
    assert seen["others"] > seen["hidden"]  # other sections have all of theirs


@needs_chromium
def test_a_range_is_zoomed(page: Path, tmp_path: Path) -> None:
    seen = look(page, tmp_path, 1280, script=ZOOM)
    assert seen["clicked"] is None and seen["picked"] == pytest.approx(0.25, abs=0.01)
    assert seen["range"] == pytest.approx([0.5, 0.75], abs=0.01) and seen["places"] < 0.1
    # The vertical axis is that of what is shown, with some room.
    assert 0 < seen["highest"] < 0.2 and 0.8 < seen["lowest"] < 1 and seen["clip"] == "hidden"
    assert len(seen["steps"]) >= 2 and seen["steps"][0].endswith("steps") and seen["levels"] >= 2
    assert " steps\n" in seen["tip"] and seen["further"] == pytest.approx(0.5, abs=0.01)
    assert seen["out"] is None and seen["keys"] == pytest.approx([0.375, 0.875], abs=0.01) and seen["button"] == 1
    assert seen["reset"] and seen["left"] == 0


@needs_chromium
def test_what_is_hidden_or_zoomed_stays_so_when_the_page_reloads(page: Path, tmp_path: Path) -> None:
    seen = look(page, tmp_path, 1280, "--virtual-time-budget=8000", script=KEPT)
    assert seen["zoomed"] == [2] and 1 < seen["gone"] < seen["all"] and seen["names"] == 1


SAID = """
<script>
document.title = 'SEEN' + JSON.stringify({line: document.querySelector('.live').textContent});
</script>
"""


@needs_chromium
@pytest.mark.parametrize("minutes", [0, 47], ids=["just written", "silent"])
def test_a_page_that_nobody_writes_any_more_says_so(page: Path, tmp_path: Path, minutes: int) -> None:
    written = datetime.now(UTC) - timedelta(minutes=minutes)
    live = tmp_path / "live.html"
    text = page.read_text().replace("<body>", "<body>" + note("parent", f"{written:%Y-%m-%d %H:%M:%S} UTC"))
    live.write_text(text)
    line = look(live, tmp_path, 1280, script=SAID)["line"]
    assert line.startswith("Perhaps not running any more." if minutes else "Running.") and f"{written:%H:%M:%S}" in line
    assert ("47 minutes ago" in line and "ladder status" in line) == bool(minutes)


def printed(page: Path, folder: Path) -> list[bytes]:
    """What each page of paper shows, by Chromium's drawing commands."""
    command = [str(CHROMIUM), *FLAGS[:-2], f"--user-data-dir={folder}/p", "--no-pdf-header-footer"]
    subprocess.run(
        [*command, f"--print-to-pdf={folder / 'page.pdf'}", page.as_uri()], capture_output=True, timeout=100, check=True
    )
    pdf = (folder / "page.pdf").read_bytes()
    streams = re.findall(rb"/FlateDecode.*?stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    drawn = [zlib.decompress(each) for each in streams]
    # Fonts and opacities have numbers in the order in which they first occur.
    return [re.sub(rb"/[FG]\d+ ", b"", each) for each in drawn if b" re\n" in each and b"BT\n" in each]


@needs_chromium
def test_paper_shows_everything(page: Path, tmp_path: Path) -> None:
    """Whatever is hidden or zoomed on the screen, and whether scripts run or not."""
    whole = printed(page, tmp_path)
    assert 2 <= len(whole) <= 12
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text().replace("</body>", CHANGE + "</body>"))
    assert printed(changed, tmp_path) == whole
    changed.write_text(re.sub("<script>.*</script>", "", page.read_text(), flags=re.DOTALL))
    assert printed(changed, tmp_path) == whole
    changed.write_text(page.read_text().replace('class="line c0"', 'class=""'))
    assert printed(changed, tmp_path) != whole


def test_page_needs_no_network(page: Path) -> None:
    text = page.read_text()
    assert re.findall("<script[^>]*>", text) == ["<script>"] and "@import" not in text and "<link" not in text
    script = text[text.index("<script>") :]
    assert not any(word in script for word in ("fetch(", "import", "http", "XMLHttp", "WebSocket", "eval"))
    sources = re.findall(r"""(?:src|href|xlink:href)\s*=\s*["']([^"']+)""", text) + re.findall(r"url\(([^)]+)\)", text)
    assert all(each.startswith(("#", "data:")) for each in sources), sources
    assert [each.name for each in page.parent.iterdir()] == ["compare.html"]


def test_page_says_what_happened(nights: Nights, page: Path) -> None:
    store, made = nights
    text = page.read_text()
    assert "night &lt;1&gt;, seed 2" in text and "night <1>" not in text
    night = read(store)
    for row in night.attempts.itertuples():
        assert f'id="{row.run_id}"' in text
    failed = night.verdicts[made["first"][1][0]].evidence[0]
    assert f"first at step {failed.onset_step:,}, certain at step {failed.detection_step:,}" in text
    assert failed.onset_step == 64 * BEGINS_TO_FAIL
    assert "phases.finetune.routing" in text and "policy.gat_frozen" in text
    assert text.count("Its policy is clearly better than random play") == 2 and "a moment" in text
    # The line of the failing metric, its window and its cross, once for each attempt that failed.
    assert text.count(' failing"') == text.count('class="failure"') == 3
    assert "<b>70%</b>" in text  # survival, when hit points are low


def test_a_page_of_what_has_hardly_begun(nights: Nights, tmp_path: Path) -> None:
    store, made = nights
    for name in ("running", "nothing"):
        text = write_page(read(store, [made[name][0]]), store, tmp_path / name).read_text()
        assert "Running" in text and "unfinished" in text


def test_table_on_the_terminal(nights: Nights, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store, made = nights
    compare(store, [made["first"][0], made["second"][0]], tmp_path, Console(width=200, highlight=False))
    said = capsys.readouterr().out
    assert "night <1> seed 1: healthy on softmax_only" in said.replace("\\[", "[")
    assert re.search(r"1 freeze_gat +expert collapse +episode 10 of attempt 0 +60", said)
    assert "expert_usage_excess 0.95" in said and "[7.0, 9.0]" in said
    assert "over 2 experiments" in said and "P(" not in said  # v3 was cut short each time
    assert (tmp_path / "compare.html").exists()


def test_table_shows_what_a_trainer_said_as_it_stands(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    store, made = nights
    night = read(store, [made["second"][0]])
    said = [r"no \[/INST\] marker", "[bold]", r"C:\[/x]\\"]
    for words in said:
        night.attempts.loc[0, "evidence"] = words
        show(night, Console(width=300, highlight=False), store.root)
        assert words in capsys.readouterr().out


def test_the_command_that_compares_older_experiments_names_all_and_the_root(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    store, made = nights
    newest = made["second"][0]
    night = dataclasses.replace(read(store, [newest]), older=("aaaaaaaa11", "bbbbbbbb22"))
    show(night, Console(width=300, highlight=False), store.root)
    said = capsys.readouterr().out
    assert "left out: 2 older experiments" in said
    assert f"ladder compare {newest[:8]} aaaaaaaa bbbbbbbb tracking.root={store.root}" in said


def test_other_metrics_than_the_monitored_ones_are_shown_as_evidence(nights: Nights) -> None:
    """A trainer of one's own, with a rule of its own metric: the chart is of that metric, with its threshold."""
    from pipeline.compare import charts
    from pipeline.health.verdict import Evidence

    store, made = nights
    night = read(store, [made["other"][0]], metrics=["learning_rate", "update"])
    evidence = Evidence(rule="mine", metric="update", values=(30.0,), threshold="> 25, 3 of 3", onset_step=64 * 26)
    drawn = charts.other_evidence(night, made["other"][1][0], evidence)
    assert drawn is not None and "update" in drawn and 'class="limit"' in drawn
    assert charts.other_evidence(night, made["other"][1][0], Evidence(rule="x", metric="gradient_norm")) is None


def test_lead_counts_the_policies_that_are_better_than_random(nights: Nights, tmp_path: Path) -> None:
    """The settled ones score about 20 and 26; random play is raised to 22."""
    store, _ = nights
    night = read(store)
    for random_high, says in ((9.0, '<b class="good">2</b>'), (22.0, '<b class="wait">1</b>')):
        night.experiments["random_high"] = random_high
        text = write_page(night, store, tmp_path).read_text()
        assert f'<b class="good">2 of 2</b> ended healthy, {says} with a policy clearly better than random' in text
    night.experiments[["random", "random_low", "random_high"]] = np.nan
    assert '<b class="good">2 of 2</b> ended healthy. Settled' in write_page(night, store, tmp_path).read_text()
