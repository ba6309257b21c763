"""The report's style sheet: system fonts, one column on a phone, light and dark by the reader's setting."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1b1d21; --muted: #666c76; --line: #e3e4e1; --grid: #ecedea;
  --v1: #2b67d1; --v2: #0e8a6a; --base: #9aa0a8; --warn: #b3541e; --good: #0e8a6a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121316; --card: #1a1c20; --ink: #e9eaec; --muted: #9aa1ac; --line: #2c2f35; --grid: #25282d;
    --v1: #7aaaff; --v2: #4fcfa6; --base: #767d88; --warn: #f0a06c; --good: #4fcfa6;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
}
main { max-width: 1040px; margin: 0 auto; padding: 40px 20px 64px; }
header p, .note, figcaption, dt, th, footer { color: var(--muted); }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 6px; }
h2 { font-size: 20px; letter-spacing: -0.01em; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 0 0 8px; font-weight: 600; }
p { margin: 0 0 12px; max-width: 68ch; }
.note { font-size: 14px; max-width: 80ch; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 24px; margin-top: 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.tile b { display: block; font-size: 25px; line-height: 1.2; white-space: nowrap; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 13px; color: var(--muted); }
.tile.good b { color: var(--good); } .tile.bad b { color: var(--warn); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 28px; margin-top: 16px; }
p.after { margin: 20px 0 -8px; }
figure { margin: 0; }
figcaption { font-size: 13px; margin-top: 6px; }
img { display: block; width: 100%; height: auto; border-radius: 8px; background: var(--grid); }
.scroll { overflow-x: auto; margin-top: 16px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; } tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr.total td { font-weight: 600; }
td.text, th.text { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 12px 0 0; font-size: 14px; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
details { margin-top: 16px; font-size: 14px; } summary { cursor: pointer; color: var(--muted); }
ol.commands { padding-left: 22px; } ol.commands li { margin-bottom: 6px; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; background: currentColor; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { font-size: 12px; fill: var(--muted); font-variant-numeric: tabular-nums; }
.chart text.strong { fill: var(--ink); } .chart text.name { font-weight: 600; } .chart text.limit { fill: var(--warn); }
.chart .grid { stroke: var(--grid); stroke-width: 1; } .chart .axis { stroke: var(--line); stroke-width: 1; }
.chart .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
.chart .whisker { stroke-width: 2; } .chart .bar { opacity: 0.16; } .chart .bar.solid { opacity: 0.85; }
.chart line.limit { stroke: var(--warn); stroke-width: 1.5; stroke-dasharray: 4 3; }
.v1 { color: var(--v1); } .v2 { color: var(--v2); } .base { color: var(--base); }
.chart .line, .chart .whisker { stroke: currentColor; } .chart .dot, .chart .bar, .chart text.name { fill: currentColor; }
footer { font-size: 13px; margin-top: 24px; }
@media (max-width: 560px) {
  main { padding: 24px 12px 40px; } section { padding: 18px 14px; } h1 { font-size: 27px; }
  .tiles { grid-template-columns: 1fr 1fr; } .tile b { font-size: 22px; }
}
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""
