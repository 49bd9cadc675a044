"""The report of an audit: counted while the audit runs, written as two pages (`page/`) and as JSON (`report_json`)."""
