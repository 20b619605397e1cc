"""How often intervals cover, and how often alarms err: every public one, simulated."""
