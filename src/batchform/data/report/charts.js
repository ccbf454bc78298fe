"use strict";
/* Draws the page's charts from its figures. Text reaches the page as text nodes only; without this the tables say the same. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const states = { answered: "--answered", "in flight": "--at-work", pending: "--queued", failed: "--failed", absent: "--absent", gone: "--gone" };
  const jobStates = { collected: "--answered", "at work": "--at-work", unknown: "--failed" };
  const colours = (names, table) => ({ domain: names, range: names.map((n) => `var(${table[n] ?? "--c7"})`) });
  const sums = (rows, field, value) => d3.rollups(rows, (g) => d3.sum(g, (r) => r[value]), (r) => r[field]).sort((a, b) => b[1] - a[1]).map((g) => g[0]);
  const last = (specs) => specs.sort((a, b) => (a === "others") - (b === "others"));
  // A spec has the same colour in each chart: by spend, then by failures.
  const known = [...new Set([...sums(data.spend, "spec", "usd"), ...sums(data.failures, "spec", "rows")])].filter((s) => s !== "others");
  const ofSpec = Object.fromEntries(known.map((s, i) => [s, "--c" + Math.min(i, 7)]));
  const clock = (at) => (+d3.utcDay(at) === +at ? d3.utcFormat("%b %-d")(at) : d3.utcFormat("%H:%M")(at));
  const distinct = (rows, field) => [...new Set(rows.map((r) => r[field]))];
  const clip = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const size = (width) => ({ width, style: { fontSize: "12px", background: "none", overflow: "visible" } });
  const names = (width) => Math.min(180, Math.round(width * 0.3));
  const label = (width) => (text) => clip(text, Math.max(8, Math.floor(names(width) / 7)));
  const dollars = (usd) => "$" + d3.format(usd && usd < 0.01 ? ".2~r" : ",.2f")(usd);

  const charts = {
    spend(width) {
      const rows = data.spend.map((r) => ({ ...r, day: new Date(r.day + "T00:00Z") }));
      const step = { day: d3.utcDay, week: d3.utcMonday, month: d3.utcMonth }[data.period];
      const days = d3.extent(rows, (r) => r.day);
      const top = d3.max(d3.rollups(rows, (g) => d3.sum(g, (r) => r.usd), (r) => +r.day), (g) => g[1]);
      const near = data.limit !== null && data.limit <= top * 4; // a budget far above would flatten every bar
      const marks = [
        Plot.rectY(rows, { x: "day", y: "usd", fill: "spec", interval: step, order: "-sum", insetLeft: 1, insetRight: 1, title: (r) => `${r.spec}\n${dollars(r.usd)}` }),
        Plot.ruleY([0]),
      ];
      if (near) marks.push(Plot.ruleY([data.limit], { stroke: "var(--limit)", strokeWidth: 2, strokeDasharray: "6 4" }));
      return [Plot.plot({
        ...size(width), height: 260, marginLeft: 64, ariaLabel: `Spend per ${data.period}`, marks,
        x: { type: "utc", domain: [d3.utcDay.offset(days[0], -3), d3.utcDay.offset(step.offset(days[1], 1), 3)], label: null, ticks: Math.max(3, Math.floor(width / 110)) },
        y: { label: null, grid: true, ticks: 5, tickFormat: dollars, domain: [0, near ? Math.max(top, data.limit) * 1.05 : top * 1.05] },
        color: colours(last(sums(rows, "spec", "usd")), ofSpec),
      }), data.limit === null ? null : near ? `The dashed line is the budget of a day, ${dollars(data.limit)}.` : `The budget of a day, ${dollars(data.limit)}, is far above what the chart shows.`];
    },
    rows(width) {
      const specs = distinct(data.rows, "spec");
      return [Plot.plot({
        ...size(width), marginLeft: names(width), height: 52 + 26 * specs.length, ariaLabel: "Share of rows by state",
        x: { label: null, percent: true, tickFormat: (v) => `${v} %`, ticks: 5 },
        y: { label: null, domain: specs, tickFormat: label(width), tickSize: 0 }, color: colours(Object.keys(states).filter((s) => data.rows.some((r) => r.state === s)), states),
        marks: [Plot.barX(data.rows, Plot.stackX({ offset: "normalize", order: Object.keys(states), x: "rows", y: "spec", fill: "state", z: "state", insetTop: 3, insetBottom: 3, title: (r) => `${r.spec}: ${r.rows.toLocaleString("en")} ${r.state}` }))],
      })];
    },
    failures(width) {
      const kinds = sums(data.failures, "kind", "rows");
      const rows = data.failures.map((r) => ({ ...r, spec: known.indexOf(r.spec) < 7 ? r.spec : "others" }));
      return [Plot.plot({
        ...size(width), marginLeft: names(width), height: 52 + 28 * kinds.length, ariaLabel: "Failed rows by class",
        x: { label: null, grid: true, ticks: Math.max(2, Math.floor(width / 140)), tickFormat: (v) => (Number.isInteger(v) ? v.toLocaleString("en") : "") },
        y: { label: null, domain: kinds, tickFormat: label(width), tickSize: 0 }, color: colours(last(sums(rows, "spec", "rows")), ofSpec),
        marks: [Plot.barX(rows, Plot.groupY({ x: "sum" }, { x: "rows", y: "kind", fill: "spec", insetTop: 4, insetBottom: 4 })), Plot.ruleX([0])],
      })];
    },
    jobs(width) {
      const rows = data.jobs.map((r) => ({ ...r, from: new Date(r.from), to: new Date(r.to) }));
      const [from, to] = [d3.min(rows, (r) => r.from), d3.max(rows, (r) => r.to)];
      const least = Math.max((to - from) / 200, 1); // a short job is still to be seen
      const spec = new Map(rows.map((r) => [r.tag, r.spec]));
      return [Plot.plot({
        ...size(width), marginLeft: names(width), marginRight: 24, height: 56 + 20 * rows.length, ariaLabel: "Jobs from creation to end",
        x: { type: "utc", label: null, grid: true, domain: [from, Math.max(to, +from + 1000)], ticks: Math.max(2, Math.floor(width / 140)), tickFormat: to - from > 1000 * 600 ? clock : d3.utcFormat("%H:%M:%S") },
        y: { label: null, domain: rows.map((r) => r.tag), tickFormat: (tag) => label(width)(spec.get(tag)), tickSize: 0 },
        color: colours(Object.keys(jobStates).filter((s) => rows.some((r) => r.state === s)), jobStates),
        marks: [Plot.barX(rows, { y: "tag", x1: "from", x2: (r) => new Date(Math.max(r.to, +r.from + least)), fill: "state", rx: 2, insetTop: 3, insetBottom: 3, title: (r) => `${r.tag}\n${r.state}, ${r.took}` })],
      })];
    },
    latency(width) {
      const specs = distinct(data.took, "spec").slice(0, 40);
      const rows = data.took.filter((r) => specs.includes(r.spec)).map((r) => ({ ...r, minutes: Math.max(r.minutes, 1 / 60) }));
      const times = [1 / 60, 1 / 6, 1, 10, 60, 360, 1440, 4320];
      const words = new Map(times.map((t, i) => [t, ["1 s", "10 s", "1 min", "10 min", "1 h", "6 h", "1 d", "3 d"][i]]));
      const [least, most] = d3.extent(rows, (r) => r.minutes);
      const low = d3.max(times.filter((t) => t <= least)) ?? least, high = d3.min(times.filter((t) => t > most)) ?? most * 1.1;
      return [Plot.plot({
        ...size(width), marginLeft: names(width), marginRight: 24, height: 52 + 26 * specs.length, ariaLabel: "Minutes from a job's creation to its end",
        x: { type: "log", label: null, grid: true, domain: [low, high], ticks: times.filter((t) => t >= low && t <= high), tickFormat: (t) => words.get(t) ?? "" },
        y: { label: null, domain: specs, tickFormat: label(width), tickSize: 0 },
        marks: [Plot.dot(rows, { x: "minutes", y: "spec", r: 5, fill: "var(--at-work)", fillOpacity: 0.45, stroke: "var(--at-work)" })],
      })];
    },
  };

  const legend = (scale) => {
    const list = document.createElement("ul");
    list.className = "swatches";
    scale.domain.forEach((name, i) => {
      const item = document.createElement("li"), mark = document.createElement("i");
      mark.style.background = scale.range[i];
      item.append(mark, clip(name, 60));
      list.append(item);
    });
    return list;
  };
  const draw = (figure) => {
    figure.classList.add("drawn");
    const [svg, note] = charts[figure.dataset.chart](Math.floor(figure.clientWidth));
    svg.setAttribute("role", "img");
    figure.querySelectorAll(":scope > :not(figcaption)").forEach((old) => old.remove());
    const colour = svg.scale("color");
    if (colour && colour.domain.length > 1) figure.append(legend(colour));
    figure.append(svg);
    if (note) {
      const said = document.createElement("p");
      said.className = "none";
      said.append(note);
      figure.append(said);
    }
  };
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    draw(figure);
    let width = figure.clientWidth;
    new ResizeObserver(() => {
      if (figure.clientWidth !== width && figure.clientWidth > 0) draw(figure, (width = figure.clientWidth));
    }).observe(figure);
  }
  document.documentElement.dataset.ready = "yes";
})();
