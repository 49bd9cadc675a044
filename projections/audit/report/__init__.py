"""The report of an audit: counted while the audit runs, written as a page (`page/`) and as JSON (`report_json`)."""
