"""Options, input, output and exit codes that verbs share."""
