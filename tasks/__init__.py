"""The steps of a run, one file each: read inputs, call pure functions, log counts, write outputs. No maths here."""
