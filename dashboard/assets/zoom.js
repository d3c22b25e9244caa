/* Keeps a reader's zoom while a run grows. After a zoom Dash hands the zoomed ranges back as if they were
   the figure's own, so plotly takes the next figure's ranges for news and drops the reader's. They are
   kept here, by plot and `uirevision`, until the axis is reset. */
(function () {
  "use strict";

  var zooms = {};

  function nameOf(plot) {
    var graph = plot.closest(".dash-graph");
    return graph ? graph.id : plot.id;
  }

  function isReset(axis) {
    return axis.autorange || (axis.range[0] === axis._rangeInitial0 && axis.range[1] === axis._rangeInitial1);
  }

  function note(plot, changes) {
    var full = plot._fullLayout, name = nameOf(plot);
    var held = zooms[name];
    if (!held || held.revision !== full.uirevision) { held = { revision: full.uirevision, ranges: {} }; }
    Object.keys(changes).forEach(function (key) {
      var part = /^([xy]axis\d*)\.(range|autorange)/.exec(key);
      if (!part || !full[part[1]]) { return; }
      var axis = full[part[1]];
      if (isReset(axis)) { delete held.ranges[part[1]]; } else { held.ranges[part[1]] = axis.range.slice(); }
    });
    zooms[name] = held;
  }

  function zoomed(plot, figure) {
    var held = zooms[nameOf(plot)], layout = figure && figure.layout;
    if (!held || !layout || layout.uirevision !== held.revision) { return figure; }
    var own = {};
    Object.keys(held.ranges).forEach(function (axis) {
      own[axis] = Object.assign({}, layout[axis], { range: held.ranges[axis].slice(), autorange: false });
    });
    return Object.assign({}, figure, { layout: Object.assign({}, layout, own) });
  }

  function keep(plotly) {
    var react = plotly.react;
    plotly.react = function (plot, figure) {
      var rest = Array.prototype.slice.call(arguments, 2);
      var drawn = react.apply(plotly, [plot, zoomed(plot, figure)].concat(rest));
      return drawn.then(function (done) {
        if (!plot._keepsZoom && plot.on) {
          plot._keepsZoom = true;
          plot.on("plotly_relayout", function (changes) { note(plot, changes || {}); });
        }
        return done;
      });
    };
  }

  /* plotly.js comes with the first plot, later than this file. */
  var waiting = window.setInterval(function () {
    if (!window.Plotly) { return; }
    window.clearInterval(waiting);
    keep(window.Plotly);
  }, 50);
})();
