"""Lessons 08 to 10: conditional, learned and discrete priors."""
