"""What we are told: verifies, records, answers. It acts on nothing: that is the workers' part."""
