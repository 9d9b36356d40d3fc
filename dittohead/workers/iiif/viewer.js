// A viewer of IIIF image services, level 0 included: only tiles and sizes that such a service has are asked for.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const { pages, backwards } = JSON.parse(byId("data").textContent);
  const viewer = byId("viewer"), stage = byId("stage"), field = byId("number"), trouble = byId("trouble");
  const canvas = stage.querySelector("canvas"), pen = canvas.getContext("2d");
  const links = [...document.querySelectorAll("#images a")];
  const KEPT = 400; // tiles in memory, 1 MB each when decoded
  const tiles = new Map();
  let shown = 0, page = pages[0], scale = 1, x = 0, y = 0, fitted = true, due = false, wide = 1, high = 1;

  // -- what is where: x, y is the image's point in the middle of the stage; scale is CSS pixels per image pixel

  const least = () => Math.min(wide / page.w, high / page.h, 1);
  const most = () => Math.max(4, least());
  const within = (value, low, top) => Math.min(Math.max(value, low), top);

  function settle() {
    if (fitted) scale = least();
    scale = within(scale, least(), most());
    fitted = scale <= least() * 1.001;
    const across = wide / 2 / scale, down = high / 2 / scale;
    x = page.w <= 2 * across ? page.w / 2 : within(x, across, page.w - across);
    y = page.h <= 2 * down ? page.h / 2 : within(y, down, page.h - down);
    stage.classList.toggle("zoomed", !fitted);
    byId("smaller").disabled = byId("whole").disabled = fitted;
    byId("larger").disabled = scale >= most() * 0.999;
    if (!due) { due = true; requestAnimationFrame(draw); }
  }

  function zoom(by, left = wide / 2, top = high / 2) {
    const before = scale;
    scale = within(scale * by, least(), most());
    // The point under the pointer stays there.
    x += (left - wide / 2) * (1 / before - 1 / scale);
    y += (top - high / 2) * (1 / before - 1 / scale);
    fitted = false;
    settle();
  }

  function move(left, top) { x -= left / scale; y -= top / scale; settle(); }

  // -- tiles

  const side = (size) => (page.p === "level1" ? size[0] + "," : size[0] + "," + size[1]);

  function tileOf(factor, column, row) {
    const step = page.t * factor, left = column * step, top = row * step;
    const w = Math.min(step, page.w - left), h = Math.min(step, page.h - top);
    const all = w === page.w && h === page.h;
    const size = [Math.ceil(w / factor), Math.ceil(h / factor)];
    return { left, top, w, h, uri: `${page.u}/${all ? "full" : [left, top, w, h].join()}/${side(size)}/0/default.jpg` };
  }

  function picture(uri, wanted) {
    let tile = tiles.get(uri);
    if (tile) { tiles.delete(uri); tiles.set(uri, tile); return tile; } // now the youngest
    if (!wanted) return null;
    tile = { image: new Image(), ready: false };
    tile.image.onload = () => { tile.ready = true; settle(); };
    tile.image.onerror = () => { trouble.hidden = false; };
    tile.image.src = uri;
    tiles.set(uri, tile);
    if (tiles.size > KEPT) tiles.delete(tiles.keys().next().value);
    return tile;
  }

  function draw() {
    due = false;
    const dots = window.devicePixelRatio || 1;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const needed = 1 / (scale * dots); // image pixels per pixel of the screen
    const sharp = page.f.reduce((best, factor) => (factor <= needed * 1.15 && factor > best ? factor : best), page.f[0]);
    const coarse = page.f[page.f.length - 1];
    // From coarse to sharp: what is there stands in for what is still to come.
    for (const factor of [...page.f].reverse()) {
      if (factor >= sharp) layer(factor, factor === sharp || factor === coarse, dots);
    }
  }

  function layer(factor, wanted, dots) {
    const step = page.t * factor, left = x - wide / 2 / scale, top = y - high / 2 / scale;
    const columns = [left, left + wide / scale].map((at) => Math.floor(within(at, 0, page.w - 1) / step));
    const rows = [top, top + high / scale].map((at) => Math.floor(within(at, 0, page.h - 1) / step));
    const across = (at) => Math.round((at - left) * scale * dots), down = (at) => Math.round((at - top) * scale * dots);
    for (let row = rows[0]; row <= rows[1]; row++) {
      for (let column = columns[0]; column <= columns[1]; column++) {
        const tile = tileOf(factor, column, row), found = picture(tile.uri, wanted);
        if (!found || !found.ready) continue;
        const at = across(tile.left), from = down(tile.top);
        pen.drawImage(found.image, at, from, across(tile.left + tile.w) - at, down(tile.top + tile.h) - from);
      }
    }
  }

  // -- pages

  function show(number, tell = true) {
    if (!(number >= 0 && number < pages.length)) { field.value = shown + 1; return; }
    links[shown].removeAttribute("aria-current");
    shown = number;
    page = pages[number];
    fitted = true;
    trouble.hidden = true;
    x = page.w / 2;
    y = page.h / 2;
    field.value = number + 1;
    links[number].setAttribute("aria-current", "true");
    byId("before").disabled = number === 0;
    byId("after").disabled = number === pages.length - 1;
    canvas.setAttribute("aria-label", page.l);
    if (tell) {
      byId("said").textContent = `${page.l} of ${pages.length}`;
      history.replaceState(null, "", `#image=${number + 1}`);
    }
    settle();
  }

  function fromAddress() {
    const found = /^#image=(\d+)$/.exec(location.hash);
    if (found) show(Number(found[1]) - 1, false);
    return Boolean(found);
  }

  // -- people

  const pointers = new Map();
  let began = null;

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    began = pointers.size === 1 && fitted && event.pointerType === "touch" ? event.clientX : null;
    stage.classList.add("held");
  });
  stage.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    const here = [event.clientX, event.clientY];
    pointers.set(event.pointerId, here);
    if (!other) return move(here[0] - last[0], here[1] - last[1]);
    const far = (one) => Math.hypot(one[0] - other[1][0], one[1] - other[1][1]);
    const box = stage.getBoundingClientRect();
    move((here[0] - last[0]) / 2, (here[1] - last[1]) / 2);
    zoom(far(here) / Math.max(far(last), 1), (here[0] + other[1][0]) / 2 - box.left, (here[1] + other[1][1]) / 2 - box.top);
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    const moved = began === null || event.type !== "pointerup" ? 0 : event.clientX - began;
    began = null;
    if (Math.abs(moved) > 60) show(shown + (moved < 0 !== backwards ? 1 : -1));
    if (!pointers.size) stage.classList.remove("held");
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("dblclick", (event) => {
    const box = stage.getBoundingClientRect();
    zoom(event.shiftKey ? 0.5 : 2, event.clientX - box.left, event.clientY - box.top);
  });
  stage.addEventListener("wheel", (event) => {
    // Elsewhere the wheel scrolls the page, as it does everywhere.
    if (document.activeElement !== stage && !event.ctrlKey && !document.fullscreenElement) return;
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoom(Math.exp(-within(event.deltaY * lines, -300, 300) / 500), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });

  const turn = (by) => show(shown + (backwards ? -by : by));
  const keys = {
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": () => { fitted = true; settle(); },
    ArrowLeft: () => (fitted ? turn(-1) : move(80, 0)), ArrowRight: () => (fitted ? turn(1) : move(-80, 0)),
    ArrowUp: () => move(0, 80), ArrowDown: () => move(0, -80),
    PageUp: () => show(shown - 1), PageDown: () => show(shown + 1), Home: () => show(0), End: () => show(pages.length - 1),
  };
  stage.addEventListener("keydown", (event) => {
    const free = fitted && (event.key === "ArrowUp" || event.key === "ArrowDown"); // they scroll the page
    if (!(event.key in keys) || event.ctrlKey || event.altKey || event.metaKey || free) return;
    event.preventDefault();
    keys[event.key]();
  });
  byId("before").addEventListener("click", () => show(shown - 1));
  byId("after").addEventListener("click", () => show(shown + 1));
  byId("larger").addEventListener("click", keys["+"]);
  byId("smaller").addEventListener("click", keys["-"]);
  byId("whole").addEventListener("click", keys["0"]);
  field.addEventListener("change", () => show(Math.round(Number(field.value)) - 1));
  if (document.fullscreenEnabled) {
    byId("full").hidden = false;
    byId("full").addEventListener("click", () => {
      if (document.fullscreenElement) document.exitFullscreen(); else viewer.requestFullscreen();
    });
  }
  links.forEach((link, number) => link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    show(number);
    viewer.scrollIntoView();
    stage.focus({ preventScroll: true });
  }));
  window.addEventListener("hashchange", fromAddress);

  viewer.hidden = false;
  new ResizeObserver(() => {
    const dots = window.devicePixelRatio || 1;
    wide = stage.clientWidth || 1;
    high = stage.clientHeight || 1;
    canvas.width = Math.round(wide * dots);
    canvas.height = Math.round(high * dots);
    settle();
  }).observe(stage);
  if (!fromAddress()) show(0, false);
})();
