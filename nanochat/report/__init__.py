"""The report card of a run: reads run records, writes report.md, report.html and pictures."""
