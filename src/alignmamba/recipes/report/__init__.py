"""One self-contained HTML page of an experiment or a run: `rendering.write_page`."""
