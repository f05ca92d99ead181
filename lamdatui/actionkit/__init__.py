"""For action files: the rules that they are held to, a template, docs, cost formulas, measured costs, mergekit's methods."""
