/** The look of a report, for light and dark screens and for paper. */
export const reportStyle = `
:root{color-scheme:light dark;--bg:#f7f6f2;--card:#fff;--ink:#1f2421;--soft:#5d655f;--rule:#e2e1da;--leaf:#2f7d5b;--leaf2:#2f7d5b22;--sun:#c77d1a;--sky:#4a7fb0;--bad:#b3402f;--code:#f1f0ea;--shadow:0 1px 2px #0000000d,0 6px 20px #0000000a}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e7e9e6;--soft:#9ba39d;--rule:#2c3237;--leaf:#5fc495;--leaf2:#5fc49522;--sun:#e6a94f;--sky:#7fb2e0;--bad:#ef8370;--code:#23282d;--shadow:none}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:36px 20px 60px}
h1{font-size:27px;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 12px}
h3{font-size:13px;margin:0 0 4px;color:var(--soft);font-weight:600}
.head{display:flex;gap:14px;align-items:center;flex-wrap:wrap}
.sub{color:var(--soft);margin:6px 0 24px;overflow-wrap:anywhere}
.pill{font-size:12px;font-weight:600;padding:3px 10px;border-radius:99px;background:var(--leaf2);color:var(--leaf)}
.pill.warn{background:color-mix(in srgb,var(--sun) 16%,transparent);color:var(--sun)}
.pill.bad{background:color-mix(in srgb,var(--bad) 16%,transparent);color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(136px,1fr));gap:12px;margin-bottom:16px}
.card,.tile{background:var(--card);border:1px solid var(--rule);border-radius:12px;box-shadow:var(--shadow)}
.tile{padding:12px 14px}
.tile b{display:block;white-space:nowrap;font-size:21px;font-weight:650;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tile span{color:var(--soft);font-size:13px}
.card{padding:20px;margin-bottom:16px}
.grid3{display:grid;grid-template-columns:repeat(auto-fit,minmax(290px,1fr));gap:16px;margin-bottom:16px}
.grid3 .card{margin:0;padding:16px}
.chart{display:block;width:100%;height:auto;overflow:visible}
.chart .grid{stroke:var(--rule);stroke-width:1}
.chart .tick{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
.chart path{fill:none;stroke-linejoin:round;stroke-linecap:round}
.chart .area{fill:var(--leaf2);stroke:none}
.chart .band{fill:var(--leaf);opacity:.13;stroke:none}
.chart .line{stroke:var(--leaf);stroke-width:2.2}
.chart .raw{stroke:var(--leaf);stroke-width:1;opacity:.38}
.chart .eval{stroke:var(--sun);stroke-width:1.6;stroke-dasharray:5 4}
.chart .mark{fill:var(--sun);stroke:var(--card);stroke-width:1.5}
.chart .dot{fill:var(--leaf)}
.chart .cursor line{stroke:var(--soft);stroke-dasharray:2 3}
.chart .cursor circle{fill:var(--card);stroke:var(--leaf);stroke-width:2}
.top{display:flex;justify-content:space-between;align-items:baseline;gap:12px;flex-wrap:wrap}
.legend{color:var(--soft);font-size:13px}
.legend i{display:inline-block;width:16px;height:0;border-top:2px solid var(--leaf);vertical-align:middle;margin:0 5px 0 12px}
.legend i.b{height:10px;border:0;background:var(--leaf);opacity:.2}.legend i.r{border-top-width:1px;opacity:.5}.legend i.e{border-top:2px dashed var(--sun)}
.chart .s0{fill:var(--leaf)}.chart .s1{fill:var(--sun)}.chart .s2{fill:var(--sky)}.chart .s3{fill:var(--rule)}
.legend i.s0,.legend i.s1,.legend i.s2,.legend i.s3{height:10px;width:10px;border:0;border-radius:2px}.legend i.s0{background:var(--leaf)}.legend i.s1{background:var(--sun)}.legend i.s2{background:var(--sky)}.legend i.s3{background:var(--rule)}
.reading{color:var(--soft);font-size:13px;font-variant-numeric:tabular-nums;min-height:1.5em}
.sample{padding:14px 0;border-top:1px solid var(--rule)}.sample:first-of-type{border:0;padding-top:0}
.sample q{font-weight:600;quotes:none}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:12px;margin-top:8px}
.answer{background:var(--code);border-radius:8px;padding:10px 12px;white-space:pre-wrap;overflow-wrap:anywhere}
.answer.after{box-shadow:inset 3px 0 0 var(--leaf)}
.answer small{display:block;color:var(--soft);font-weight:600;margin-bottom:2px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-size:12.5px;color:var(--soft);font-weight:600;text-align:left;padding:4px 12px 6px 0}
td{padding:6px 12px 6px 0;border-top:1px solid var(--rule);vertical-align:top;overflow-wrap:anywhere}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--code);padding:1px 5px;border-radius:5px;overflow-wrap:anywhere}
tr.changed td:nth-child(2) code{background:var(--leaf2);font-weight:650}
td:first-child,td.n code{white-space:nowrap}
.ok{color:var(--leaf);font-weight:600}
.none,footer{color:var(--soft)}
footer{font-size:13px;margin-top:28px;overflow-wrap:anywhere}
details.card>summary{margin:0;color:var(--ink);font-weight:700;font-size:17px}details.card>div{margin-top:14px}details.card .card{box-shadow:none}
details>summary{cursor:pointer;color:var(--soft);margin-top:10px}
@media(max-width:640px){.pair{grid-template-columns:1fr}main{padding:22px 14px}}
@media print{body{background:#fff}.card,.tile{box-shadow:none;break-inside:avoid}}
`

/** Shows the value under the pointer. */
export const reportScript = `
for(const svg of document.querySelectorAll("svg.chart")){
const rows=JSON.parse(svg.dataset.readings),g=svg.querySelector(".cursor"),out=svg.parentElement.querySelector(".reading");
if(!rows.length)continue;
svg.addEventListener("pointermove",e=>{
const box=svg.getBoundingClientRect(),x=(e.clientX-box.left)*svg.viewBox.baseVal.width/box.width;
let best=rows[0];for(const r of rows)if(Math.abs(r[0]-x)<Math.abs(best[0]-x))best=r;
g.setAttribute("visibility","visible");
const l=g.children[0],c=g.children[1];l.setAttribute("x1",best[0]);l.setAttribute("x2",best[0]);c.setAttribute("cx",best[0]);c.setAttribute("cy",best[1]);
if(out)out.textContent="step "+best[2].toLocaleString("en-US")+": "+best[3];
});
svg.addEventListener("pointerleave",()=>{g.setAttribute("visibility","hidden");if(out)out.textContent=""});
}
`
