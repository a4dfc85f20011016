import { statusOf, type Figure, type Line, type Report } from "./figures.ts"
import { barText, groupsOf, scoreText, short, spreadText, statusText, TITLES } from "./format.ts"
import { rooflineSvg } from "./roofline.ts"

const escape = (s: string): string =>
  s.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;")

const STYLE = `
body{font:15px/1.5 system-ui,sans-serif;color:#111827;background:#fff;max-width:1100px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem}h3{font-size:1rem;margin:1.4rem 0 .3rem}
table{border-collapse:collapse;width:100%;font-size:.86rem}th{text-align:left;font-weight:600;border-bottom:2px solid #d1d5db;padding:.25rem .5rem}
td{border-bottom:1px solid #e5e7eb;padding:.25rem .5rem;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.aim{background:#dcfce7}.must{background:#fef9c3}.below{background:#fee2e2}.missing{color:#6b7280}
.key span{display:inline-block;padding:.1rem .6rem;margin-right:.5rem;border-radius:.3rem}
details{margin:.3rem 0}summary{cursor:pointer}.meter{display:inline-block;width:80px;height:8px;background:#e5e7eb;border-radius:4px;margin-right:.4rem}
.meter i{display:block;height:8px;border-radius:4px;background:#2563eb}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:.9rem}dt{color:#6b7280}dd{margin:0}`

const row = (line: Line): string => {
  if ("missing" in line)
    return `<tr class="missing"><td>${escape(line.name)}</td><td colspan="5">${escape(line.missing)}</td></tr>`
  const share = line.scoreOf?.startsWith("of ") === true ? Math.max(0, Math.min(1, line.score ?? 0)) : undefined
  const meter =
    share === undefined ? "" : `<span class="meter"><i style="width:${(share * 80).toFixed(0)}px"></i></span>`
  const status = statusOf(line)
  return `<tr class="${status}"><td>${escape(line.name)}${line.note === undefined ? "" : `<br><small>${escape(line.note)}</small>`}</td><td class="n">${short(line.value.median)} ${escape(line.unit)}</td><td class="n">${spreadText(line)}</td><td>${meter}${escape(scoreText(line))}</td><td>${escape(barText(line))}</td><td>${statusText[status]}</td></tr>`
}

const HEAD = '<tr><th></th><th class="n">median</th><th class="n">spread</th><th>score</th><th>bar</th><th></th></tr>'

const section = (title: string, lines: readonly Line[]): string => {
  const groups = groupsOf(lines).map(({ group, lines: all, worst }) => {
    const table = `<table>${HEAD}${all.map(row).join("")}</table>`
    if (all[0]!.section !== "kernels" || all.length < 6 || worst === undefined || "missing" in worst)
      return `<h3>${escape(group)}</h3>${table}`
    return `<details class="${statusOf(worst)}"><summary>${escape(group)}: worst ${escape(scoreText(worst))} (${escape(worst.name)}) ${statusText[statusOf(worst)]}</summary>${table}</details>`
  })
  return `<h2>${escape(title)}</h2>${groups.join("")}`
}

/** A page that needs nothing else: machine, roofline, tables. */
export const reportHtml = (report: Report): string => {
  const { machine, lines } = report
  const sections = [...new Set(lines.map((l) => l.section))]
  const figures = lines.filter((l): l is Figure => !("missing" in l))
  const plot = rooflineSvg(machine, figures)
  const facts: readonly (readonly [string, string])[] = [
    ["processor", `${machine.processor}, ${machine.threads} threads, kernels for ${machine.isa}`],
    ["memory", `${(machine.memoryBytes / 2 ** 30).toFixed(1)} GiB`],
    ["system", `${machine.system}, ${machine.runtime}`],
    ["load at the start", machine.loadAtStart.map((l) => l.toFixed(2)).join(", ")],
    ["measured", `${report.started}, ${(report.seconds / 60).toFixed(1)} min, commit ${report.commit ?? "unknown"}`],
    ["command", report.command],
  ]
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>Sloth: measured</title><style>${STYLE}</style>
<h1>Sloth: measured</h1><p>Limits are measured beside every kernel, peers run in turn with Sloth in the same minutes; the middle of all samples is shown, with half the range.</p>
<dl>${facts.map(([k, v]) => `<dt>${k}</dt><dd>${escape(v)}</dd>`).join("")}</dl>
<p class="key"><span class="aim">aim reached</span><span class="must">bar reached</span><span class="below">below the bar</span></p>
${plot === "" ? "" : `<h2>Roofline</h2>${plot}`}
${sections
  .map((s) =>
    section(
      TITLES[s] ?? s,
      lines.filter((l) => l.section === s),
    ),
  )
  .join("\n")}
</html>
`
}
