"""Grafana's dashboards as code: what operators look at, and the queries behind it. Needs the extra `dashboards`."""
