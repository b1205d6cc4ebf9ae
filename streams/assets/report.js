"use strict";
// Draws every plot of the report from the specification beside it, in the page's own colours, light or dark.
(function () {
  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }
  function theme() {
    var font = getComputedStyle(document.body).fontFamily;
    var text = { labelFont: font, titleFont: font, labelColor: colour("soft"), titleColor: colour("soft"), labelFontSize: 12,
                 titleFontSize: 12, titleFontWeight: "normal" };
    return {
      background: "transparent", font: font, view: { stroke: null },
      axis: Object.assign({ gridColor: colour("grid"), domainColor: colour("line"), tickColor: colour("line"), titlePadding: 8 }, text),
      legend: Object.assign({ orient: "top", title: null, symbolType: "stroke", symbolStrokeWidth: 3 }, text, { labelColor: colour("ink") }),
      header: Object.assign({}, text, { labelColor: colour("ink") }),
      range: { category: [0, 1, 2, 3, 4, 5].map(function (k) { return colour("c" + k); }) },
      rule: { color: colour("soft") }, line: { strokeWidth: 2 }, point: { filled: true, size: 45 }, bar: { color: colour("c0") }
    };
  }
  function draw() {
    document.querySelectorAll("[data-plot]").forEach(function (box) {
      var spec = JSON.parse(document.getElementById(box.dataset.plot).textContent);
      vegaEmbed(box, spec, { actions: false, renderer: "svg", config: theme(), tooltip: { theme: "custom" } })
        .catch(function (error) { box.textContent = "This plot could not be drawn (" + error + "); the table has its numbers."; });
    });
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
