"""Deep adapters: one file a method, one trainer for all of them, losses as pure functions on stacked networks."""
