"""What the dashboards that we ship show. Written into files by `tools/gen_dashboards.py`."""
