"""What people look at: report, memo, model card, monitoring page, page of a run, and the plots in them.

A document (plain data, schema_version) goes in, HTML or Markdown comes out; no number is computed here and no file is
written, but for the page of a killed run. `texts` says how a number or a foreign name is written.
"""
