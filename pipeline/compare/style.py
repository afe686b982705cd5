"""The page's stylesheet, for light and dark mode, narrow screens and print."""

from __future__ import annotations

from collections.abc import Iterable

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #1f2328; --soft: #5f666f; --rule: #e3e0d8; --grid: #eeebe4;
  --good: #2e7d4f; --good-soft: #2e7d4f1c; --bad: #c2332d; --bad-soft: #c2332d22; --wait: #9a6b00;
  --c0: #2f69b3; --c1: #d17a1d; --c2: #7a53b3; --c3: #148a8f; --c4: #c0507f; --c5: #77701d; --c6: #5a6673;
  --c7: #8d5a3a;
  --e0: #2f69b3; --e1: #d9843b; --e2: #4c9f70; --e3: #b8a06a; --e4: #8e6bbf; --e5: #5a6673;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14161a; --card: #1b1e23; --ink: #e7e5df; --soft: #9aa1ab; --rule: #30343b; --grid: #262a30;
  --good: #5cc38a; --good-soft: #5cc38a1f; --bad: #f0716a; --bad-soft: #f0716a2e; --wait: #e0b04a;
  --c0: #6ea6ee; --c1: #f0a04b; --c2: #b694ec; --c3: #4fc3c7; --c4: #ec8ab4; --c5: #c4bb55; --c6: #a3afbc;
  --c7: #cf9a78;
  --e0: #5b93dd; --e1: #e39a5b; --e2: #66b98b; --e3: #cbb682; --e4: #a98adb; --e5: #a3afbc;
} }
@media print { :root {
  color-scheme: light;
  --paper: #fff; --card: #fff; --ink: #111; --soft: #444; --rule: #bbb; --grid: #e4e4e4;
  --good: #1d6b3f; --good-soft: #1d6b3f1c; --bad: #b3201a; --bad-soft: #b3201a22; --wait: #7a5500;
  --c0: #2f69b3; --c1: #b96408; --c2: #7a53b3; --c3: #0f7a7f; --c4: #b0406f; --c5: #6a6410; --c6: #4a5663;
  --c7: #7d4a2a;
  --e0: #2f69b3; --e1: #d9843b; --e2: #4c9f70; --e3: #b8a06a; --e4: #8e6bbf; --e5: #5a6673;
} }
* { box-sizing: border-box; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 28px 72px; }
header p, section > p { max-width: 74ch; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.015em; text-wrap: balance; }
h2 { font-size: 19px; margin: 52px 0 6px; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 0; }
p { margin: 4px 0 12px; }
.soft, figcaption, .note { color: var(--soft); }
.note, figcaption { font-size: 13px; max-width: 90ch; }
.eyebrow { color: var(--soft); font-size: 13px; margin-bottom: 14px; }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.lead { font-size: 17px; margin: 14px 0 22px; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); background: var(--card);
  border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.facts div { padding: 12px 16px; box-shadow: 0 0 0 .5px var(--rule); }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-size: 20px; font-weight: 600; letter-spacing: -.01em; overflow-wrap: anywhere; }
.facts dd small { display: block; font-size: 13px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: 13px; white-space: nowrap; vertical-align: bottom; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.total td { font-weight: 600; border-bottom: 0; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 13px; margin: 6px 0 4px; padding: 0;
  list-style: none; }
.legend label { cursor: pointer; display: block; position: relative; }
.legend input { position: absolute; opacity: 0; margin: 0; width: 100%; height: 100%; cursor: pointer; }
.legend input:focus-visible ~ span { outline: 2px solid var(--soft); outline-offset: 2px; }
.legend input:not(:checked) ~ span { opacity: .45; text-decoration: line-through; }
.tip { position: fixed; z-index: 2; pointer-events: none; white-space: pre-line; max-width: 260px; padding: 5px 9px;
  background: var(--card); color: var(--ink); border: 1px solid var(--rule); border-radius: 6px; font-size: 13px;
  line-height: 1.35; box-shadow: 0 2px 8px #0003; }
.tip:empty { display: none; }
.hover { fill: none; stroke: var(--ink); stroke-width: 1.5; pointer-events: none; }
.live { border-left: 3px solid var(--wait); padding: 2px 0 2px 12px; margin: 0 0 18px; font-size: 13px; }
.two, .three { display: grid; gap: 18px 28px; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.two.some { grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); }
.three { grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); }
figure { margin: 0; min-width: 0; overflow-x: auto; } figure.failing { overflow: visible; }
 figcaption { margin-top: 2px; }
.card { background: var(--card); border: 1px solid var(--rule); border-left: 4px solid var(--edge, var(--rule));
  border-radius: 10px; padding: 18px 22px 20px; margin: 16px 0; }
.card .head { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 24px; align-items: baseline; }
.card .evidence { margin: 4px 0 14px; }
.failing { outline: 1.5px solid var(--bad); outline-offset: 7px; border-radius: 3px; }
svg { display: block; width: 100%; height: auto; }
svg.chart text { font: 12px system-ui, "Segoe UI", Roboto, sans-serif; fill: var(--soft);
  font-variant-numeric: tabular-nums; }
svg.chart text.title { fill: var(--ink); font-size: 13px; font-weight: 600; }
svg.chart text.word { fill: var(--ink); }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); stroke-opacity: .5; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.normal { fill: var(--good-soft); } .limit { stroke: var(--bad); stroke-dasharray: 4 3; stroke-opacity: .8; }
.failure { fill: var(--bad-soft); } .cross { stroke: var(--bad); stroke-width: 2.4; fill: none; stroke-linecap: round; }
.random { fill: var(--soft); fill-opacity: .16; }
.random-line { stroke: var(--soft); stroke-dasharray: 2 3; fill: none; }
.phase { fill: var(--ink); fill-opacity: .45; width: 1px; }
.whisker { stroke: var(--ink); stroke-width: 2; fill: none; stroke-linecap: round; }
.line.again { stroke-dasharray: 6 3; } .odd { fill: var(--bad); }
.swatch.again { background: repeating-linear-gradient(90deg, var(--of) 0 4px, transparent 4px 6px) !important; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace;
  background: var(--paper); border: 1px solid var(--rule); border-radius: 6px; padding: 6px 10px; margin: 0 0 12px;
  max-height: 9.5em; overflow-y: auto; }
