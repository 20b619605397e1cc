"""The literature's claims, measured over several populations and networks."""
