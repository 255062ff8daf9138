"""The style of the report's page: light and dark, screen and print."""

STYLE = """
:root{color-scheme:light dark;--back:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#5a6370;--line:#d9dde3;--blue:#2463a6;
--pale:#a9b6c6;--red:#b3382f;--green:#1f7a47;--on:#fff}
@media(prefers-color-scheme:dark){:root{--back:#14171b;--card:#1d2127;--ink:#e8eaed;--soft:#a2abb8;--line:#353b44;
--blue:#6ea8e8;--pale:#5b6675;--red:#f0857b;--green:#6cc794;--on:#0f1216}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}h1{font-size:28px;margin:0 0 4px;line-height:1.2}
h2{font-size:19px;margin:44px 0 2px}.sub,.why{color:var(--soft);margin:0 0 14px;max-width:80ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:12px;margin-top:24px}
.tile{background:var(--card);border-left:4px solid var(--pale);border-radius:6px;padding:12px 14px}
.tile.met{border-color:var(--green)}.tile.missed{border-color:var(--red)}.name{color:var(--soft);font-size:13px}
.value{font-size:26px;font-weight:600;line-height:1.25;font-variant-numeric:tabular-nums}
.verdict{font-size:13px}.met .verdict{color:var(--green)}.missed .verdict{color:var(--red)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;margin:6px 0}
th{text-align:left;font-weight:600;color:var(--soft);border-bottom:1px solid var(--line);padding:5px 18px 5px 0}
td{padding:5px 18px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
.figures td:nth-child(n+2),.figures th:nth-child(n+2){text-align:right;font-variant-numeric:tabular-nums}
.errors td:last-child{overflow-wrap:anywhere;min-width:320px}.errors td:not(:last-child){white-space:nowrap}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px 32px;align-items:start}
.trio{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:12px 24px;align-items:start}
.columns{columns:420px 2;column-gap:32px}.columns figure{break-inside:avoid;margin:0 0 22px}
figure{margin:8px 0}figcaption{font-weight:600;font-size:14px;margin-bottom:4px}summary{cursor:pointer;color:var(--blue)}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:13px system-ui,sans-serif;unicode-bidi:isolate}
svg .tick,svg .axis,svg .share{fill:var(--soft);font-size:11px}svg .note{font-variant-numeric:tabular-nums}
svg .count{font-weight:600}svg .strong{fill:var(--on)}.grid{stroke:var(--line)}.diagonal{stroke:var(--soft);stroke-dasharray:5 4}
.bar,.hit,.point,.dot{fill:var(--blue)}.other,.crowd{fill:var(--pale)}.crowd{opacity:.45}.miss{fill:var(--red)}
.point{stroke:var(--back)}.faint{opacity:.45}.gap{stroke:var(--blue);opacity:.5}.whisker{stroke:var(--ink);stroke-width:1.5}
.range{stroke:var(--blue);stroke-width:3;opacity:.45}
@media print{main{max-width:none;padding:0}section{break-inside:avoid-page}.tile,rect{print-color-adjust:exact}h2{margin-top:26px}}
"""
