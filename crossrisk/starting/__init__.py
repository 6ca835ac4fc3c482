"""A start for one's own data: a file is looked at, a portfolio and a suite are drafted (`crossrisk init`)."""
