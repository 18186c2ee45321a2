// Package observe names every metric and event once, as data, and holds the
// cheap counters behind them. It never knows Prometheus, slog or where a figure
// is shown: node does.
package observe
