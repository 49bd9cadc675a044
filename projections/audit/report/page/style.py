"""The page's style sheet: by day, in the dark, and on paper. Every text has a contrast of 4.5 or more (WCAG 2 AA)."""

from typing import Final

STYLE: Final = """
:root{--ink:#16202c;--soft:#4d5b6b;--paper:#fff;--wash:#f5f7f9;--rule:#d8dee5;--link:#0b57a4;
--violation:#b3261e;--denied:#8a6500;--indeterminate:#63708a;--compliant:#1a7f5a;--allowed:#5ba98c;--later:#6d3fb0;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;color-scheme:light}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#a5b1bf;--paper:#12171e;--wash:#1a212b;--rule:#323d4b;
--link:#8cc1f5;--violation:#f2857d;--denied:#e3c25a;--indeterminate:#9aa9c4;--compliant:#5fc79c;--allowed:#3d8a6c;
--later:#c3a3f2;color-scheme:dark}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
.page{max-width:1040px;margin:0 auto;padding:40px 24px 64px}
.brand{margin:0;color:var(--soft);font-size:.85rem;letter-spacing:.04em}
h1{font-size:2rem;line-height:1.2;margin:.2em 0 .4em;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.35rem;margin:2.6em 0 .5em;padding-top:.7em;border-top:2px solid var(--ink)}
h3{font-size:1.05rem;margin:1.8em 0 .5em}h4,article h3{font-size:1rem;margin:0}
p{margin:.5em 0;max-width:75ch}
.lead{font-size:1.2rem;line-height:1.45}.note{color:var(--soft);font-size:.92rem}
a{color:var(--link)}:focus-visible{outline:3px solid var(--link);outline-offset:2px}
code,pre,.id{font-family:var(--mono);font-size:.86em;overflow-wrap:anywhere}
pre{margin:.4em 0;padding:.6em .8em;background:var(--wash);border:1px solid var(--rule);border-radius:4px;
white-space:pre-wrap;line-height:1.45}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25em 1.4em;margin:.8em 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:1.4em 0;padding:0;
list-style:none}
.tiles li{border:1px solid var(--rule);border-top:4px solid var(--rule);border-radius:4px;padding:.6em .8em}
.tiles b{display:block;font-size:1.6rem;line-height:1.2;font-variant-numeric:tabular-nums;font-weight:650}
.tiles span{color:var(--soft);font-size:.88rem}
li.violation{border-top-color:var(--violation)}li.denied{border-top-color:var(--denied)}
li.indeterminate{border-top-color:var(--indeterminate)}li.compliant{border-top-color:var(--compliant)}
li.allowed{border-top-color:var(--allowed)}li.later{border-top-color:var(--later)}
nav ul{display:flex;flex-wrap:wrap;gap:.2em 1.2em;padding:0;margin:1em 0 0;list-style:none;font-size:.95rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;margin:.6em 0}
caption{text-align:left;color:var(--soft);font-size:.9rem;padding-bottom:.4em}
th,td{text-align:left;vertical-align:baseline;padding:.36em .8em .36em 0;border-bottom:1px solid var(--rule)}
th{font-weight:600}thead th,thead td{border-bottom:1.5px solid var(--soft);white-space:nowrap}
tbody th{font-weight:400}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.id,th.id{overflow-wrap:anywhere;min-width:7em}th.code{white-space:nowrap}td.when{white-space:nowrap;font-variant-numeric:tabular-nums}
td.bar{width:26%;min-width:90px;padding-right:0}
svg{display:block;width:100%}svg.bar{height:11px}svg.share{height:18px;margin:1.2em 0 .4em}
svg.plot{height:auto;margin:.6em 0}svg text{fill:var(--soft);font:12px system-ui,Arial,"DejaVu Sans",sans-serif}
svg.plot rect,svg.bar rect{stroke:var(--paper);stroke-width:.6}
.grid{stroke:var(--rule);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}
rect.violation{fill:var(--violation)}rect.denied{fill:var(--denied)}rect.indeterminate{fill:var(--indeterminate)}
rect.compliant{fill:var(--compliant)}rect.allowed{fill:var(--allowed)}rect.later{fill:var(--later)}
.legend{display:flex;flex-wrap:wrap;gap:.2em 1.3em;padding:0;margin:.3em 0 .8em;list-style:none;font-size:.9rem;
color:var(--soft)}
.legend svg{display:inline-block;width:11px;height:11px;margin-right:.45em;vertical-align:-1px}
.verdict{font-weight:650}.verdict.violation{color:var(--violation)}.verdict.denied{color:var(--denied)}
.verdict.indeterminate{color:var(--indeterminate)}.verdict.compliant{color:var(--compliant)}
.verdict.allowed{color:var(--compliant)}
article{border:1px solid var(--rule);border-left:4px solid var(--violation);border-radius:4px;padding:.8em 1em;
margin:1em 0}
article.denied{border-left-color:var(--denied)}article.indeterminate{border-left-color:var(--indeterminate)}
article.compliant{border-left-color:var(--compliant)}article.allowed{border-left-color:var(--allowed)}
article.later{border-left-color:var(--later)}
article table{font-size:.88rem}article p{margin:.35em 0}
footer{margin-top:3em;padding-top:1em;border-top:1px solid var(--rule);color:var(--soft);font-size:.88rem}
@media (max-width:640px){.tiles{grid-template-columns:repeat(2,1fr)}.page{padding:24px 16px}}
@media print{
:root{--ink:#000;--soft:#404a55;--paper:#fff;--wash:#f3f4f6;--rule:#c3c9d0;--link:#000;--violation:#b3261e;
--denied:#8a6500;--indeterminate:#63708a;--compliant:#1a7f5a;--allowed:#5ba98c;--later:#6d3fb0;color-scheme:light}
@page{size:A4;margin:16mm 14mm 18mm}
html{font-size:9.2pt}body{font-size:1rem}td.when{white-space:normal}.page{max-width:none;padding:0}nav{display:none}
h2{break-after:avoid}h3,h4,caption{break-after:avoid}
tr,.tiles,svg.plot,.legend{break-inside:avoid}article{break-inside:auto}article header{break-after:avoid}
thead{display:table-header-group}.scroll{overflow:visible}
.tiles{gap:6px}.tiles b{font-size:13pt}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
a{text-decoration:none}}
"""
