"""Dashboards as code: `python -m grafana.generate` writes what Grafana loads."""
