"""Laws, strategies, tiny networks and assertions, for our methods and other people's."""
