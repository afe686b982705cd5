"""The page, as a person sees it: in real Chromium, light and dark, wide and narrow, and on paper."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline.compare.command import compare, show, write_page
from pipeline.compare.from_store import read
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
  if ((a + .05) / (b + .05) < 4.4) seen.low.push([node.textContent.slice(0, 40), colour, (a + .05) / (b + .05)]);
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


@pytest.fixture(scope="module")
def page(nights: Nights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one experiment; the settled attempt of one has left a figure."""
    store, made = nights
    drawing = tmp_path_factory.mktemp("figure") / Path(ATTENTION).name
    drawing.write_text(MOMENT)
    store.log_file(made["second"][1][-1], drawing, str(Path(ATTENTION).parent))
    return write_page(read(store), store, tmp_path_factory.mktemp("page"))


def look(page: Path, folder: Path, width: int, *flags: str, script: str = LOOK) -> dict[str, Any]:
    """What a script sees in the page in real Chromium."""
    copy = folder / "copy.html"
    copy.write_text(page.read_text().replace("</body>", script + "</body>"))
    command = [str(CHROMIUM), *FLAGS[:-2], f"--window-size={width},1200", "--dump-dom", f"--user-data-dir={folder}/p"]
    result = subprocess.run([*command, *flags, copy.as_uri()], capture_output=True, text=True, timeout=100, check=True)
    found = re.search(r"<title>SEEN(.*?)</title>", result.stdout)
    assert found, result.stdout[:500]
    return json.loads(html.unescape(found[1]))  # type: ignore[no-any-return]


@needs_chromium
@pytest.mark.parametrize(
    ("width", "flags", "dark"),
    [(1280, (), False), (1280, ("--blink-settings=preferredColorScheme=0",), True), (500, (), False)],
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
def test_page_on_paper(page: Path, tmp_path: Path) -> None:
    command = [str(CHROMIUM), *FLAGS[:-2], f"--user-data-dir={tmp_path}/p", f"--print-to-pdf={tmp_path / 'page.pdf'}"]
    subprocess.run([*command, page.as_uri()], capture_output=True, timeout=100, check=True)
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 12


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
        show(night, Console(width=300, highlight=False))
        assert words in capsys.readouterr().out


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
