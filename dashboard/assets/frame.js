/* Keyboard, copying, theme and drag order: what the browser does without asking the server.
   Every change of view goes through the address. */
(function () {
  "use strict";

  var root = document.documentElement;
  var lastPath = null;

  function go(href) {
    window.history.pushState({}, "", href);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
  }

  function click(selector) {
    var found = document.querySelector(selector);
    if (found) { found.click(); }
    return Boolean(found);
  }

  function currentTheme() { return root.dataset.theme === "dark" ? "dark" : "light"; }

  function say(text) {
    var toast = document.getElementById("toast");
    if (!toast) { return; }
    var note = document.createElement("div");
    note.className = "note";
    note.setAttribute("role", "status");
    note.textContent = text;
    document.body.appendChild(note);
    window.setTimeout(function () { note.remove(); }, 1800);
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    gradscope: {
      theme: function (search) {
        var asked = new URLSearchParams(search || "").get("theme");
        var theme = asked === "dark" || asked === "light" ? asked : currentTheme();
        root.dataset.theme = theme;
        if (asked) {
          try { window.localStorage.setItem("gradscope-theme", theme); } catch (refused) { /* private mode */ }
        }
        return theme;
      },
      arrived: function (path) {
        var page = document.getElementById("page");
        if (page && lastPath !== null && lastPath !== path) { page.scrollTop = 0; }
        lastPath = path;
        var word = (path || "/").replace("/", "");
        document.title = word ? word.charAt(0).toUpperCase() + word.slice(1) + " · GradScope" : "GradScope";
        return path;
      }
    }
  });

  function copy(text, button) {
    function done() {
      var before = button.textContent;
      button.textContent = "Copied";
      window.setTimeout(function () { button.textContent = before; }, 1400);
    }
    function byHand() {
      var area = document.createElement("textarea");
      area.value = text;
      area.style.position = "fixed";
      area.style.opacity = "0";
      document.body.appendChild(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      done();
    }
    if (navigator.clipboard && window.isSecureContext) {
      navigator.clipboard.writeText(text).then(done, byHand);
    } else {
      byHand();
    }
  }

  function setDialog(open) {
    var ground = document.getElementById("shortcuts");
    if (!ground) { return; }
    ground.classList.toggle("open", open);
    if (open) { ground.querySelector("button").focus(); }
  }

  document.addEventListener("click", function (event) {
    var target = event.target;
    var copier = target.closest("[data-copy], [data-copy-text]");
    if (copier) {
      var source = copier.dataset.copy && document.getElementById(copier.dataset.copy);
      var text = source ? source.textContent : copier.dataset.copyText;
      if (text) { copy(text, copier); } else { say("Nothing is drawn here yet"); }
    }
    if (target.closest("[data-open]")) { setDialog(true); }
    if (target.closest("[data-close]") || target.id === "shortcuts") { setDialog(false); }
    document.querySelectorAll("details.menu-holder[open]").forEach(function (menu) {
      if (!menu.contains(target) || target.closest(".menu-item")) { menu.removeAttribute("open"); }
    });
    if (target.closest("#toast")) { document.getElementById("toast").textContent = ""; }
  });

  function stepBy(amount) {
    var slider = document.querySelector("#step-control:not([hidden]) [role='slider']");
    if (!slider) { return; }
    slider.dispatchEvent(new KeyboardEvent("keydown", {
      key: amount < 0 ? "ArrowLeft" : "ArrowRight", bubbles: true, cancelable: true
    }));
  }

  document.addEventListener("keydown", function (event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (event.target.closest && event.target.closest("input, textarea, select")) { return; }
    var key = event.key;
    if (key === "?") { setDialog(true); return; }
    if (key === "Escape") {
      var ground = document.getElementById("shortcuts");
      if (ground && ground.classList.contains("open")) { setDialog(false); } else { click("#drawer-close"); }
      return;
    }
    if (/^[1-9]$/.test(key)) {
      var links = document.querySelectorAll("a.rail-link");
      if (links[key - 1]) { links[key - 1].click(); }
      return;
    }
    if (key === "[") { stepBy(-1); }
    if (key === "]") { stepBy(1); }
    if (key === "l") { click("#newest-step"); }
    if (key === "t") { click("#theme-switch"); }
    if (key === "p") { click("#pause-switch"); }
  });

  /* Drag a chip onto another one: the order of the runs in the address changes. */
  var dragged = null;
  document.addEventListener("dragstart", function (event) {
    var chip = event.target.closest && event.target.closest(".chip[data-run]");
    dragged = chip ? chip.dataset.run : null;
  });
  document.addEventListener("dragover", function (event) {
    if (dragged && event.target.closest && event.target.closest(".chip[data-run]")) { event.preventDefault(); }
  });
  document.addEventListener("drop", function (event) {
    var onto = event.target.closest && event.target.closest(".chip[data-run]");
    if (!dragged || !onto || onto.dataset.run === dragged) { return; }
    event.preventDefault();
    var names = Array.from(document.querySelectorAll(".chip[data-run]")).map(function (chip) { return chip.dataset.run; });
    var to = names.indexOf(onto.dataset.run);
    names.splice(names.indexOf(dragged), 1);
    names.splice(to, 0, dragged);
    var rest = window.location.search.replace(/^\?/, "").split("&").filter(function (part) {
      return part && part.indexOf("runs=") !== 0;
    });
    go(window.location.pathname + "?" + ["runs=" + names.map(encodeURIComponent).join(",")].concat(rest).join("&"));
    dragged = null;
  });
})();
