"""Request record, scope, rules, decision and its encoding. Pure."""
