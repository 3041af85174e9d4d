"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Set();

  // A chart is drawn when it can first be seen: what is hidden has no width to be as wide as.
  const draw = (place) => {
    const id = place.id.slice("chart-".length);
    if (drawn.has(id) || !place.clientWidth) return;
    drawn.add(id);
    // `ast`: expressions are interpreted, so that the page needs no permission to evaluate text as code.
    vegaEmbed(place, specs[id], { renderer: "svg", actions: false, ast: true, defaultStyle: false })
      .then(() => { place.dataset.drawn = "yes"; });
  };
  const drawAll = () => document.querySelectorAll(".chart").forEach(draw);
  document.querySelectorAll("details").forEach((one) => one.addEventListener("toggle", drawAll));

  document.querySelectorAll(".choice input").forEach((input) => input.addEventListener("change", () => {
    input.closest("fieldset").querySelectorAll("input").forEach((other) => {
      document.getElementById(`panel-${other.value}`).hidden = !other.checked;
    });
    drawAll();
    window.dispatchEvent(new Event("resize"));
  }));

  const filters = document.getElementById("filters");
  if (filters) {
    const cases = [...document.querySelectorAll(".case")];
    const texts = new Map(cases.map((one) => [one, one.textContent.toLowerCase()]));
    const more = document.getElementById("show-more");
    let most = 6;
    const value = (id) => document.getElementById(id).value;
    const show = () => {
      const words = value("by-text").toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const one of cases) {
        const fits = ["effect", "cause", "task"].every((name) => !value(`by-${name}`) || one.dataset[name] === value(`by-${name}`))
          && words.every((word) => texts.get(one).includes(word));
        count += fits ? 1 : 0;
        one.hidden = !fits || count > most;
      }
      more.hidden = count <= most;
      more.textContent = `Show all ${count}`;
      document.getElementById("found").textContent = `${count} of ${cases.length} questions`;
      document.getElementById("none-found").hidden = count > 0;
    };
    filters.addEventListener("input", show);
    filters.addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("show-all").addEventListener("click", () => { filters.reset(); show(); });
    more.addEventListener("click", () => { most = Infinity; show(); });
    window.addEventListener("beforeprint", () => { most = Infinity; show(); });
    show(); // a browser may keep what was chosen before a reload
  }
  drawAll();
})();
