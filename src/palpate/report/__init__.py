"""One self-contained HTML page from a record alone; no tensor library is ever imported here."""
