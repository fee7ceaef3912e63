"""The commands: one module each. Results go to standard output, everything else to standard error."""