.dot.settled { fill: var(--good); } a { color: inherit; text-underline-offset: 3px; }
.dot { stroke: var(--card); stroke-width: 1.5; }
.timeline { position: relative; margin: 14px 0 4px; }
.timeline .lane { display: grid; grid-template-columns: 170px 1fr; align-items: center; height: 54px; }
.timeline .lane > span { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; line-height: 1.25; }
.timeline .lane small { display: block; }
.timeline small { font-size: 12.5px; }
.timeline .track { position: relative; height: 100%; border-left: 1px solid var(--rule); }
.timeline .bar { position: absolute; top: 13px; height: 16px; border-radius: 4px; min-width: 4px; overflow: hidden; }
.timeline .bar i { position: absolute; inset: 0 0 0 auto;
  background: repeating-linear-gradient(135deg, #fff8 0 3px, transparent 3px 7px); }
.timeline .said { position: absolute; top: 30px; font-size: 12.5px; color: var(--soft); white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; max-width: 100%; }
.timeline .said span { background: var(--paper); position: relative; z-index: 1; padding-right: 3px; }
.timeline .links { position: absolute; left: 170px; right: 0; top: 0; width: calc(100% - 170px); pointer-events: none; }
.timeline .links path { fill: none; stroke: var(--soft); stroke-width: 1.4; vector-effect: non-scaling-stroke;
  stroke-dasharray: 2 3; }
.timeline .scale { margin-left: 170px; position: relative; height: 22px; border-top: 1px solid var(--rule);
  font-size: 12.5px; color: var(--soft); white-space: nowrap; }
.timeline .scale b { position: absolute; font-weight: 400; transform: translateX(-50%); top: 3px; }
.timeline .scale b:first-child { transform: none; } .timeline .scale b:last-child { transform: translateX(-100%); }
table.heat { font-size: 13px; margin-top: 4px; } table.heat th { padding: 2px 6px 4px 0; font-size: 12px; }
table.heat td { border: 2px solid var(--card); padding: 3px 8px; text-align: right; border-radius: 5px; }
table.heat td:first-child, table.heat th:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
table.heat th { white-space: normal; line-height: 1.2; } table.heat .swatch { margin-right: 6px; }
.heat-title { font-size: 13px; font-weight: 600; }
.parts { display: flex; height: 10px; border-radius: 3px; overflow: hidden; min-width: 110px; margin-top: 6px; }
.moment { background: #14161a; border-radius: 10px; padding: 14px; margin-top: 8px; }
img { max-width: 100%; border-radius: 10px; margin-top: 8px; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--rule); color: var(--soft); font-size: 13px; }
@media (max-width: 640px) {
  main { padding: 24px 16px 48px; } h1 { font-size: 24px; } .lead { font-size: 16px; }
  .card { padding: 14px 14px 16px; }
  .timeline .lane { grid-template-columns: 104px 1fr; } .timeline .links { left: 104px; width: calc(100% - 104px); }
  .timeline .scale { margin-left: 104px; } .facts { grid-template-columns: 1fr 1fr; }
}
@media print {
  @page { size: A4; margin: 13mm; }
  .tip, .hover { display: none; }
  main { max-width: none; padding: 0; } body { font-size: 12px; } h2 { margin-top: 28px; } h1 { font-size: 24px; }
  table { font-size: 11.5px; } .card { padding: 12px 14px; } .scroll { overflow: visible; }
  .three { grid-template-columns: repeat(3, 1fr); gap: 12px 18px; } .two { grid-template-columns: 1fr 1fr; }
  .card, figure, .timeline, tr { break-inside: avoid; } h2 { break-after: avoid; }
  .facts { grid-template-columns: repeat(5, 1fr); } .facts dd { font-size: 15px; }
  .facts dt, .facts dd small { font-size: 10.5px; }
  table.heat, table.heat th { font-size: 9px; } table.heat td { padding: 2px 4px; border-width: 1px; }
  .heat-title { font-size: 11px; }
}
"""

COLOURS = 8
"""Number of colours for rungs, --c0 … --c7. Those for experts are --e0 … --e5. Both repeat when they are used up."""
EXPERT_COLOURS = 6


def hides(kinds: Iterable[str]) -> str:
    """The rules by which a legend's entry hides, when it is not checked, what has its CSS class in its section."""
    return "".join(
        f"section:has(.legend [value={each}]:not(:checked)) .{each} {{ display: none; }}\n" for each in kinds
    )


STYLE += "".join(
    f".line.c{k} {{ stroke: var(--c{k}); }} .dot.c{k} {{ fill: var(--c{k}); }}\n" for k in range(COLOURS)
) + "".join(f".fill.e{k} {{ fill: var(--e{k}); fill-opacity: .85; }}\n" for k in range(EXPERT_COLOURS))
